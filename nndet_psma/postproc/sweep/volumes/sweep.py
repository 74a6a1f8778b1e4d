"""Thresholds of detectors on volumes, tuned for lesions in 3D.

nnDetection sweeps one parameter after the other and evaluates every value anew. Here filters and score threshold are
masks of boxes, so all their combinations are scored in one ranked pass, for every combination of the overlaps at which
boxes are suppressed and fused.
"""

from __future__ import annotations

from collections.abc import Sequence

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.result import LESIONS, Nested, SweepResult
from nndet_psma.postproc.sweep.volumes.joint import VolumeJoint
from nndet_psma.postproc.sweep.volumes.one_setting import judge_volumes
from nndet_psma.postproc.sweep.volumes.stepwise import VolumeStepwise

SEARCHES = ("joint", "coarse", "optuna")

TIE_RULE = (
    "of equal values (to 1e-12) nms_iou, fold_iou and fold_score nearest to the plan's own, then the milder filters "
    "(off first) in the order of the steps, then the lower score_threshold"
)
_FIRST_TRIED = "of equal values the setting tried first"


def volume_sweep(
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    *,
    criterion: str,
    goal: Criterion,
    base: PostprocSettings,
    search: str = "joint",
    groups: Sequence[Sequence[int]] = (),
    trials: int = 300,
    seed: int = 0,
) -> SweepResult:
    """Find the thresholds that maximise a criterion on lesions in 3D.

    A lesion is found by a box of its class with IoU >= ``hit_iou``, each by one box; sensitivity, precision and false
    positives count lesions and boxes in 3D. ``map``, ``ap``, ``froc``, ``auc`` and ``patient_auc`` are those of the
    evaluation: they rank all candidates and do not see the score threshold, which is then taken by F1.

    Args:
        cases: with 3D truth boxes.
        grid: candidates; without candidates for the score threshold, the scores of boxes that hit a lesion.
        criterion: its name.
        goal: what it means.
        base: everything that is not tuned.
        search: ``joint``: every combination, where one voter speaks; several voters are searched ``coarse``.
        groups: indices of cases that are held out in turn.
        trials: settings that ``optuna`` tries.
        seed: of ``optuna``.

    Raises:
        UserError: unknown search, too many settings, or steps that are no masks.
    """
    if search not in SEARCHES:
        raise UserError(
            f"sweep search '{search}' cannot tune boxes in 3D", expected=f"one of {', '.join(SEARCHES)}"
        )
    if search == "joint" and len(cases[0].raw) > 1:
        search = "coarse"
    run = VolumeJoint if search == "joint" else VolumeStepwise
    found = run(cases, grid, goal, base, groups).search(search, trials, seed)
    nested = None
    if len(groups) > 1:
        nested = _nested(cases, groups, found.without, goal, found.best.value)
    return SweepResult(
        settings=found.settings,
        criterion=criterion,
        best=found.best,
        num_settings=found.num_settings,
        num_cases=len(cases),
        num_lesions=sum(case.num_lesions for case in cases),
        tie_rule=TIE_RULE if search == "joint" else _FIRST_TRIED,
        rows=tuple(found.rows),
        search=search,
        nested=nested,
        table=found.table,
        judged=LESIONS,
    )


def _nested(
    cases: Sequence[SweepCase],
    groups: Sequence[Sequence[int]],
    chosen: list[PostprocSettings],
    goal: Criterion,
    plain_value: float,
) -> Nested:
    """All cases together, each at the thresholds that were tuned without its group."""
    own = {index: settings for group, settings in zip(groups, chosen, strict=True) for index in group}
    places = sorted(own)
    metrics, value = judge_volumes([cases[i] for i in places], [own[i] for i in places], goal)
    names = [[cases[index].case_id for index in group] for group in groups]
    return Nested(names, chosen, **metrics, value=value, optimism=plain_value - value)
