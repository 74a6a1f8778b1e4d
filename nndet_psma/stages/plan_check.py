"""Contradictions in a plan that only several parts of the package together can see, found before a voxel is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.system import SYSTEMS, AnySystem, system_of


def check_plan(
    plan: Plan,
    file: Path,
    description: DatasetDescription,
    case_ids: Iterable[str],
    patients: Mapping[str, str],
) -> None:
    """Compare a plan that was read from ``file`` with the data set and with what its system knows.

    Args:
        plan: consistent in itself (reading checks that).
        file: named in errors.
        description: of the data set.
        case_ids: training cases that exist.
        patients: patient by case id.

    Raises:
        UserError: names the key and what it contradicts.
    """
    system = system_of(plan)
    system.check_plan(plan, file)
    check_trainer(system, plan.trainer, file)
    _check_data(plan, file, description)
    _check_folds(plan, file, set(case_ids), patients)


def check_trainer(system: AnySystem, trainer: str, file: Path) -> None:
    """Refuse a trainer that belongs to another system; what third parties bring may fit any plan.

    Raises:
        UserError: names both systems.
    """
    owners = {SYSTEMS[name].trainer: name for name in SYSTEMS}
    owner = owners.get(trainer, system.name)
    if owner != system.name:
        raise UserError(
            f"trainer '{trainer}' cannot train this plan",
            file=file,
            expected=f"a plan of {owner}",
            found=f"one of {system.name}",
            remedy="Choose planner and trainer together, with -o train=PRESET",
        )


def patients_of(paths: TaskPaths, case_ids: Iterable[str]) -> dict[str, str]:
    """Patient by case id."""
    clinical = read_clinical(paths)
    return {case_id: patient_of(case_id, clinical) for case_id in case_ids}


def _check_data(plan: Plan, file: Path, description: DatasetDescription) -> None:
    for key, planned, found in (
        ("modalities", plan.modalities, description.modalities),
        ("classes", plan.classes, description.labels),
    ):
        actual = {str(index): name for index, name in found.items()}
        if planned != actual:
            raise UserError(
                f"{key} of the plan are not those of the data set",
                file=file,
                expected=str(actual),
                found=str(planned),
                remedy="Plan again with -o prep.overwrite=true",
            )


def _check_folds(plan: Plan, file: Path, case_ids: set[str], patients: Mapping[str, str]) -> None:
    for number, fold in enumerate(plan.folds):
        unknown = sorted(set(fold.train + fold.val) - case_ids)
        if unknown:
            raise UserError(
                f"fold {number} of the plan names cases that do not exist",
                file=file,
                found=", ".join(unknown[:5]),
                remedy="Correct the folds, or plan again with -o prep.overwrite=true",
            )
        trained = {patients.get(case_id, case_id): case_id for case_id in fold.train}
        for case_id in fold.val:
            other = trained.get(patients.get(case_id, case_id))
            if other is not None:
                raise UserError(
                    f"fold {number} of the plan trains and validates on one patient",
                    file=file,
                    found=f"{other} in train, {case_id} in val",
                    remedy="Keep all cases of a patient on one side",
                )
