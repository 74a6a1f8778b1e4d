"""Which cases a raw folder holds, told from the file names of nnDetection's format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<index>\d{4})")


@dataclass(frozen=True)
class RawCase:
    """Files of one case.

    Attributes:
        case_id: name without modality number and suffix.
        images: one file per modality, by modality index (the CTV included).
        label: instance mask, or None.
        instances: JSON with the class of every instance, or None.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None = None
    instances: Path | None = None


@dataclass(frozen=True)
class CaseProblem:
    """Something wrong with the names in a raw folder.

    Attributes:
        kind: short stable name of the problem.
        error: what a user is told.
        label: the problem lies in the labels, not in the images.
        case_id: a case of this name exists, but lacks images.
    """

    kind: str
    error: UserError
    label: bool = False
    case_id: str | None = None


def list_cases(paths: TaskPaths, description: DatasetDescription, split: str = "Tr") -> list[RawCase]:
    """Cases of a task, sorted by id. Training cases must have labels; test cases need not.

    Raises:
        UserError: the first problem of :func:`scan_task`; problems of test labels are left to the check.
    """
    cases, problems = scan_task(paths, description, split)
    for problem in problems:
        if split == "Tr" or not problem.label:
            raise problem.error
    return cases


def list_folder_cases(folder: Path, description: DatasetDescription) -> list[RawCase]:
    """Cases of any folder of images without labels, sorted by id, for prediction.

    Files are called ``<case>_0000.nii.gz`` ... as in a task. With exactly one image modality (a CTV may come
    beside it) that image may also be called plainly ``<case>.nii.gz``.

    Raises:
        UserError: the folder is missing or empty, a modality is missing, a file does not belong.
    """
    plain = description.image_modalities[0] if len(description.image_modalities) == 1 else None
    files, problems = _scan_images(folder, description, plain)
    for problem in problems:
        raise problem.error
    return [RawCase(case_id, _in_order(by_index)) for case_id, by_index in sorted(files.items())]


def scan_task(
    paths: TaskPaths, description: DatasetDescription, split: str
) -> tuple[list[RawCase], list[CaseProblem]]:
    """All cases whose images are complete, and every problem with names in images and labels of ``split``."""
    files, problems = _scan_images(paths.images(split), description, None)
    complete = {
        case_id: by_index for case_id, by_index in files.items() if _is_complete(by_index, description)
    }
    needs_labels = split == "Tr" or description.test_labels
    labels, label_problems = _scan_labels(paths.labels(split), set(files), needs_labels)
    cases = [
        RawCase(case_id, _in_order(by_index), *labels.get(case_id, (None, None)))
        for case_id, by_index in sorted(complete.items())
    ]
    return cases, problems + label_problems


def split_suffix(file: Path) -> tuple[str, str | None]:
    """Name without image suffix, and the suffix (None when it is no image we read)."""
    for suffix in IMAGE_SUFFIXES:
        if file.name.lower().endswith(suffix):
            return file.name[: -len(suffix)], suffix
    return file.name, None


def _scan_images(
    folder: Path, description: DatasetDescription, plain: int | None
) -> tuple[dict[str, dict[int, Path]], list[CaseProblem]]:
    """Files by case and modality; ``plain`` is the modality of a file without number, if such are allowed."""
    if not folder.is_dir():
        return {}, [
            CaseProblem(
                "missing folder",
                UserError("folder does not exist", file=folder, remedy="Put the images there"),
            )
        ]
    cases: dict[str, dict[int, Path]] = {}
    problems: list[CaseProblem] = []
    for file in _listed(folder, problems):
        parsed = _parse_image(file, description, plain)
        if isinstance(parsed, CaseProblem):
            problems.append(parsed)
            continue
        case_id, index = parsed
        by_index = cases.setdefault(case_id, {})
        if index in by_index:
            problems.append(_duplicate(file, by_index[index]))
        by_index.setdefault(index, file)
    problems += list(_missing_modalities(folder, cases, description, plain))
    if not cases and not problems:
        expected, remedy = "files <case>_0000.nii.gz ...", "Put the images there"
        error = UserError("no images in this folder", file=folder, expected=expected, remedy=remedy)
        problems.append(CaseProblem("no cases", error))
    return cases, problems


def _parse_image(
    file: Path, description: DatasetDescription, plain: int | None
) -> tuple[str, int] | CaseProblem:
    stem, suffix = split_suffix(file)
    if suffix is None:
        return _stray(file, f"images ({', '.join(IMAGE_SUFFIXES)})")
    parts = _NUMBERED.fullmatch(stem)
    if "." in (parts["case"] if parts else stem):
        return _dot(file)
    if parts is None:
        if plain is not None:
            return stem, plain
        example = f"{stem}_0000{suffix}"
        error = UserError("image without modality number", file=file, remedy=f"Rename it, e.g. to {example}")
        return CaseProblem("misnamed file", error)
    index = int(parts["index"])
    if index not in description.modalities:
        listed = ", ".join(f"_{i:04d} ({name})" for i, name in description.modalities.items())
        error = UserError(
            "file of a modality that the description does not have",
            file=file,
            expected=listed,
            found=f"_{index:04d}",
            remedy="Remove or rename the file, or add the modality to dataset.json",
        )
        return CaseProblem("extra modality", error)
    return parts["case"], index


