"""Judgements beside the truth that their system tells: what decisions are tuned on and scored by."""

from __future__ import annotations

from collections.abc import Sequence

from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.judgements.row import JudgedRow, LeftOut, case_rows, object_rows
from nndet_psma.systems.system import AnySystem


def judged_rows(
    system: AnySystem, paths: TaskPaths, results: Sequence[Result], split: str = "Tr"
) -> tuple[list[JudgedRow], LeftOut]:
    """One row per object of ``Judged`` results, one per case of ``Call`` results, and what has no truth.

    Args:
        system: that gave the results; it tells the truth.
        paths: of the task.
        results: one per case.
        split: "Tr" for validation cases, "Ts" for test cases.

    Raises:
        UserError: a case does not exist, or its truth cannot be read.
    """
    description = read_description(paths.root)
    clinical = read_clinical(paths)
    patients = {result.case_id: patient_of(result.case_id, clinical) for result in results}
    calls = [result for result in results if isinstance(result, Call)]
    if calls:
        return case_rows(calls, system.case_truth(paths, description, list(patients)), patients)
    cases = {case.case_id: case for case in list_cases(paths, description, split)}
    missing = sorted(set(patients) - set(cases))
    if missing:
        raise UserError(
            f"case {missing[0]} does not exist any more",
            file=paths.images(split),
            remedy="Restore the case, or run nndet_prep again",
        )
    truths = {case_id: system.object_truth(cases[case_id], description) for case_id in patients}
    return object_rows([result for result in results if isinstance(result, Judged)], truths, patients)
