"""The raw task as nnU-Net's data set: links where a file can stay as it is, semantic labels, our folds."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.images.images import canonical_geometry, itk_agrees, read_geometry, write_volume
from nndet_psma.dataset.task.cases import RawCase, split_suffix
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths
from nndet_psma.systems.nodeseg.nnunet.input_case import InputCase, read_case
from nndet_psma.systems.nodeseg.planner import NodeSegChoices

EXPORTED = "exported.json"
"""What every case was exported from."""

_FORMAT = 1
_DEFAULT_ENDING = ".nii.gz"
_RESERVED = ("background", "ignore")


@dataclass(frozen=True)
class ExportResult:
    """What an export did.

    Attributes:
        made: cases whose files were linked or written now.
        linked: image files that are links.
        written: image files that had to be written because of crop, axes or format.
    """

    made: list[str]
    linked: int
    written: int


@dataclass(frozen=True)
class _Job:
    case: RawCase
    description: DatasetDescription
    choices: NodeSegChoices
    target: Path
    ending: str
    split: str


def export_dataset(
    nnunet: NnunetPaths,
    training: Sequence[RawCase],
    test: Sequence[RawCase],
    description: DatasetDescription,
    choices: NodeSegChoices,
    *,
    extra: dict[str, Any],
    processes: int = 1,
) -> ExportResult:
    """Write ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``; cases that are current stay.

    An image is a link when nothing is cut off, its axes run to LPS and it has the data set's suffix; HU windows are
    limits in nnU-Net's plans, so they change no voxel.

    Args:
        nnunet: where.
        training: with labels.
        test: without.
        description: of the task.
        choices: channels and crop.
        extra: put into dataset.json under our own key; nnU-Net ignores it.
        processes: at once.

    Raises:
        UserError: a file cannot be read, or files of a case lie on different grids.
    """
    root = nnunet.raw
    ending = file_ending([*training, *test])
    marker = root / EXPORTED
    known = read_json(marker) if marker.is_file() else {}
    jobs = [_Job(case, description, choices, root, ending, "Tr") for case in training]
    jobs += [_Job(case, description, choices, root, ending, "Ts") for case in test]
    signatures = {f"{job.split}/{job.case.case_id}": _signature(job) for job in jobs}
    todo = [
        job
        for job in jobs
        if known.get(f"{job.split}/{job.case.case_id}") != signatures[f"{job.split}/{job.case.case_id}"]
        or not all(file.exists() for file in _files(job))
    ]
    _remove_strangers(root, jobs)
    counts = map_cases(_export_case, todo, processes, title="write for nnU-Net")
    write_json(root / "dataset.json", dataset_json(description, choices, len(training), ending, extra))
    write_json(marker, signatures)
    linked, written = (sum(pair[i] for pair in counts) for i in (0, 1))
    return ExportResult([job.case.case_id for job in todo], linked, written)


def dataset_json(
    description: DatasetDescription,
    choices: NodeSegChoices,
    cases: int,
    ending: str,
    extra: dict[str, Any],
) -> dict[str, Any]:
    """nnU-Net's description: channel names choose the normalisation, class ``c`` is label ``c + 1``."""
    names = {
        name if name.lower() not in _RESERVED else f"class_{index}": index + 1
        for index, name in description.labels.items()
    }
    return {
        "channel_names": {str(i): channel.name for i, channel in enumerate(choices.channels)},
        "labels": {"background": 0, **names},
        "numTraining": cases,
        "file_ending": ending,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "nodeseg": extra,
    }


def write_splits(nnunet: NnunetPaths, folds: Sequence[FoldPlan]) -> Path:
    """Our folds as nnU-Net's ``splits_final.json``."""
    file = nnunet.preprocessed / "splits_final.json"
    write_json(file, [{"train": list(fold.train), "val": list(fold.val)} for fold in folds])
    return file


def file_ending(cases: Sequence[RawCase]) -> str:
    """The suffix of most image files that nnU-Net reads as we do, so that most can be links."""
    suffixes = Counter(split_suffix(file)[1] for case in cases for file in case.images)
    best = suffixes.most_common(1)
    return str(best[0][0]) if best and best[0][0] is not None else _DEFAULT_ENDING


