"""A model in one zip: safetensors and JSON, nothing that runs. Reading trusts nothing it has not checked."""

from __future__ import annotations

import errno
import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nndet_psma.artifacts.model_folder import INFERENCE_PLAN, PLAN, WEIGHTS
from nndet_psma.artifacts.model_manifest import MANIFEST, FileEntry, ModelManifest
from nndet_psma.core.atomic import atomic_file, atomic_folder
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import CHECKSUM
from nndet_psma.core.parsing import parse_json

_WEIGHTS_NAME = re.compile(rf"fold\d{{1,3}}/\w[\w.+-]{{0,99}}/{re.escape(WEIGHTS)}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{32}")
JSON_NAMES = (MANIFEST, PLAN, INFERENCE_PLAN)
_BLOCK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can name: the same model gives the same bytes

MAX_FILES = 1000
MAX_JSON_BYTES = 16 << 20
MAX_WEIGHT_BYTES = 4 << 30
MAX_TOTAL_BYTES = 32 << 30
MAX_RATIO = 100
"""Weights hardly compress; what grows more than this when unpacked is no model."""


def is_weights_name(name: str) -> bool:
    """Whether a file of weights may have this name in an archive: ``fold0/STAGE/model.safetensors``."""
    return _WEIGHTS_NAME.fullmatch(name) is not None


