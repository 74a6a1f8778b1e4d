"""Where the known masks of an organ or region are: a modality of the task, or a folder beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files
from nndet_psma.dataset.images.images import Volume, read_volume, resample_volume
from nndet_psma.dataset.task.cases import IMAGE_SUFFIXES, RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.mask_values import hard_mask
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.dataset.task.structures import find_structures, label_table

FOLDER = "roi"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = ("background", "ignore")

SEGMENTER = "nodeseg"
"""The system that segments masks."""


def check_name(name: str) -> str:
    """The name of a mask as files and folders have it: capital letters.

    Raises:
        UserError: it cannot be a folder, or nnU-Net gives it another meaning.
    """
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise UserError(
            f"'{name}' is no name of a mask",
            expected="letters, digits and _, such as CTV, BLADDER or PROSTATE",
        )
    return name.upper()


def roi_folder(paths: TaskPaths, name: str) -> Path:
    """Everything made for the mask ``name`` of a task."""
    return paths.preprocessed / FOLDER / name


@dataclass(frozen=True)
class KnownMasks:
    """Masks that somebody made of an organ or region.

    Attributes:
        name: of the mask, such as CTV.
        modality: file number of the task's own modality; not used where ``folder`` is given.
        folder: ``CASE.nii.gz`` (a mask, or numbers of several structures) or ``CASE/NAME.nii.gz``.
        labels: numbers of the structures, where masks are numbered and their headers do not tell.
        ours: content hashes of masks that a network of ours made; these are no truth.
    """

    name: str
    modality: int | None = None
    folder: Path | None = None
    labels: Mapping[str, int] | None = None
    ours: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.is_dir():
            raise UserError("no such folder of masks", file=self.folder, remedy="Correct the path")

    def file(self, case: RawCase) -> Path | None:
        """The file that holds the mask of a case, or None.

        Args:
            case: ``images`` numbered as in the task.
        """
        if self.folder is None:
            known = self.modality is not None and self.modality < len(case.images)
            file = case.images[self.modality] if known and self.modality is not None else None
        elif (self.folder / case.case_id).is_dir():
            file = self._named(case.case_id)
        else:
            names = (self.folder / f"{case.case_id}{suffix}" for suffix in IMAGE_SUFFIXES)
            file = next((name for name in names if name.is_file()), None)
        return None if file is None or (self.ours and hash_files([file]) in self.ours) else file

    def read(self, case: RawCase, grid: Geometry) -> NDArray[np.bool_] | None:
        """The mask (z, y, x) of a case on ``grid``, resampled to the nearest voxel; None where nobody made one.

        Raises:
            UserError: the file cannot be read, is an interpolated mask, or holds several numbers without names.
        """
        file = self.file(case)
        if file is None:
            return None
        volume = read_volume(file, canonical=False)
        chosen = self._chosen(file, hard_mask(volume.array, file))
        if volume.geometry.same_grid(grid) and volume.geometry.direction == grid.direction:
            return chosen
        return (
            resample_volume(Volume(chosen.astype(np.uint8), volume.geometry), grid, order=0, fill=0).array > 0
        )

    def _named(self, case_id: str) -> Path | None:
        structures = find_structures(Path(self.folder or "."), case_id)
        fitting = [name for name in structures.names if name.upper() == self.name]
        return structures.files.get(fitting[0]) if fitting else None

    def _chosen(self, file: Path, array: NDArray[Any]) -> NDArray[np.bool_]:
        """Voxels of the mask in a file of one mask or of numbered structures."""
        own = self.folder is not None and file.parent == self.folder
        table = dict(self.labels or label_table(file)) if own else {}
        numbers = [number for name, number in table.items() if name.upper() == self.name]
        if numbers:
            return np.isin(array, numbers)
        values = np.unique(array)
        if len(values[values > 0]) > 1 or values.min(initial=0) < 0:
            raise UserError(
                f"it is not told which number of this mask is {self.name}",
                file=file,
                expected="0 and one positive number",
                found=", ".join(f"{value:g}" for value in values[:6]),
                remedy=f'Name the numbers with --labels NAMES.json ({{"{self.name}": 1, ...}})',
            )
        return np.asarray(array > 0)


def known_masks(
    paths: TaskPaths,
    description: DatasetDescription,
    name: str,
    folder: Path | None,
    labels: Mapping[str, int] | None,
) -> KnownMasks:
    """Masks in ``folder``, or else those of the task's modality ``name``, without what ``roi apply`` made.

    Raises:
        UserError: no such folder.
    """
    index = next((i for i, m in description.modalities.items() if m.strip().upper() == name), None)
    return KnownMasks(name, index, folder, labels, applied_before(paths, name))


def applied_before(paths: TaskPaths, name: str) -> frozenset[str]:
    """Content hashes of the masks that were put into the task by a network."""
    file = roi_folder(paths, name) / "applied.json"
    return frozenset(read_json(file)["hashes"]) if file.is_file() else frozenset()


def note_applied(paths: TaskPaths, name: str, files: list[Path]) -> None:
    """Remember masks before they become a modality: nothing may be trained on or compared with them."""
    hashes = applied_before(paths, name) | {hash_files([file]) for file in files}
    write_json(roi_folder(paths, name) / "applied.json", {"hashes": sorted(hashes)})
