"""Thresholds tuned on validation predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.steps.order import step_order
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase, check_cases
from nndet_psma.postproc.sweep.coarse_to_fine import coarse_to_fine, sampled
from nndet_psma.postproc.sweep.criterion import Criterion, parse_criterion
from nndet_psma.postproc.sweep.image_ranking import Images
from nndet_psma.postproc.sweep.one_setting import count_setting, slice_judge
from nndet_psma.postproc.sweep.result import TIE_RULE, Nested, SweepResult, SweepRow
from nndet_psma.postproc.sweep.search_space import SearchSpace
from nndet_psma.postproc.sweep.slices.joint import joint
from nndet_psma.postproc.sweep.slices.metrics import metrics_of
from nndet_psma.postproc.sweep.two_phase import two_phase
from nndet_psma.postproc.sweep.volumes.sweep import volume_sweep

__all__ = ["SEARCHES", "SweepCase", "SweepResult", "SweepRow", "sweep"]

Found = tuple[PostprocSettings, SweepRow, list[SweepRow]]
Search = Callable[[Sequence[SweepCase]], Found]

SEARCHES = ("joint", "two_phase", "coarse", "optuna")


def sweep(
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    *,
    criterion: str,
    base: PostprocSettings,
    search: str = "joint",
    tune_hit_iou: bool = False,
    groups: Sequence[Sequence[int]] = (),
    trials: int = 300,
    seed: int = 0,
) -> SweepResult:
    """Find the thresholds that maximise ``criterion`` on validation predictions.

    "Filter off", one vote and score threshold 0 are always among the candidates, so that a step which hurts is
    switched off. What is measured is exactly what :func:`nndet_psma.postproc.steps.steps.postprocess_case` yields.
    Where the steps take boxes in 3D, :func:`nndet_psma.postproc.sweep.volumes.sweep.volume_sweep` does it.

    Args:
        cases: validation cases, at least one with a lesion.
        grid: candidates; votes beyond the number of voters are left out.
        criterion: see :func:`nndet_psma.postproc.sweep.criterion.parse_criterion`.
        base: the thresholds that are not tuned; with one voter also ``vote_iou``.
        search: ``joint``: every combination; ``two_phase``: filters on each voter alone, then the vote; ``coarse``:
            from coarse to fine, one step after the other, also over settings that are no masks; ``optuna``: sampled.
        tune_hit_iou: let tau3 be chosen as well (joint, coarse, optuna). A looser tolerance never has fewer hits.
        groups: indices of cases that are held out in turn, for the nested value; patients must not be torn apart.
        trials: settings that ``optuna`` tries.
        seed: of ``optuna``.

    Raises:
        UserError: unknown criterion or search, no cases, no lesion in any of them, nothing to rank, a space that the
            search cannot do, or boxes of another dimension than the steps take.
        ValueError: cases with different voters.
    """
    goal = parse_criterion(criterion)
    check_cases(cases)
    if goal.of_ranking:
        Images.of(cases).check(goal.metric)
    order = step_order(base.steps)
    order.check_boxes(part for case in cases for parts in case.raw.values() for part in parts)
    more: dict[str, Any] = {"search": search, "groups": groups, "trials": trials, "seed": seed}
    if order.dim == 3:
        _check_volumes(tune_hit_iou)
        return volume_sweep(cases, grid, criterion=criterion, goal=goal, base=base, **more)
    if search not in SEARCHES:
        raise UserError(f"unknown sweep search '{search}'", expected=f"one of {', '.join(SEARCHES)}")
    return _slice_sweep(cases, grid, criterion, goal, base, tune_hit_iou=tune_hit_iou, **more)


def _slice_sweep(
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    criterion: str,
    goal: Criterion,
    base: PostprocSettings,
    *,
    search: str,
    tune_hit_iou: bool,
    groups: Sequence[Sequence[int]],
    trials: int,
    seed: int,
) -> SweepResult:
    if search == "joint":
        found = joint(cases, grid, goal, base, tune_hit_iou=tune_hit_iou, groups=groups)
        settings, best, rows = found.settings, found.best, found.rows
        number, nested, table = found.num_settings, found.nested, found.table
    else:
        run = _search(search, grid, goal, base, tune_hit_iou, trials, seed)
        settings, best, rows = run(cases)
        number, table = len(rows), None
        nested = held_out(run, cases, groups, goal, best.value) if len(groups) > 1 else None
    return SweepResult(
        settings=settings,
        criterion=criterion,
        best=best,
        num_settings=number,
        num_cases=len(cases),
        num_lesions=sum(case.num_lesions for case in cases),
        tie_rule=TIE_RULE if search in ("joint", "two_phase") else "of equal values the setting tried first",
        rows=tuple(rows),
        search=search,
        nested=nested,
        table=table,
    )


def _check_volumes(tune_hit_iou: bool) -> None:
    if tune_hit_iou:
        raise UserError(
            "the IoU of a hit is not tuned for boxes in 3D",
            expected="sweep.tune_hit_iou=false",
            remedy="Set hit_iou in postproc_defaults of the plan",
        )


def _search(
    name: str,
    grid: SweepGrid,
    goal: Criterion,
    base: PostprocSettings,
    tune_hit_iou: bool,
    trials: int,
    seed: int,
) -> Search:
    def run(cases: Sequence[SweepCase]) -> Found:
        if name == "two_phase":
            return two_phase(cases, grid, goal, base)
        space = SearchSpace(cases, grid, slice_judge(cases, goal), base, tune_hit_iou=tune_hit_iou)
        point = coarse_to_fine(space) if name == "coarse" else sampled(space, trials=trials, seed=seed)
        return space.settings(point), space.rows[point], list(space.rows.values())

    return run


def held_out(
    run: Search, cases: Sequence[SweepCase], groups: Sequence[Sequence[int]], goal: Criterion, plain: float
) -> Nested:
    """Tune on all groups but one, score that one, for each group in turn; the groups' counts are added up.

    Raises:
        UserError: the criterion judges whole curves, which single settings do not have.
    """
    if goal.of_curve:
        raise UserError(f"criterion {goal.metric} has no nested value here", remedy="Use sweep.search=joint")
    chosen, counts = [], np.zeros(3, dtype=np.int64)
    for group in groups:
        rest = [case for index, case in enumerate(cases) if index not in set(group)]
        settings = run(rest)[0]
        chosen.append(settings)
        counts += count_setting([cases[index] for index in group], settings)
    lesions = sum(case.num_lesions for case in cases)
    metrics = metrics_of(*counts[:, None], num_lesions=lesions, num_cases=len(cases))
    value = float(goal.value(metrics)[0])
    own = {name: float(each[0]) for name, each in metrics.items()}
    names = [[cases[index].case_id for index in group] for group in groups]
    return Nested(names, chosen, **own, value=value, optimism=plain - value)