def write_archive(file: Path, texts: dict[str, bytes], weights: dict[str, Path]) -> None:
    """Write a zip atomically; equal contents give equal bytes.

    Args:
        file: to write.
        texts: JSON files by name in the archive.
        weights: safetensors files by name in the archive; their free-text metadata is left out.
    """
    with (
        atomic_file(file) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name in [*sorted(texts), *sorted(weights)]:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            with archive.open(info, "w", force_zip64=True) as target:
                for block in [texts[name]] if name in texts else weight_blocks(weights[name]):
                    target.write(block)


def weight_blocks(file: Path) -> Iterator[bytes]:
    """A safetensors file in blocks, without the metadata that a tool may have put into its header but our checksum.

    Raises:
        UserError: it is no safetensors file.
    """
    import json

    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        try:
            header = parse_json(handle.read(min(length, MAX_JSON_BYTES * 4)))
            noted = header.pop("__metadata__", {}).get(CHECKSUM)
            if isinstance(noted, str) and _HASH.fullmatch(noted):
                header["__metadata__"] = {CHECKSUM: noted}
        except (ValueError, AttributeError):
            raise UserError(
                "is no safetensors file",
                file=file,
                remedy="Export the model again with nndet_psma export-model",
            ) from None
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        while block := handle.read(_BLOCK):
            yield block


def entry_of(blocks: Iterator[bytes]) -> FileEntry:
    """Size and hash of a file given in blocks."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return FileEntry(size, digest.hexdigest())


def read_manifest(file: Path, texts: Collection[str] = ()) -> ModelManifest:
    """The manifest of an archive whose names and sizes have passed every check; weights are not read.

    Args:
        file: zip of :func:`write_archive`.
        texts: names of JSON files that a model may have beside :data:`JSON_NAMES`.
    """
    with _opened(file) as archive:
        return _manifest(archive, _checked_members(archive, file, texts), file)


def unpack_model(
    file: Path,
    target: Path,
    check: Callable[[Path, ModelManifest, Path], None],
    texts: Collection[str] = (),
) -> ModelManifest:
    """Unpack a checked archive; ``target`` appears whole or not at all.

    Names are matched against the few that a model has, so no file can land elsewhere; sizes are bounded before and
    while unpacking; every hash is compared; plan and thresholds must be valid and belong to the weights. Nothing
    in the archive is executed.

    Args:
        file: zip of :func:`write_archive`.
        target: folder to make.
        check: refuses contents that make no model; gets the unpacked folder, the manifest and the archive.
        texts: names of JSON files that a model may have beside :data:`JSON_NAMES`.

    Raises:
        UserError: it is no such archive, is damaged, or contains something else.
    """
    with _opened(file) as archive, atomic_folder(target) as temporary:
        members = _checked_members(archive, file, texts)
        manifest = _manifest(archive, members, file)
        for name, entry in manifest.files.items():
            _unpack_one(archive, members[name], entry, temporary / name, file)
        (temporary / MANIFEST).write_bytes(_read_small(archive, members[MANIFEST], file))
        check(temporary, manifest, file)
    return manifest


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip and explain what its reader raises."""
    if not file.is_file():
        raise UserError("file does not exist", file=file, remedy="Correct the path")
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise refuse(file, "is no zip, or a damaged one", str(error)) from None
    except OSError as error:
        # a damaged directory sends the reader to a negative place in the file; a full disk is another matter
        if error.errno != errno.EINVAL:
            raise
        raise refuse(file, "is no zip, or a damaged one", str(error)) from None


def _checked_members(
    archive: zipfile.ZipFile, file: Path, texts: Collection[str] = ()
) -> dict[str, zipfile.ZipInfo]:
    """Members by name, every name and size within what a model can have."""
    members = archive.infolist()
    if len(members) > MAX_FILES:
        raise refuse(file, "holds too many files", str(len(members)))
    found: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in members:
        _check_member(info, file, texts)
        if info.filename.casefold() in folded:
            raise refuse(file, "names a file twice", info.filename)
        folded.add(info.filename.casefold())
        found[info.filename] = info
    if sum(info.file_size for info in members) > MAX_TOTAL_BYTES:
        raise refuse(file, "is too large when unpacked", None)
    if sum(info.compress_size for info in members) > file.stat().st_size:
        raise refuse(file, "holds files that overlap", None)
    missing = [name for name in JSON_NAMES if name not in found]
    if missing:
        raise refuse(file, "is no model archive", f"no {missing[0]}")
    return found


def _check_member(info: zipfile.ZipInfo, file: Path, texts: Collection[str]) -> None:
    name = info.orig_filename  # as stored: the reader cuts a name at a NUL and mends separators
    is_json = name in JSON_NAMES or name in texts
    if not is_json and not _WEIGHTS_NAME.fullmatch(name):
        raise refuse(file, "holds a file that no model has", repr(name)[:200])
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or info.is_dir():
        raise refuse(file, "holds a link or a special file", name)
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refuse(file, "is encrypted or compressed in an unusual way", name)
    limit = MAX_JSON_BYTES if is_json else MAX_WEIGHT_BYTES
    if info.file_size > limit or info.file_size > MAX_RATIO * info.compress_size + _BLOCK:
        raise refuse(file, "holds a file that grows too large", f"{name}, {info.file_size} bytes")


def _manifest(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], file: Path) -> ModelManifest:
    try:
        content = parse_json(_read_small(archive, members[MANIFEST], file))
    except ValueError as error:
        raise refuse(file, "has a manifest that is not JSON", str(error)) from None
    known = {"schema": ModelManifest.schema, "version": ModelManifest.version}
    if not isinstance(content, dict) or {key: content.get(key) for key in known} != known:
        raise refuse(file, "was written by another release", f"expected {known}")
    manifest = ModelManifest.parse({k: v for k, v in content.items() if k not in known}, f"{file}:{MANIFEST}")
    if set(manifest.files) != set(members) - {MANIFEST}:
        different = sorted(set(manifest.files) ^ (set(members) - {MANIFEST}))
        raise refuse(file, "does not hold what its manifest says", different[0])
    return manifest


def _read_small(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> bytes:
    with archive.open(info) as source:
        content = source.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise refuse(file, "holds a file that grows too large", info.filename)
    return content


def _unpack_one(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: FileEntry, target: Path, file: Path
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, target.open("xb") as handle:
        copied = entry_of(_copied(source, handle, entry.bytes))
    if copied != entry:
        raise refuse(file, "holds a file that differs from its hash", info.filename)


def _copied(source: IO[bytes], target: IO[bytes], limit: int) -> Iterator[bytes]:
    """Blocks as they are written; one byte more than there should be is enough to tell."""
    size = 0
    while size <= limit and (block := source.read(min(_BLOCK, limit + 1 - size))):
        target.write(block)
        size += len(block)
        yield block


def refuse(file: Path, what: str, found: str | None, remedy: str | None = None) -> UserError:
    """The error that refuses an archive."""
    return UserError(
        what, file=file, found=found or None, remedy=remedy or "Ask for the file again; nothing was imported"
    )