def semantic_labels(instances: NDArray[Any], classes: dict[int, int]) -> NDArray[np.uint8]:
    """Class + 1 of every instance voxel, 0 elsewhere."""
    table = np.zeros(max([0, *classes]) + 1, dtype=np.uint8)
    for instance, label in classes.items():
        table[instance] = label + 1
    labels: NDArray[np.uint8] = table[instances]
    return labels


def link(source: Path, target: Path) -> None:
    """A relative link at ``target`` (replaced if there); a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    except OSError:
        shutil.copyfile(source, target)


def _export_case(job: _Job) -> tuple[int, int]:
    """Files of one case; how many image files were linked and written."""
    modalities = [channel.modality for channel in job.choices.channels]
    targets = _files(job)[: len(modalities)]
    load = _Lazy(job)
    whole = job.choices.crop == "image" or load.case.whole
    stays = {index: whole and _stays(job.case.images[index], job.ending) for index in set(modalities)}
    first: dict[int, Path] = {}
    for index, target in zip(modalities, targets, strict=True):
        if stays[index] or index in first:
            link(first.get(index, job.case.images[index]), target)
        else:
            target.unlink(missing_ok=True)  # a link would be written through
            write_volume(target, load.case.volumes[index], load.case.geometry)
            first[index] = target
    if job.split == "Tr":
        _write_labels(job, None if all(stays.values()) else load.case)
    return len(targets) - len(first), len(first)


class _Lazy:
    """Reads a case when its voxels are asked for."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._case: InputCase | None = None

    @property
    def case(self) -> InputCase:
        if self._case is None:
            self._case = read_case(self._job.case, self._job.description, self._job.choices)
        return self._case


def _write_labels(job: _Job, cut: InputCase | None) -> None:
    labels, classes = read_labels(job.case, job.description)
    semantic = semantic_labels(labels.array, classes)
    geometry = labels.geometry
    if cut is not None:
        if not labels.geometry.same_grid(cut.source):
            raise UserError(
                f"the label of case {job.case.case_id} lies on another grid than its images",
                file=job.case.label,
                remedy="Resample the label onto the grid of the images",
            )
        semantic, geometry = semantic[cut.slices], cut.geometry
    else:  # the linked image's own numbers: nnU-Net compares headers
        geometry = read_geometry(job.case.images[job.choices.channels[0].modality])
    target = _files(job)[-1]
    target.unlink(missing_ok=True)
    write_volume(target, semantic, geometry)


def _stays(file: Path, ending: str) -> bool:
    """The file can be used as it is: right suffix, axes to LPS, and no header that nnU-Net would read otherwise."""
    if split_suffix(file)[1] != ending or not file.name.endswith(ending):
        return False
    if not itk_agrees(file):
        return False
    geometry = read_geometry(file, canonical=False)
    return canonical_geometry(geometry).direction == tuple(v + 0.0 for v in geometry.direction)


def _files(job: _Job) -> list[Path]:
    """Files of a case in nnU-Net's folders: its channels, and the label of a training case."""
    folder, name = job.target / f"images{job.split}", job.case.case_id
    files = [folder / f"{name}_{i:04d}{job.ending}" for i in range(len(job.choices.channels))]
    return [*files, job.target / "labelsTr" / f"{name}{job.ending}"] if job.split == "Tr" else files


def _signature(job: _Job) -> str:
    """Hash of what the exported files depend on; of the raw files name, size and time of change."""
    files = [*job.case.images, *(f for f in (job.case.label, job.case.instances) if f is not None)]
    stats = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    choices = job.choices
    how = [choices.crop, choices.margin_mm, choices.context_mm, to_plain(choices.channels)]
    return hash_json([_FORMAT, job.ending, stats, how, to_plain(job.description.to_json())])


def _remove_strangers(root: Path, jobs: Sequence[_Job]) -> None:
    """Files of cases that are gone, or of another choice of channels."""
    ours = {file for job in jobs for file in _files(job)}
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        for file in (root / folder).glob("*"):
            if file not in ours:
                file.unlink()
