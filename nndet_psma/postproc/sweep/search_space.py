"""A space of settings too large to try them all: its axes, and the scores of the points that were tried."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from nndet_psma.postproc.steps.order import StepOrder, step_order
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.result import SEARCH, SweepRow, make_row

Point = tuple[int, ...]
Judge = Callable[[PostprocSettings], tuple[dict[str, float], float]]
"""Sensitivity, precision, F1 and false positives per case of a setting, and the value of the criterion."""

_CAN_BE_OFF = ("zone_mm", "hu_threshold", "min_size_mm", "max_size_mm", "min_short_axis_mm", "min_extent_mm")
_VOTE = ("min_votes", "vote_iou")


class SearchSpace:
    """Settings as points on a lattice; every point is scored at most once.

    Args:
        cases: validation cases.
        grid: candidates of every setting that is searched.
        judge: scores of a setting, and what is maximised.
        base: all other settings, and where the search starts.
        tune_hit_iou: let tau3 be searched.
        fixed: settings with candidates that are not searched.
    """

    def __init__(
        self,
        cases: Sequence[SweepCase],
        grid: SweepGrid,
        judge: Judge,
        base: PostprocSettings,
        *,
        tune_hit_iou: bool = False,
        fixed: Collection[str] = (),
    ) -> None:
        self.judge, self.base = judge, base
        axes = _axes(cases, grid, base, tune_hit_iou)
        self.axes = {name: values for name, values in axes.items() if name not in fixed}
        self.rows: dict[Point, SweepRow] = {}

    @property
    def start(self) -> Point:
        """The point nearest to the base settings."""
        return tuple(_nearest(values, self.base.value(name)) for name, values in self.axes.items())

    def blocks(self) -> list[list[int]]:
        """Axes that are searched together: those of one step, and those of the vote."""
        order: StepOrder = step_order(self.base.steps)
        groups: list[Sequence[str]] = [step.fields for step in order.on_voters]
        groups += [step.fields for step in [*order.on_consensus, *order.on_lesions, *order.on_folds]]
        groups.append(_VOTE)
        names = list(self.axes)
        blocks = [[names.index(name) for name in group if name in names] for group in groups]
        taken = {axis for block in blocks for axis in block}
        return [block for block in blocks if block] + [[a] for a in range(len(names)) if a not in taken]

    def settings(self, point: Point) -> PostprocSettings:
        """The settings of a point."""
        chosen = zip(self.axes.items(), point, strict=True)
        return self.base.but({name: values[place] for (name, values), place in chosen})

    def value(self, point: Point) -> float:
        """The criterion, to 1e-12."""
        if point not in self.rows:
            settings = self.settings(point)
            metrics, value = self.judge(settings)
            self.rows[point] = make_row(SEARCH, settings, metrics, value, voted=True)
        return round(self.rows[point].value, 12)

    def best(self) -> Point:
        """The best point tried, the earliest of equals."""
        return max(self.rows, key=lambda point: round(self.rows[point].value, 12))


def _axes(
    cases: Sequence[SweepCase], grid: SweepGrid, base: PostprocSettings, tune_hit_iou: bool
) -> dict[str, list[Any]]:
    """Candidates of every setting with more than one, in ascending order, off first."""
    scores = [part.scores for case in cases for parts in case.raw.values() for part in parts]
    candidates: Mapping[str, Sequence[Any]] = {
        **grid.candidates(),
        "min_votes": grid.votes(len(cases[0].raw)),
        "score_threshold": grid.score_thresholds(np.concatenate(scores)).tolist(),
        "hit_iou": grid.hit_iou if tune_hit_iou else (),
    }
    axes: dict[str, list[Any]] = {}
    for name, values in candidates.items():
        if "." in name or isinstance(next(iter(values), 0), str):
            listed = list(dict.fromkeys(values))
        else:
            listed = sorted(set(values))
        if listed and name in _CAN_BE_OFF:
            listed = [None, *listed]
        if len(listed) > 1:
            axes[name] = listed
    return axes


def _nearest(values: Sequence[Any], wanted: Any) -> int:
    if wanted in values:
        return list(values).index(wanted)
    if not isinstance(wanted, int | float):
        return 0
    distance = [abs(v - wanted) if isinstance(v, int | float) else np.inf for v in values]
    return int(np.argmin(distance))
