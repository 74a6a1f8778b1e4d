"""Measure the fingerprint: one pass over the files, one case in memory at a time, finished cases kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint
from nndet_psma.core.atomic import read_json, remove_leftovers, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.core.workers import map_cases
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.clinical import patient_of
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.planners.fingerprint.measure_case import measure_case

_Job = tuple[RawCase, DatasetDescription, str, str, Path]


def measure_fingerprint(
    cases: list[RawCase],
    description: DatasetDescription,
    clinical: Mapping[str, Mapping[str, str]],
    *,
    stratify_by: str,
    cache: Path,
    processes: int,
) -> Fingerprint:
    """Fingerprint of the training cases.

    Args:
        cases: training cases.
        description: dataset.json.
        clinical: rows of clinical.csv by case id.
        stratify_by: column of clinical.csv for the folds ("" for none).
        cache: folder of finished cases; a case is measured again only when its files changed.
        processes: worker processes; 1 measures in this process.

    Raises:
        UserError: no cases, or a case cannot be read.
    """
    if not cases:
        raise UserError("the task has no training cases", remedy="Put images into raw_splitted/imagesTr")
    jobs = [
        (case, description, patient_of(case.case_id, clinical), _stratum(case, clinical, stratify_by), cache)
        for case in cases
    ]
    remove_leftovers(cache)
    measured = map_cases(_cached, jobs, processes, title="fingerprint")
    return Fingerprint(
        task=description.task,
        modalities={str(i): name for i, name in description.modalities.items()},
        labels={str(i): name for i, name in description.labels.items()},
        cases=sorted(measured, key=lambda case: case.case_id),
    )


def _stratum(case: RawCase, clinical: Mapping[str, Mapping[str, str]], column: str) -> str:
    return clinical.get(case.case_id, {}).get(column, "") if column else ""


def _cached(job: _Job) -> CaseFingerprint:
    case, description, patient, stratum, cache = job
    files = [*case.images, *(f for f in (case.label, case.instances) if f is not None)]
    # the roles of the files stand in dataset.json: renaming a modality changes what was measured
    inputs = hash_json([hash_files(files), description.to_json()["modalities"]])
    file = cache / f"{case.case_id}.json"
    if file.is_file():
        try:
            content = read_json(file)
            record = content if isinstance(content, dict) else {}
            if record.get("inputs") == inputs and record.get("version") == Fingerprint.version:
                record.pop("version")
                return from_plain(CaseFingerprint, record | {"patient_id": patient, "stratum": stratum})
        except (UserError, ValueError):
            file.unlink(missing_ok=True)  # written by another release: measure again
    measured = measure_case(case, description, patient, stratum, inputs)
    write_json(file, {"version": Fingerprint.version, **to_plain(measured)})
    return measured
