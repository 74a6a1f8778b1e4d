"""Contradictions in a plan that only several parts of the package together can see, found before a voxel is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.postproc.steps.order import step_order
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import sweep_grid
from nndet_psma.trainers.registry import TRAINERS

# what the package's own trainers read; those of third parties say so themselves
_DETECTOR_OF = {"MaskRCNN25D": "detector", "RetinaNet3D": "detector3d"}


def check_plan(
    plan: Plan,
    file: Path,
    description: DatasetDescription,
    case_ids: Iterable[str],
    patients: Mapping[str, str],
) -> None:
    """Compare a plan that was read from ``file`` with the data set and with what the package knows.

    Args:
        plan: consistent in itself (reading checks that).
        file: named in errors.
        description: of the data set.
        case_ids: training cases that exist.
        patients: patient by case id.

    Raises:
        UserError: names the key and what it contradicts.
    """
    check_names(plan, file)
    _check_postprocessing(plan, file)
    _check_data(plan, file, description)
    _check_folds(plan, file, set(case_ids), patients)


def check_names(plan: Plan, file: Path) -> None:
    """Refuse a planner or trainer that nobody knows, and a trainer that cannot train what was planned.

    Raises:
        UserError: names the key.
    """
    for key, registry, name in (("planner", PLANNERS, plan.planner), ("trainer", TRAINERS, plan.trainer)):
        # a dotted path is imported where it is used: importing trainers takes seconds
        if name not in registry and "." not in name:
            raise UserError(f"unknown {key} '{name}'", file=file, expected=f"one of {', '.join(registry)}")
    needed = _DETECTOR_OF.get(plan.trainer)
    found = "detector" if plan.detector3d is None else "detector3d"
    if needed not in (None, found):
        raise UserError(
            f"trainer '{plan.trainer}' cannot train this plan",
            file=file,
            expected=f"a plan with {needed}",
            found=f"one with {found}, made by {plan.planner}",
            remedy="Choose planner and trainer together, with -o train=PRESET",
        )


def _check_postprocessing(plan: Plan, file: Path) -> None:
    try:
        dim = 2 if plan.detector3d is None else 3
        step_order(PostprocSettings(**plan.postproc_defaults).steps, dim)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"postproc_defaults: {error}", file=file, remedy="Correct that key") from None
    try:
        sweep_grid(plan)
    except UserError as error:
        raise UserError(error.what, file=file, remedy="Correct that key") from None


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
