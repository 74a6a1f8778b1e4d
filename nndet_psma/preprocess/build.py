"""Preprocess the cases of a task into the store; unchanged cases are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.core.atomic import remove_leftovers
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.logs import LOGGER
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.grids import check_grids
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.preprocess.distance import reach_mm
from nndet_psma.preprocess.prepare import CaseAssembly, PreparedCase, reference_modality
from nndet_psma.preprocess.store import is_current, remove_stale, write_case

_FORMAT = 2  # raised when the same files and choices give other arrays than an earlier release


@dataclass(frozen=True)
class _Job:
    store: Path
    case: RawCase
    description: DatasetDescription
    plan: DetectorPlan


def build_store(
    store: Path, cases: list[RawCase], description: DatasetDescription, plan: DetectorPlan, processes: int
) -> list[str]:
    """Preprocess training cases; returns the ids of those that were made (the others were current).

    Afterwards the store holds these cases and no others: a case that left the task leaves the store. A lesion that
    finds no voxel on the store grid is named in a warning and in the ``lost_instances`` of the case.

    Args:
        store: folder of the store.
        cases: all training cases.
        description: dataset.json.
        plan: spacing, margins, modalities.
        processes: worker processes; 1 works in this process.

    Raises:
        UserError: a case cannot be read or prepared, or the disk is full; finished cases are kept.
    """
    remove_leftovers(store)
    remove_stale(store, {case.case_id for case in cases})
    jobs = [_Job(store, case, description, plan) for case in cases]
    made = map_cases(_build_case, jobs, processes, title="preprocess")
    for case, lost in zip(cases, made, strict=True):
        if lost:
            LOGGER.warning(
                "case %s: lesions %s have no voxel of their own on the store grid and are not trained on",
                case.case_id,
                ", ".join(map(str, lost)),
            )
    return [case.case_id for case, lost in zip(cases, made, strict=True) if lost is not None]


def preprocessing_hash(plan: DetectorPlan, inputs: str) -> str:
    """Hash of a case's files and of the choices that change its arrays; windows, margins and anchors do not.

    A CTV margin counts only where it lies beyond the reach of the stored distances (50 mm).
    """
    choices = [plan.spacing, plan.body_margin_mm, plan.modalities, plan.ctv_modality, plan.ct_modality]
    return hash_json([_FORMAT, inputs, *choices, reach_mm(plan.margin_mm), plan.zscored])


def load_case(
    case: RawCase, description: DatasetDescription, plan: DetectorPlan, *, with_labels: bool
) -> PreparedCase:
    """Read the files of a case and prepare it; a case without a CTV file (``predict -i``) is prepared without.

    Raises:
        UserError: a file cannot be read, or files of the case lie on different grids.
    """
    names, ctv = description.modalities, description.ctv_modality
    indices = {names[index]: index for index in description.image_modalities}
    first = reference_modality(list(indices), plan)
    reader = _Reader(case, description)
    assembly = CaseAssembly(case.case_id, plan, first, reader.read(indices.pop(first)))
    for name, index in indices.items():
        assembly.add_image(name, reader.read(index))
    if ctv is not None and ctv < len(case.images):
        assembly.add_ctv(reader.read(ctv))
    if with_labels:
        labels, classes = read_labels(case, description)
        reader.check(labels, None)
        assembly.add_labels(labels, classes)
    return assembly.finish()


class _Reader:
    """Reads the files of a case one by one and holds them against the grid of the first."""

    def __init__(self, case: RawCase, description: DatasetDescription) -> None:
        self.case = case
        self.description = description
        self._first: dict[str, Volume] = {}

    def read(self, index: int) -> Volume:
        volume = read_volume(self.case.images[index])
        self.check(volume, self.description.modalities[index])
        return volume

    def check(self, volume: Volume, name: str | None) -> None:
        """Compare the grid of an image, or of the label (no name)."""
        if not self._first and name is not None:
            nothing = np.broadcast_to(np.uint8(0), volume.geometry.shape)  # the grid counts, not the voxels
            self._first = {name: Volume(nothing, volume.geometry)}
            return
        label = volume if name is None else None
        other = {} if name is None else {name: volume}
        check_grids(self.case, self.description, {**self._first, **other}, label)


def _build_case(job: _Job) -> list[int] | None:
    """Make a case unless it is current (None); the ids of lost lesions."""
    case = job.case
    files = [*case.images, *(f for f in (case.label, case.instances) if f is not None)]
    made_from = preprocessing_hash(job.plan, hash_files(files))
    if is_current(job.store, case.case_id, made_from):
        return None
    prepared = load_case(case, job.description, job.plan, with_labels=True)
    write_case(job.store, prepared, made_from)
    return list(prepared.lost_instances)
