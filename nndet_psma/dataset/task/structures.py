"""Masks of named structures of a case: a folder of ``NAME.nii.gz``, or one file of numbers with their names.

Both forms are what TotalSegmentator writes: one file per structure, or a single file whose NIfTI header carries a table
of label names (Connectome Workbench's extension of the format).
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, read_volume, resample_volume
from nndet_psma.dataset.images.nifti_bytes import is_compressed, is_nifti_name
from nndet_psma.dataset.task.mask_values import hard_mask

_HEADER_BYTES = 348
_MOST_EXTENSION_BYTES = 4_000_000
_LABEL = re.compile(rb'<Label\s+Key="(\d+)"[^>]*>\s*<!\[CDATA\[(.*?)\]\]>\s*</Label>', re.DOTALL)
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


@dataclass(frozen=True)
class Structures:
    """Named masks of one case.

    Attributes:
        files: file of every structure that has one of its own.
        labels: number of every structure in ``numbered``.
        numbered: file that holds several structures as numbers.
    """

    files: Mapping[str, Path]
    labels: Mapping[str, int]
    numbered: Path | None

    @property
    def names(self) -> list[str]:
        """Structures of the case, in alphabetical order."""
        return sorted({*self.files, *self.labels})

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Names that match one of the shell patterns (``iliac_*``)."""
        return [name for name in self.names if any(fnmatchcase(name, pattern) for pattern in patterns)]

    def union(self, names: Sequence[str], grid: Geometry) -> NDArray[np.bool_]:
        """Voxels (z, y, x) of any of the structures on ``grid`` (canonical axes); resampled to the nearest voxel.

        Raises:
            UserError: a file cannot be read, or holds an interpolated mask.
        """
        found = np.zeros(grid.shape, dtype=bool)
        for name in names:
            if name in self.files:
                found |= _on(self.files[name], grid) > 0
        numbers = [self.labels[name] for name in names if name not in self.files]
        if numbers and self.numbered is not None:
            found |= np.isin(_on(self.numbered, grid), numbers)
        return found


def find_structures(folder: Path, case_id: str, names: Mapping[str, int] | None = None) -> Structures:
    """Structures of a case below ``folder``: a folder ``<case_id>/`` of masks, or one file ``<case_id>.nii.gz``.

    Args:
        folder: of all cases.
        case_id: the case.
        names: numbers of the structures of a numbered file, where its header does not tell them.

    Raises:
        UserError: nothing there, or the numbers have no names.
    """
    own = folder / case_id
    if own.is_dir():
        files = {_stem(file): file for file in sorted(own.iterdir()) if file.name.endswith(_SUFFIXES)}
        if files:
            return Structures(files, {}, None)
    numbered = next((f for f in (folder / f"{case_id}{s}" for s in _SUFFIXES) if f.is_file()), None)
    if numbered is None:
        raise UserError(
            f"no structures of case {case_id}",
            file=folder,
            expected=f"a folder {case_id}/ of masks such as iliac_artery_left.nii.gz, or a file {case_id}.nii.gz",
            remedy="Segment the case, for instance with TotalSegmentator, and name the output after it",
        )
    labels = dict(names) if names else label_table(numbered)
    if not labels:
        raise UserError(
            "the header does not name the numbers of this mask",
            file=numbered,
            remedy='Give names with --labels NAMES.json ({"iliac_artery_left": 65, ...}), or one file per structure',
        )
    return Structures({}, labels, numbered)


def read_label_names(file: Path) -> dict[str, int]:
    """``{"name": number}`` of a JSON file.

    Raises:
        UserError: it is something else.
    """
    content = read_json(file)
    fits = isinstance(content, dict) and all(type(v) is int and v > 0 for v in content.values())
    if not fits or not content:
        raise UserError(
            "no table of label names",
            file=file,
            expected='an object such as {"iliac_artery_left": 65}',
            found="another form, or a number that is no whole one from 1",
            remedy="Write one name and one number for each structure",
        )
    return {str(name): int(number) for name, number in content.items()}


def label_table(file: Path) -> dict[str, int]:
    """Label names in the header extensions of a NIfTI-1 file; empty where there are none."""
    if not is_nifti_name(file):
        return {}
    return {
        name.decode("utf-8", "replace"): int(number) for number, name in _LABEL.findall(_extensions(file))
    }


def _extensions(file: Path) -> bytes:
    """What lies between header and voxels."""
    try:
        with gzip.open(file) if is_compressed(file) else file.open("rb") as handle:
            header = handle.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                return b""
            order = "<" if struct.unpack("<i", header[:4])[0] == _HEADER_BYTES else ">"
            offset = struct.unpack(f"{order}f", header[108:112])[0]
            if not _HEADER_BYTES < offset <= _MOST_EXTENSION_BYTES:
                return b""
            return handle.read(int(offset) - _HEADER_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            "cannot be read", file=file, found=str(error), remedy="Copy or export the file again"
        ) from None


def _stem(file: Path) -> str:
    return next(file.name.removesuffix(suffix) for suffix in _SUFFIXES if file.name.endswith(suffix))


def _on(file: Path, grid: Geometry) -> NDArray[Any]:
    volume = read_volume(file)
    volume = Volume(hard_mask(volume.array, file), volume.geometry)
    if volume.geometry.same_grid(grid):
        return volume.array
    return resample_volume(volume, grid, order=0, fill=0).array
