"""Find the files of studies by patterns with wildcards, and name cases after what the wildcards stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.core.errors import UserError

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True)
class StudyFiles:
    """Files of one study.

    Attributes:
        case_id: what the wildcards stand for, joined by ``_``, with only letters, digits, ``_`` and ``-``.
        patient_id: what the first wildcard stands for.
        files: one per pattern, by the name of the pattern.
    """

    case_id: str
    patient_id: str
    files: dict[str, Path]


def find_studies(
    source: Path, patterns: Mapping[str, str], optional: frozenset[str] = frozenset()
) -> list[StudyFiles]:
    """Studies below ``source``, sorted by case id.

    Args:
        source: folder of all studies.
        patterns: by name (``CT``), a path below ``source`` with one or more ``*``; the first pattern defines which
            studies there are.
        optional: names of patterns that need not match in every study.

    Raises:
        UserError: a pattern has no ``*`` or matches nothing, a file of a study is missing, or two studies would
            get the same case id.
    """
    if not source.is_dir():
        raise UserError("no such folder of studies", file=source, remedy="Correct the path")
    matches = {name: _match(source, name, pattern) for name, pattern in patterns.items()}
    first = next(iter(patterns))
    studies: dict[str, StudyFiles] = {}
    for key in sorted(matches[first]):
        files = _files_of(source, key, matches, patterns, optional)
        study = StudyFiles(_clean("_".join(key)), _clean(key[0]), files)
        if study.case_id in studies:
            raise UserError(
                f"two studies would both be called {study.case_id}",
                file=files[first],
                found=str(studies[study.case_id].files[first]),
                remedy="Rename one of the folders",
            )
        studies[study.case_id] = study
    return [studies[case_id] for case_id in sorted(studies)]


def _match(source: Path, name: str, pattern: str) -> dict[tuple[str, ...], Path]:
    """Files by what the wildcards stand for."""
    if "*" not in pattern or "**" in pattern or pattern.startswith("/"):
        raise UserError(
            f"the pattern of {name} does not tell studies apart",
            expected='a path below the source with single *, e.g. "*/CT.nii.gz"',
            found=pattern,
            remedy="Put a * where the names of studies differ, and no **",
        )
    expression = re.compile("([^/]*)".join(re.escape(part) for part in pattern.split("*")))
    found: dict[tuple[str, ...], Path] = {}
    # the shell's other wildcards mean themselves here
    for file in sorted(source.glob(re.sub(r"([\[?])", r"[\1]", pattern))):
        parts = expression.fullmatch(file.relative_to(source).as_posix())
        if parts is not None and file.is_file():
            found[parts.groups()] = file
    if not found:
        raise UserError(f"no file for {name}", file=source, expected=pattern, remedy="Correct the pattern")
    return found


def _files_of(
    source: Path,
    key: tuple[str, ...],
    matches: Mapping[str, Mapping[tuple[str, ...], Path]],
    patterns: Mapping[str, str],
    optional: frozenset[str],
) -> dict[str, Path]:
    files = {}
    for name, found in matches.items():
        if key in found:
            files[name] = found[key]
        elif name not in optional:
            raise UserError(
                f"study {'/'.join(key)} has no {name}",
                file=source,
                expected=patterns[name],
                remedy="Add the file or move the study away",
            )
    return files


def _clean(text: str) -> str:
    return _UNSAFE.sub("_", text).strip("_") or "case"
