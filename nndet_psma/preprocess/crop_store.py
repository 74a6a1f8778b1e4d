"""The store of crops: those of a case in one folder, cut once and memory-mapped; unchanged cases are kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.artifact import Artifact
from nndet_psma.artifacts.candidate_table import UNKNOWN_STATION, Candidate, CandidateTable
from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.core.atomic import atomic_folder, remove_leftovers
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.images.images import Volume, original_geometry, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.instance_notes import read_measured, read_stations, read_unknown
from nndet_psma.dataset.task.instances import instance_ids, read_instances
from nndet_psma.preprocess.crops import ObjectCrops, cut_objects

TABLE, TABLE_CSV = "candidates.json", "candidates.csv"
_META, _CT, _CODES = "crops.json", "ct.npy", "codes.npy"
_FORMAT = 1  # raised when the same files and choices give other crops or measurements than an earlier release


@dataclass(frozen=True)
class StoredCrops(Artifact):
    """Description beside the crops of one case."""

    schema: ClassVar[str] = "nndet_psma.stored_crops"
    remade_by: ClassVar[str] = "nndet_prep"

    case_id: str
    made_from: str
    rows: list[Candidate]


@dataclass(frozen=True)
class CropCase:
    """Crops of a case as they are stored: ``ct`` and ``codes`` as in :class:`ObjectCrops`, one row each."""

    rows: list[Candidate]
    ct: NDArray[np.int16]
    codes: NDArray[np.uint8]


@dataclass(frozen=True)
class _Job:
    store: Path
    case: RawCase
    plan: ClassifierPlan
    patient: str
    tracer: str


def build_crops(
    store: Path,
    cases: Sequence[RawCase],
    plan: ClassifierPlan,
    *,
    patients: Callable[[str], str],
    tracers: Callable[[str], str],
    processes: int,
) -> list[str]:
    """Cut the crops of the cases that are not current, write the table of all; returns the ids of those made now.

    Raises:
        UserError: a case cannot be read, or an object lies outside of the image; finished cases are kept.
    """
    store.mkdir(parents=True, exist_ok=True)
    remove_leftovers(store)
    for meta in sorted(store.glob(f"*/{_META}")):
        if meta.parent.name not in {case.case_id for case in cases}:
            shutil.rmtree(meta.parent)
    jobs = [_Job(store, c, plan, patients(c.case_id), tracers(c.case_id)) for c in cases]
    made = map_cases(_build_case, jobs, processes, title="preprocess")
    table = read_table(store, [case.case_id for case in cases])
    table.write(store / TABLE)
    table.write_csv(store / TABLE_CSV)
    return [case.case_id for case, new in zip(cases, made, strict=True) if new]


def read_table(store: Path, case_ids: Sequence[str]) -> CandidateTable:
    """Rows of the stored cases.

    Raises:
        UserError: a case is not prepared.
    """
    return CandidateTable([row for case_id in case_ids for row in _meta(store, case_id).rows])


def read_crops(store: Path, case_id: str) -> CropCase:
    """Open the crops of a case, memory-mapped.

    Raises:
        UserError: it is not prepared, or an array is damaged.
    """
    meta, folder = _meta(store, case_id), store / case_id
    try:
        ct, codes = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_CT, _CODES))
    except (OSError, ValueError, EOFError, SyntaxError) as error:  # damaged headers raise any of these
        remedy = "Delete the folder of the case and run nndet_prep"
        raise UserError("stored crops cannot be read", file=folder, found=str(error), remedy=remedy) from None
    return CropCase(meta.rows, ct, codes)


def crops_hash(store: Path, case_id: str) -> str:
    """Hash of the files and choices that stored crops were made from.

    Raises:
        UserError: the case is not prepared.
    """
    return _meta(store, case_id).made_from


def cut_case(case: RawCase, plan: ClassifierPlan) -> ObjectCrops:
    """Read a case and cut the crops of the objects in its mask.

    Raises:
        UserError: it has no mask, a file cannot be read, or grids differ.
    """
    if case.label is None:
        raise UserError(
            f"case {case.case_id} has no mask of the objects to judge",
            file=case.images[0],
            expected="a mask of numbered objects in labelsTs, or in the folder named with --objects",
        )
    file = case.images[int(plan.ct_modality or 0)]
    mask = numbered(read_volume(case.label), case.label)
    ctv = None
    if plan.ctv_modality is not None and plan.ctv_modality < len(case.images):
        ctv = read_volume(case.images[plan.ctv_modality])
    image = original_geometry(file)
    return cut_objects(read_volume(file), mask, plan, image=image, ctv=ctv, measured=read_measured(case))


def numbered(mask: Volume, source: Path) -> Volume:
    """A mask in the smallest integer type that holds its numbers.

    Raises:
        UserError: it holds values that are no numbers of objects; names ``source``.
    """
    ids = instance_ids(mask.array, source)
    smallest = np.min_scalar_type(int(ids.max(initial=0)))
    return Volume(mask.array.astype(smallest, copy=False), mask.geometry)


def rows_of(case: RawCase, cut: ObjectCrops, patient: str, tracer: str) -> list[Candidate]:
    """The rows of a case's objects; class and station come from its JSON, where it has one."""
    classes = {} if case.instances is None else read_instances(case.instances)
    stations, unknown = read_stations(case) or {}, read_unknown(case)
    return [
        Candidate(
            case.case_id, patient, each.object_id, each.centre_mm, each.box,
            stations.get(each.object_id) or UNKNOWN_STATION,
            None if each.object_id in unknown else classes.get(each.object_id),
            "annotated", tracer, each.features,
        )
        for each in cut.objects
    ]  # fmt: skip


def inputs_of(case: RawCase, plan: ClassifierPlan) -> str:
    """Hash of a case's files and of the choices that change its crops."""
    files = [*case.images, *(file for file in (case.label, case.instances) if file is not None)]
    choices = [plan.spacing, plan.crop.stored, plan.ct_modality, plan.ctv_modality]
    return hash_json([_FORMAT, hash_files(files), *choices])


def _build_case(job: _Job) -> bool:
    """Make a case unless it is current."""
    made_from = hash_json([inputs_of(job.case, job.plan), job.patient, job.tracer])
    folder = job.store / job.case.case_id
    with suppress(UserError):  # of another version, or damaged: made anew
        if (folder / _META).is_file() and StoredCrops.read(folder / _META).made_from == made_from:
            return False
    cut = cut_case(job.case, job.plan)
    rows = rows_of(job.case, cut, job.patient, job.tracer)
    with atomic_folder(folder) as temporary:
        np.save(temporary / _CT, cut.ct)
        np.save(temporary / _CODES, cut.codes)
        StoredCrops(job.case.case_id, made_from, rows).write(temporary / _META)
    return True


def _meta(store: Path, case_id: str) -> StoredCrops:
    file = store / case_id / _META
    if not file.is_file():
        raise UserError(f"the crops of case {case_id} are not prepared", file=file, remedy="Run nndet_prep")
    return StoredCrops.read(file)
