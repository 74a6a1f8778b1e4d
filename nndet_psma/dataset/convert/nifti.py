"""Bring a folder of NIfTI studies into the raw format of a task."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.csv_table import write_table
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.convert.study_files import StudyFiles, find_studies
from nndet_psma.dataset.images.images import Volume, read_volume, resample_volume, write_volume
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.instances import instance_ids
from nndet_psma.dataset.task.mask_values import MAX_COMPONENTS, binary_mask, hard_mask, mask_components
from nndet_psma.dataset.task.paths import TaskPaths

LABEL = "lesion mask"  # no modality can be called so: it holds a space
_MASK_ROLES = (Role.CTV, Role.BLADDER, Role.PROSTATE)
_AIR_HU = -1024.0
_CHOICES = "nifti.json"
"""Hash of what cases were made by: with other patterns or options a finished case is not finished."""

_WHICH = "Say which count with --values 2 (or 1,2), or give --instances if every number is one lesion"


@dataclass(frozen=True)
class NiftiSource:
    """Which files make a task.

    Attributes:
        folder: holds all studies.
        images: pattern by modality name, in the order of the modalities; the first defines the grid.
        label: pattern of the lesion masks; None makes a task of test cases without labels, to be predicted.
        ctv: pattern of the search regions, or None.
        class_name: name of the one class.
        instances: the masks hold instance ids already; otherwise each connected component is a lesion.
        values: which values of the lesion masks count; empty where each may hold only one.
        soft: interpolated masks are thresholded at 0.5; otherwise they are refused.
    """

    folder: Path
    images: dict[str, str]
    label: str | None
    ctv: str | None = None
    class_name: str = "lesion"
    instances: bool = False
    values: tuple[int, ...] = ()
    soft: bool = False


@dataclass(frozen=True)
class Conversion:
    """What a conversion did: case ids, each sorted; ``skipped`` were finished before."""

    training: tuple[str, ...]
    test: tuple[str, ...]
    skipped: tuple[str, ...]
    num_lesions: int


def convert_nifti(
    source: NiftiSource,
    paths: TaskPaths,
    *,
    test_share: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    num_processes: int = 1,
) -> Conversion:
    """Write images, labels and at last ``dataset.json`` of a task.

    Every image is brought to the grid of the first one (linear; masks nearest), in canonical axes. A case whose
    files are all newer than its sources and were made by the same patterns and options is left alone, so a stopped
    conversion can be started again.

    Args:
        source: the studies.
        paths: the task to write.
        test_share: share of the patients, drawn at random, that become test cases.
        seed: of that draw.
        overwrite: convert finished cases again.
        num_processes: cases are converted in parallel.

    Raises:
        UserError: files missing or unreadable, masks of several values or interpolated ones that nothing was said
            of, a value that counts but is in no mask, a lesion lost on the grid.
    """
    labelled = source.label is not None
    if not labelled and (test_share > 0 or source.values or source.instances):
        raise UserError(
            "options about lesion masks, and no lesion masks",
            file=source.folder,
            remedy="Give --label, or leave out --test-share, --values and --instances",
        )
    description = _description(source, paths.name, has_test=test_share > 0)
    patterns = dict(source.images)
    if source.ctv is not None:
        patterns[Role.CTV.value] = source.ctv
    studies = find_studies(
        source.folder, patterns if source.label is None else {**patterns, LABEL: source.label}
    )
    test_ids = (
        draw_test_cases(studies, test_share, seed) if labelled else {study.case_id for study in studies}
    )
    jobs = [
        _Job(study, "Ts" if study.case_id in test_ids else "Tr", paths, description, source)
        for study in studies
    ]
    _forget_other_choices(jobs, paths, source)
    results = map_cases(partial(_convert, overwrite=overwrite), jobs, num_processes, title="convert")
    _check_values(source, results)
    _write_clinical(studies, paths)
    write_json(paths.root / "dataset.json", description.to_json())
    case_ids = [study.case_id for study in studies]
    return Conversion(
        training=tuple(case_id for case_id in case_ids if case_id not in test_ids),
        test=tuple(sorted(test_ids)),
        skipped=tuple(c for c, result in zip(case_ids, results, strict=True) if not result.new),
        num_lesions=sum(result.lesions for result in results),
    )


def draw_test_cases(studies: Sequence[StudyFiles], share: float, seed: int) -> set[str]:
    """Case ids of a random ``share`` of the patients (rounded); all cases of a patient go together.

    Raises:
        UserError: the share is not in [0, 1), or no patient would be left to train on.
    """
    patients = sorted({study.patient_id for study in studies})
    count = round(share * len(patients))
    if not 0 <= share < 1 or (share > 0 and count == len(patients)):
        raise UserError(
            "the test share leaves nothing to train on",
            expected="0 <= share < 1, and a patient left",
            found=f"{share} of {len(patients)} patients",
            remedy="Give a smaller --test-share",
        )
    chosen = set(random.Random(seed).sample(patients, count))
    return {study.case_id for study in studies if study.patient_id in chosen}


def lesions_of(
    mask: NDArray[Any],
    file: Path,
    *,
    instances: bool = False,
    values: tuple[int, ...] = (),
    soft: bool = False,
) -> NDArray[np.uint16]:
    """Ids 1..n of the lesions in a mask (z, y, x): its own ids renumbered, or its 26-connected components.

    Args:
        mask: (z, y, x).
        file: named by messages.
        instances: the mask holds ids.
        values: which of its values count; empty for all ids, or for a mask of one value.
        soft: threshold an interpolated mask at 0.5.

    Raises:
        UserError: a value is no id, there are several values and none is chosen, or more than 65535 lesions.
    """
    if not instances:
        drawn = binary_mask(mask, file, remedy=_WHICH, values=values, soft=soft)
        return mask_components(drawn, file).astype(np.uint16)
    hard = hard_mask(mask, file, soft=soft)
    ids = instance_ids(hard, file)
    if values:
        ids = ids[np.isin(ids, values)]
    if len(ids) > MAX_COMPONENTS:
        raise UserError(
            "the mask holds more ids than there can be lesions",
            file=file,
            expected=f"at most {MAX_COMPONENTS}",
            found=str(len(ids)),
            remedy="Is it a mask, or an image?",
        )
    numbered = np.searchsorted(ids, hard) + 1 if len(ids) else np.zeros(mask.shape)
    return np.where(np.isin(hard, ids), numbered, 0).astype(np.uint16)


@dataclass(frozen=True)
class _Job:
    study: StudyFiles
    split: str
    paths: TaskPaths
    description: DatasetDescription
    source: NiftiSource

    @property
    def images(self) -> list[Path]:
        folder = self.paths.images(self.split)
        return [folder / f"{self.study.case_id}_{index:04d}.nii.gz" for index in self.description.modalities]

    @property
    def outputs(self) -> list[Path]:
        """Everything that is written, the last of it last: its absence marks a case as unfinished."""
        return self.images if self.source.label is None else [*self.images, self.label, self.table]

    @property
    def label(self) -> Path:
        return self.paths.labels(self.split) / f"{self.study.case_id}.nii.gz"

    @property
    def table(self) -> Path:
        return self.paths.labels(self.split) / f"{self.study.case_id}.json"


@dataclass(frozen=True)
class _Done:
    """A case: whether it was made now, its number of lesions, and which of the values that count its mask holds."""

    new: bool
    lesions: int
    values: frozenset[int]


def _forget_other_choices(jobs: Sequence[_Job], paths: TaskPaths, source: NiftiSource) -> None:
    """Mark all cases as unfinished where they were made by other patterns or options, or by nobody knows which."""
    options = [source.instances, source.values, source.soft]
    choices = hash_json([list(source.images.items()), source.label, source.ctv, options])
    file = paths.root / _CHOICES
    if file.is_file() and read_json(file) == {"version": 1, "choices": choices}:
        return
    for job in jobs:
        job.outputs[-1].unlink(missing_ok=True)
    write_json(file, {"version": 1, "choices": choices})


def _check_values(source: NiftiSource, results: Sequence[_Done]) -> None:
    """A value that no mask holds was mistyped."""
    missing = sorted(set(source.values) - frozenset().union(*(result.values for result in results)))
    if missing:
        raise UserError(
            "a value that counts is in no mask",
            file=source.folder,
            expected="values of the masks in --values",
            found=", ".join(map(str, missing)),
            remedy="Correct --values",
        )


def _convert(job: _Job, overwrite: bool) -> _Done:
    """Convert one case unless it is finished."""
    from nndet_psma.dataset.task.instances import read_instances

    _remove_other_split(job)
    labelled = job.source.label is not None
    if not overwrite and _is_finished(job):
        return _Done(False, len(read_instances(job.table)) if labelled else 0, _values(job))
    job.outputs[-1].unlink(missing_ok=True)
    files = [file for name, file in job.study.files.items() if name != LABEL]
    grid = read_volume(files[0])
    mask = read_volume(job.study.files[LABEL]) if labelled else None
    lesions = None if mask is None else _lesions(job, mask, grid)
    for index, (file, target) in enumerate(zip(files, job.images, strict=True)):
        role = job.description.role(index)
        volume = grid if index == 0 else _on_grid(_read(file, role, job.source), grid, role)
        write_volume(target, _compact(volume.array, role), grid.geometry)
    if lesions is None:
        return _Done(True, 0, frozenset())
    write_volume(job.label, lesions, grid.geometry)
    count = int(lesions.max())
    write_json(job.table, {"instances": {str(instance): 0 for instance in range(1, count + 1)}})
    return _Done(True, count, _values(job, mask))


def _values(job: _Job, mask: Volume | None = None) -> frozenset[int]:
    wanted = job.source.values
    if not wanted:
        return frozenset()
    mask = mask or read_volume(job.study.files[LABEL])
    return frozenset(value for value in wanted if (mask.array == value).any())


def _lesions(job: _Job, mask: Volume, grid: Volume) -> NDArray[np.uint16]:
    file, source = job.study.files[LABEL], job.source
    ids = lesions_of(mask.array, file, instances=source.instances, values=source.values, soft=source.soft)
    if mask.geometry.same_grid(grid.geometry):
        return ids
    moved = resample_volume(Volume(ids, mask.geometry), grid.geometry, order=0, fill=0).array
    if len(np.unique(moved[moved > 0])) != int(ids.max()):
        raise UserError(
            "a lesion lies outside the grid of the first image, or between its voxels",
            file=file,
            expected=f"{int(ids.max())} lesions",
            found=f"{len(np.unique(moved[moved > 0]))}",
            remedy="Give the modality with the finer grid first, or correct the mask",
        )
    return moved.astype(np.uint16)


def _read(file: Path, role: Role, source: NiftiSource) -> Volume:
    """An image; of a search region or organ the binary mask."""
    volume = read_volume(file)
    if role not in _MASK_ROLES:
        return volume
    remedy = "Store the structure as 1 and everything else as 0"
    drawn = binary_mask(volume.array, file, remedy=remedy, soft=source.soft)
    return Volume(drawn.astype(np.uint8), volume.geometry)


def _on_grid(volume: Volume, grid: Volume, role: Role) -> Volume:
    if volume.geometry.same_grid(grid.geometry):
        return volume
    fill = _AIR_HU if role is Role.CT else 0.0
    return resample_volume(volume, grid.geometry, order=0 if role in _MASK_ROLES else 1, fill=fill)


def _compact(array: NDArray[Any], role: Role) -> NDArray[Any]:
    """Smallest honest type: masks binary, whole numbers that fit as int16, else float32."""
    if role in _MASK_ROLES:
        return (array > 0).astype(np.uint8)
    fits = array.size == 0 or (array.min() >= -32768 and array.max() <= 32767)
    if fits and (array.dtype.kind in "iu" or np.array_equal(array, np.round(array))):
        return array.astype(np.int16)
    return array.astype(np.float32)


def _is_finished(job: _Job) -> bool:
    if not all(file.is_file() for file in job.outputs):
        return False
    newest_source = max(file.stat().st_mtime_ns for file in job.study.files.values())
    return min(file.stat().st_mtime_ns for file in job.outputs) > newest_source


def _remove_other_split(job: _Job) -> None:
    """A case that an earlier run, with another seed or share, put on the other side must not stay there."""
    other = _Job(job.study, "Tr" if job.split == "Ts" else "Ts", job.paths, job.description, job.source)
    for file in [other.table, other.label, *other.images]:
        file.unlink(missing_ok=True)


def _description(source: NiftiSource, task: str, has_test: bool) -> DatasetDescription:
    names = [*source.images, *([Role.CTV.value] if source.ctv is not None else [])]
    return DatasetDescription(
        task=task,
        name=task.partition("_")[2] or task,
        dim=3,
        labels={0: source.class_name},
        modalities=dict(enumerate(names)),
        test_labels=has_test,
    )


def _write_clinical(studies: Sequence[StudyFiles], paths: TaskPaths) -> None:
    """A table of patients, where the names tell more than one case per patient and the user has none."""
    if paths.clinical.exists() or all(study.patient_id == study.case_id for study in studies):
        return
    rows = ([study.case_id, study.patient_id] for study in studies)
    write_table(paths.clinical, ["case_id", "patient_id"], rows)
