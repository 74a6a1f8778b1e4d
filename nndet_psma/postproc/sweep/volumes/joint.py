"""Every combination of overlaps, filters and score thresholds for boxes in 3D."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError
from nndet_psma.core.progress import progress_bar
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.step import Variant
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.fixed_boxes import fixed_boxes
from nndet_psma.postproc.sweep.result import JOINT, SweepRow, SweepTable, best_cells, make_row
from nndet_psma.postproc.sweep.slices.joint import check_size
from nndet_psma.postproc.sweep.slices.metrics import metrics_of
from nndet_psma.postproc.sweep.variants import FilterVariants, unused_candidates
from nndet_psma.postproc.sweep.volumes.one_setting import VolumeFound, curve_ious, curve_values, plain
from nndet_psma.postproc.sweep.volumes.ranking import VolumeRanking

OVERLAPS = ("nms_iou", "fold_iou", "fold_score")
"""Settings that change the boxes themselves; no mask can stand for them."""

Ints = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass
class _Choice:
    """The best setting so far; ``cell`` counts through all settings."""

    value: float = -np.inf
    cell: int = 0
    threshold: float = 0.0


class VolumeJoint:
    """Every combination of overlaps, filters and score thresholds, for one voter."""

    def __init__(
        self,
        cases: Sequence[SweepCase],
        grid: SweepGrid,
        goal: Criterion,
        base: PostprocSettings,
        groups: Sequence[Sequence[int]],
    ) -> None:
        self.cases, self.grid, self.goal, self.base = cases, grid, goal, base
        groups = groups if len(groups) > 1 else ()
        self.group = np.zeros(len(cases), dtype=np.int64)
        for number, members in enumerate(groups):
            self.group[list(members)] = number
        self.num_groups = max(len(groups), 1)
        lesions = np.array([case.num_lesions for case in cases], dtype=np.float64)
        self.lesions = np.bincount(self.group, weights=lesions, minlength=self.num_groups).astype(int)
        self.cases_of = np.bincount(self.group, minlength=self.num_groups)
        self.best = _Choice()
        self.without = [_Choice() for _ in groups]
        self.variants: list[Variant] = []
        self.columns: list[tuple[NDArray[Any], ...]] = []
        self.tried = 0

    def search(self, search: str, trials: int, seed: int) -> VolumeFound:
        """Look at everything."""
        outer = overlap_variants(self.cases, self.grid, self.base)
        with progress_bar("overlaps", len(outer)) as advance:
            for done, overlaps in enumerate(outer, start=1):
                self._look_at(overlaps, len(outer))
                advance(done, f"{len(self.variants)} settings")
        table = self._table()
        cells = [f for f, _, _ in best_cells(table, 0)]
        return VolumeFound(
            self._settings(self.best),
            self._row(table, self.best.cell),
            [self._row(table, cell) for cell in cells],
            self.tried,
            [self._settings(choice) for choice in self.without],
            table,
        )

    def _look_at(self, overlaps: Variant, times: int) -> None:
        settings = self.base.but(overlaps)
        given = fixed_boxes(self.cases, settings, self.grid.tuned() - set(OVERLAPS))
        _check_candidates(self.grid, given.masks)
        variants = FilterVariants(given.masks, self.grid.candidates(), settings)
        check_size(len(variants), len(variants) * times, len(given.boxes))
        masks = given.kept_by(variants, self.cases)
        ious = curve_ious(self.goal, self.base.hit_iou)
        ranking = VolumeRanking(plain(given.boxes), given.case, self.cases, self.group, ious)
        thresholds = self._thresholds(ranking) if given.thresholded else np.zeros(1)
        for portion in ranking.portions(len(variants)):
            self._judge(ranking, masks[portion], thresholds)
        self.variants += [{**overlaps, **variants[index]} for index in range(len(variants))]

    def _thresholds(self, ranking: VolumeRanking) -> Values:
        """Only where a lesion is found can a lower threshold bring anything."""
        return self.grid.score_thresholds(ranking.boxes.scores[ranking.contenders])

    def _judge(self, ranking: VolumeRanking, masks: NDArray[np.bool_], thresholds: Values) -> None:
        begin = sum(len(each[1]) for each in self.columns)
        ranked = ranking.under(masks)
        boxes, true = ranked.points(thresholds, self.base.hit_iou)
        curves: list[Any] = [None] * (1 + len(self.without))
        if self.goal.of_curve:
            curves = list(curve_values(ranked, self.goal, self.base.hit_iou))
        for index, choice in enumerate(self.without):
            rest = np.arange(self.num_groups) != index
            self._choose(choice, begin, boxes[rest], true[rest], rest, curves[1 + index], thresholds)
        everything = np.ones(self.num_groups, dtype=bool)
        value, at = self._choose(self.best, begin, boxes, true, everything, curves[0], thresholds)
        taken = (np.take_along_axis(each.sum(axis=0), at[:, None], axis=1)[:, 0] for each in (boxes, true))
        self.columns.append((thresholds[at], value, *taken))
        self.tried += boxes.shape[1] * boxes.shape[2]

    def _choose(
        self,
        choice: _Choice,
        begin: int,
        boxes: Ints,
        true: Ints,
        groups: NDArray[np.bool_],
        curve: Values | None,
        thresholds: Values,
    ) -> tuple[Values, Ints]:
        """Value ``[F]`` of every setting at its best threshold and which that is; the first of equals is kept."""
        lesions, cases = int(self.lesions[groups].sum()), int(self.cases_of[groups].sum())
        found = true.sum(axis=0)
        metrics = metrics_of(boxes.sum(axis=0), found, found, num_lesions=lesions, num_cases=cases)
        if curve is None:
            values = np.round(self.goal.value(metrics), 12)
            at = np.argmax(values, axis=1)
            value = np.take_along_axis(values, at[:, None], axis=1)[:, 0]
        else:
            value, at = np.round(curve, 12), np.argmax(np.round(metrics["f1"], 12), axis=1)
        place = int(np.argmax(value))
        if value[place] > choice.value:
            choice.value, choice.cell = float(value[place]), begin + place
            choice.threshold = float(thresholds[at[place]])
        return value, at

    def _settings(self, choice: _Choice) -> PostprocSettings:
        return self.base.but({**self.variants[choice.cell], "score_threshold": choice.threshold})

    def _table(self) -> SweepTable:
        threshold, value, boxes, true = (
            np.concatenate(parts)[:, None, None, None] for parts in zip(*self.columns, strict=True)
        )
        return SweepTable(
            self.variants,
            np.array([self.base.min_votes]),
            np.array([self.base.vote_iou]),
            np.array([self.base.hit_iou]),
            threshold,
            boxes,
            true,
            true,
            value,
            int(self.lesions.sum()),
            len(self.cases),
        )

    def _row(self, table: SweepTable, cell: int) -> SweepRow:
        place = (cell, 0, 0, 0)
        metrics = metrics_of(
            table.boxes[place],
            table.true[place],
            table.found[place],
            num_lesions=table.num_lesions,
            num_cases=table.num_cases,
        )
        threshold = float(table.score_threshold[place])
        settings = self.base.but({**self.variants[cell], "score_threshold": threshold})
        own = {name: float(each) for name, each in metrics.items()}
        return make_row(JOINT, settings, own, table.value[place], voted=False)


def overlap_variants(cases: Sequence[SweepCase], grid: SweepGrid, base: PostprocSettings) -> list[Variant]:
    """Combinations of the settings that change boxes, those nearest to the base first.

    Where no voter speaks with several folds or views nothing is fused, and how it would be is left as it is: every
    value would score the same.
    """
    fused = any(len(parts) > 1 for case in cases for parts in case.raw.values())
    choices: dict[str, list[Any]] = {}
    for name in OVERLAPS if fused else OVERLAPS[:1]:
        own = base.value(name)
        candidates = list(dict.fromkeys([own, *grid.candidates().get(name, ())]))
        if name != "fold_score":
            candidates.sort(key=lambda value: (round(abs(value - own), 12), -value))
        choices[name] = candidates
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


def _check_candidates(grid: SweepGrid, masks: Sequence[Any]) -> None:
    unused = [name for name in unused_candidates(grid, masks) if name not in OVERLAPS]
    if unused:
        raise UserError(
            f"candidates of {', '.join(unused)} cannot be tried by the joint sweep",
            expected="thresholds of filters, and " + ", ".join(OVERLAPS),
            remedy="Leave one value in postproc_grid of the plan, or use sweep.search=coarse",
        )