def _missing_modalities(
    folder: Path, cases: dict[str, dict[int, Path]], description: DatasetDescription, plain: int | None
) -> Iterator[CaseProblem]:
    for case_id, by_index in sorted(cases.items()):
        suffix = split_suffix(next(iter(by_index.values())))[1]
        for index, name in description.modalities.items():
            if index in by_index:
                continue
            expected = f"{case_id}_{index:04d}{suffix}"
            error = UserError(
                f"the {name} of case {case_id} is missing",
                file=folder / expected,
                found=", ".join(sorted(file.name for file in by_index.values())),
                remedy=f"Add {expected} or remove the case",
            )
            yield CaseProblem("missing modality", error, case_id=case_id)


def _scan_labels(
    folder: Path, case_ids: set[str], needed: bool
) -> tuple[dict[str, tuple[Path | None, Path | None]], list[CaseProblem]]:
    if not folder.is_dir():
        if not needed:
            return {}, []
        remedy = "Add the labels" + ("" if folder.name.endswith("Tr") else ", or set test_labels to false")
        error = UserError("folder of labels does not exist", file=folder, remedy=remedy)
        return {}, [CaseProblem("missing labels", error, label=True)]
    masks: dict[str, Path] = {}
    tables: dict[str, Path] = {}
    problems: list[CaseProblem] = []
    for file in _listed(folder, problems, label=True):
        problem = _sort_label(file, case_ids, masks, tables)
        if problem is not None:
            problems.append(problem)
    for case_id in sorted(case_ids if needed else masks.keys() | tables.keys()):
        problems += list(_missing_labels(folder, case_id, masks, tables))
    return {case: (masks.get(case), tables.get(case)) for case in masks.keys() | tables.keys()}, problems


def _sort_label(
    file: Path, case_ids: set[str], masks: dict[str, Path], tables: dict[str, Path]
) -> CaseProblem | None:
    """Put a label file where it belongs, or say why it does not belong."""
    is_table = file.name.lower().endswith(".json")
    case_id, suffix = (file.name[:-5], ".json") if is_table else split_suffix(file)
    if suffix is None:
        return _stray(file, "masks <case>.nii.gz and <case>.json", label=True)
    if "." in case_id:
        return _dot(file, label=True)
    if case_id not in case_ids:
        remedy = "Remove it, or rename it to <case> without modality number"
        error = UserError("label of a case that has no images", file=file, remedy=remedy)
        return CaseProblem("label without images", error, label=True)
    target = tables if is_table else masks
    if case_id in target:
        return _duplicate(file, target[case_id], label=True)
    target[case_id] = file
    return None


def _missing_labels(
    folder: Path, case_id: str, masks: dict[str, Path], tables: dict[str, Path]
) -> Iterator[CaseProblem]:
    if case_id not in masks and case_id not in tables:
        error = UserError(
            f"case {case_id} has no label",
            file=folder / f"{case_id}.nii.gz",
            expected=f"the mask {case_id}.nii.gz and the classes {case_id}.json",
            remedy="Add both (mask all zero and no instances when the case has no lesion)",
        )
        yield CaseProblem("unlabelled case", error, label=True)
        return
    if case_id not in masks:
        error = UserError(
            f"the mask of case {case_id} is missing",
            file=folder / f"{case_id}.nii.gz",
            remedy="Add it (all zero when the case has no lesion)",
        )
        yield CaseProblem("missing label", error, label=True)
    if case_id not in tables:
        error = UserError(
            f"the classes of case {case_id} are missing",
            file=folder / f"{case_id}.json",
            remedy='Add {"instances": {"1": 0}} with one entry per instance id ({} when there is none)',
        )
        yield CaseProblem("missing instances", error, label=True)


def visible_files(folder: Path) -> list[Path]:
    """What a user put into a folder, sorted: without hidden files and those that operating systems leave."""
    return sorted(
        file
        for file in folder.iterdir()
        if not file.name.startswith(".") and file.name.lower() not in _SYSTEM_FILES
    )


def _listed(folder: Path, problems: list[CaseProblem], *, label: bool = False) -> list[Path]:
    try:
        return visible_files(folder)
    except OSError as error:
        found, remedy = str(error.strerror), "Check its permissions"
        problem = UserError("the folder cannot be listed", file=folder, found=found, remedy=remedy)
        problems.append(CaseProblem("unreadable folder", problem, label))
        return []


def _is_complete(by_index: dict[int, Path], description: DatasetDescription) -> bool:
    return set(by_index) == set(description.modalities)


def _in_order(by_index: dict[int, Path]) -> tuple[Path, ...]:
    return tuple(by_index[index] for index in sorted(by_index))


def _stray(file: Path, expected: str, *, label: bool = False) -> CaseProblem:
    error = UserError("this file does not belong here", file=file, expected=expected, remedy="Move it away")
    return CaseProblem("stray file", error, label)


def _dot(file: Path, *, label: bool = False) -> CaseProblem:
    error = UserError("dot in the name of a case", file=file, remedy="Rename the case, e.g. with '_' for '.'")
    return CaseProblem("dot in case name", error, label)


def _duplicate(file: Path, other: Path, *, label: bool = False) -> CaseProblem:
    error = UserError(
        "the same file in two formats", file=file, found=f"also {other.name}", remedy="Keep one"
    )
    return CaseProblem("duplicate file", error, label)
