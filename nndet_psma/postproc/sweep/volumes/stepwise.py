"""Settings for boxes in 3D tried one by one: for several voters, and for steps that are no masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nndet_psma.evaluation.detection.matching import class_overlaps
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.coarse_to_fine import coarse_to_fine, sampled
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.result import SweepRow, make_row
from nndet_psma.postproc.sweep.search_space import SearchSpace
from nndet_psma.postproc.sweep.volumes.one_setting import VolumeFound, judge_volumes

Values = NDArray[np.float64]


class VolumeStepwise:
    """Settings tried one by one, each run through the whole post-processing."""

    def __init__(
        self,
        cases: Sequence[SweepCase],
        grid: SweepGrid,
        goal: Criterion,
        base: PostprocSettings,
        groups: Sequence[Sequence[int]],
    ) -> None:
        self.cases, self.grid, self.goal, self.base, self.groups = cases, grid, goal, base, groups
        self.rows: list[SweepRow] = []

    def search(self, search: str, trials: int, seed: int) -> VolumeFound:
        """Search with all cases, then without each group."""
        settings, best, rows = self._run(self.cases, search, trials, seed)
        without = []
        for group in self.groups if len(self.groups) > 1 else ():
            rest = [case for index, case in enumerate(self.cases) if index not in set(group)]
            without.append(self._run(rest, search, trials, seed)[0])
        return VolumeFound(settings, best, rows, len(rows), without, None)

    def _run(
        self, cases: Sequence[SweepCase], search: str, trials: int, seed: int
    ) -> tuple[PostprocSettings, SweepRow, list[SweepRow]]:
        thresholds = self.grid.score_thresholds(_hitting_scores(cases, self.base.hit_iou)).tolist()
        grid = replace(self.grid, score_threshold=tuple(thresholds))

        def judge(settings: PostprocSettings) -> tuple[dict[str, float], float]:
            return judge_volumes(cases, [settings] * len(cases), self.goal)

        fixed = ("score_threshold",) if self.goal.of_curve else ()
        space = SearchSpace(cases, grid, judge, self.base, fixed=fixed)
        point = coarse_to_fine(space) if search == "coarse" else sampled(space, trials=trials, seed=seed)
        settings, row = space.settings(point), space.rows[point]
        rows = list(space.rows.values())
        if self.goal.of_curve:
            settings, row = _threshold_by_f1(cases, settings, thresholds, row)
            rows.append(row)
        return settings, row, rows


def _threshold_by_f1(
    cases: Sequence[SweepCase], settings: PostprocSettings, thresholds: Sequence[float], row: SweepRow
) -> tuple[PostprocSettings, SweepRow]:
    """The score threshold of the best F1, the lowest of equals; the value of the curve stays."""
    best, chosen = -1.0, (settings, row)
    for threshold in thresholds:
        tried = settings.but({"score_threshold": threshold})
        metrics, f1 = judge_volumes(cases, [tried] * len(cases), Criterion("f1"))
        if round(f1, 12) > best:
            best, chosen = round(f1, 12), (tried, make_row(row.phase, tried, metrics, row.value, voted=True))
    return chosen


def _hitting_scores(cases: Sequence[SweepCase], hit_iou: float) -> Values:
    """Scores of all boxes of all voters that overlap a lesion of their class enough."""
    scores = [np.zeros(0)]
    for case in cases:
        truth = case.truth
        for part in (each for parts in case.raw.values() for each in parts):
            overlap = class_overlaps(part.boxes, part.labels, truth.boxes, truth.labels)
            scores.append(part.scores[(overlap >= hit_iou).any(axis=1)])
    return np.concatenate(scores)
