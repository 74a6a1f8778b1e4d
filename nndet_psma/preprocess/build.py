"""Preprocess the cases of a task into the store; unchanged cases are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.atomic import remove_leftovers
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.cases import RawCase
from nndet_psma.dataset.description import DatasetDescription
from nndet_psma.dataset.grids import check_grids
from nndet_psma.dataset.images import Volume, read_volume
from nndet_psma.dataset.instances import read_labels
from nndet_psma.dataset.workers import map_cases
from nndet_psma.preprocess.prepare import PreparedCase, prepare_case
from nndet_psma.preprocess.store import is_current, write_case


@dataclass(frozen=True)
class _Job:
    store: Path
    case: RawCase
    description: DatasetDescription
    plan: Plan


def build_store(
    store: Path, cases: list[RawCase], description: DatasetDescription, plan: Plan, processes: int
) -> list[str]:
    """Preprocess training cases; returns the ids of those that were made (the others were current)."""
    remove_leftovers(store)
    jobs = [_Job(store, case, description, plan) for case in cases]
    made = map_cases(_build_case, jobs, processes)
    return [case.case_id for case, new in zip(cases, made, strict=True) if new]


def preprocessing_hash(plan: Plan, inputs: str) -> str:
    """Hash of a case's files and of the choices that change its arrays; windows, margins and anchors do not."""
    return hash_json([inputs, plan.spacing, plan.body_margin_mm, plan.modalities, plan.ctv_modality])


def load_case(
    case: RawCase, description: DatasetDescription, plan: Plan, *, with_labels: bool
) -> PreparedCase:
    """Read the files of a case and prepare it; a case without a CTV file (``predict -i``) is prepared without.

    Raises:
        UserError: a file cannot be read, or files of the case lie on different grids.
    """
    volumes: dict[str, Volume] = {}
    for index in description.image_modalities:
        volumes[description.modalities[index]] = read_volume(case.images[index])
    ctv_index = description.ctv_modality
    has_ctv = ctv_index is not None and ctv_index < len(case.images)
    ctv = read_volume(case.images[ctv_index]) if ctv_index is not None and has_ctv else None
    labels, classes = read_labels(case, description) if with_labels else (None, {})
    with_ctv = {} if ctv_index is None or ctv is None else {description.modalities[ctv_index]: ctv}
    check_grids(case, description, {**volumes, **with_ctv}, labels)
    return prepare_case(case.case_id, volumes, plan, ctv=ctv, labels=labels, classes=classes)


def _build_case(job: _Job) -> bool:
    case = job.case
    files = [*case.images, *(f for f in (case.label, case.instances) if f is not None)]
    made_from = preprocessing_hash(job.plan, hash_files(files))
    if is_current(job.store, case.case_id, made_from):
        return False
    write_case(job.store, load_case(case, job.description, job.plan, with_labels=True), made_from)
    return True
