"""All thresholds tuned together: every combination is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.errors import UserError
from nndet_psma.core.progress import progress_bar
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.step import FilterStep
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.fixed_boxes import fixed_boxes
from nndet_psma.postproc.sweep.result import JOINT, Nested, SweepRow, SweepTable, best_cells, make_row
from nndet_psma.postproc.sweep.slices.image_scores import ImageScores
from nndet_psma.postproc.sweep.slices.metrics import Metrics, metrics_of
from nndet_psma.postproc.sweep.slices.vote_counts import Axes, Counts, VoteCounter
from nndet_psma.postproc.sweep.variants import FilterVariants, unused_candidates

MAX_SETTINGS = 2_000_000
"""Settings, without score thresholds and tolerances, up to which a space is searched exhaustively."""

MAX_MASKS = 200_000_000
"""Filter settings times boxes up to which they are looked at: about a gigabyte."""

Group = Sequence[int]


@dataclass(frozen=True)
class JointResult:
    """What :func:`joint` found.

    Attributes:
        settings: chosen.
        best: their row.
        rows: settings that are best for some pair of values of two thresholds.
        table: every setting.
        num_settings: settings scored, with every score threshold and tolerance.
        nested: see there.
    """

    settings: PostprocSettings
    best: SweepRow
    rows: list[SweepRow]
    table: SweepTable
    num_settings: int
    nested: Nested | None


def joint(
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    goal: Criterion,
    base: PostprocSettings,
    *,
    tune_hit_iou: bool = False,
    groups: Sequence[Group] = (),
) -> JointResult:
    """Score the full product of all candidates: filters x tau2 x tau1 x tau3 x score threshold.

    Args:
        cases: validation cases.
        grid: candidates.
        goal: what is maximised.
        base: everything that is not tuned.
        tune_hit_iou: let tau3 be chosen, too; otherwise every tau3 is scored and that of ``base`` counts.
        groups: cases (by index) to be held out in turn; none: no nested value.

    Raises:
        UserError: more than :data:`MAX_SETTINGS`, or steps that are no masks.
    """
    given = fixed_boxes(cases, base, grid.tuned())
    _check_candidates(grid, given.masks)
    variants = FilterVariants(given.masks, grid.candidates(), base)
    several = len(given.names) > 1
    axes = Axes(
        np.arange(1, len(given.names) + 1),
        np.array(sorted(set(grid.vote_iou)) if several else [base.vote_iou]),
        np.array(sorted({base.hit_iou, *grid.hit_iou})),
        grid.score_thresholds(given.boxes.scores) if given.thresholded else np.zeros(1),
    )
    check_size(len(variants), len(variants) * axes.shape[0] * axes.shape[1], len(given.boxes))
    masks = given.kept_by(variants, cases)
    case_group = np.zeros(len(cases), dtype=np.int64)
    for number, members in enumerate(groups):
        case_group[list(members)] = number
    counter = VoteCounter(cases, given, masks, axes, case_group)
    ranking = ImageScores(cases, given, masks, axes.vote_iou) if goal.of_ranking else None
    votes = grid.votes(len(given.names))
    search = _Search(cases, variants, axes, goal, votes, case_group, tune_hit_iou, ranking)
    with progress_bar("settings", len(variants)) as advance:
        for begin, counts in counter.counts():
            search.look_at(begin, counts)
            advance(begin + counts.boxes.shape[1])
    return search.result(nested=len(groups) > 1, voted=several)


def _check_candidates(grid: SweepGrid, masks: Sequence[FilterStep]) -> None:
    unused = unused_candidates(grid, masks)
    if unused:
        raise UserError(
            f"candidates of {', '.join(unused)} cannot be tried by the joint sweep",
            expected="thresholds of filters and of the vote",
            remedy="Leave one value in postproc_grid of the plan, or use sweep.search=coarse",
        )


def check_size(filters: int, settings: int, boxes: int) -> None:
    """Refuse more than :data:`MAX_SETTINGS`, and filter settings x boxes above :data:`MAX_MASKS`, with a UserError."""
    if settings > MAX_SETTINGS or filters * boxes > MAX_MASKS:
        raise UserError(
            f"the grid has {settings} settings, too many to try them all",
            expected=f"at most {MAX_SETTINGS}, {MAX_MASKS // max(boxes, 1)} of the filters for {boxes} boxes",
            remedy="Shorten postproc_grid of the plan, or use sweep.search=coarse",
        )


@dataclass
class _Choice:
    """The best setting so far, as indices, and its counts at every score threshold on the cases held out."""

    value: float = -np.inf
    place: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    held_out: NDArray[np.int64] | None = None


class _Search:
    """Keeps the best of all settings, for all cases and with each group held out; the mildest of equals."""

    def __init__(
        self,
        cases: Sequence[SweepCase],
        variants: FilterVariants,
        axes: Axes,
        goal: Criterion,
        votes: list[int],
        case_group: NDArray[np.int64],
        tune_hit_iou: bool,
        ranking: ImageScores | None,
    ) -> None:
        self.cases, self.variants, self.axes, self.goal = cases, variants, axes, goal
        self.case_group, self.ranking = case_group, ranking
        self.num_groups = int(case_group.max()) + 1
        self.votes = np.array(votes) - 1
        tolerance = int(np.flatnonzero(axes.hit_iou == variants.base.hit_iou)[0])
        # highest first: of equals the strictest tolerance
        self.tolerances = np.arange(len(axes.hit_iou))[::-1] if tune_hit_iou else np.array([tolerance])
        self.shown = tolerance
        self.best = _Choice()
        self.without = [_Choice() for _ in range(self.num_groups)]
        lesions = np.array([case.num_lesions for case in cases])
        self.lesions = np.bincount(case_group, weights=lesions).astype(int)
        self.group_cases = np.bincount(case_group)
        self.columns: list[tuple[NDArray[Any], ...]] = []

    def look_at(self, begin: int, counts: Counts) -> None:
        """Judge a portion of the filter settings."""
        counts = Counts(*(each[:, :, self.votes] for each in (counts.boxes, counts.true, counts.found)))
        whole = Counts(*(each.sum(axis=0) for each in (counts.boxes, counts.true, counts.found)))
        metrics = self._metrics(whole, self.lesions.sum(), len(self.cases))
        value, at = self._judge(metrics, begin)
        self._keep_columns(whole, value, at)
        self._improve(self.best, begin, value, at)
        if self.num_groups > 1:
            for group, choice in enumerate(self.without):
                self._hold_out(choice, group, begin, counts, whole)

    def _hold_out(self, choice: _Choice, group: int, begin: int, counts: Counts, whole: Counts) -> None:
        of = self.tolerances
        own = Counts(counts.boxes[group], counts.true[group][..., of, :], counts.found[group][..., of, :])
        rest = Counts(
            whole.boxes - own.boxes, whole.true[..., of, :] - own.true, whole.found[..., of, :] - own.found
        )
        lesions = self.lesions.sum() - self.lesions[group]
        metrics = self._metrics(rest, lesions, len(self.cases) - self.group_cases[group])
        value, at = self._judge(metrics, begin, self.case_group != group)
        if self._improve(choice, begin, value, at, columns=np.arange(len(of))):
            f, v, i, h, _ = choice.place
            column = int(np.flatnonzero(of == h)[0])
            cell = f - begin, v, i
            choice.held_out = np.stack(
                [own.boxes[cell][0], own.true[cell][column], own.found[cell][column]]
            ).astype(np.int64)

    def _metrics(self, counts: Counts, lesions: int, cases: int) -> Metrics:
        return metrics_of(
            counts.boxes, counts.true, counts.found, num_lesions=int(lesions), num_cases=int(cases)
        )

    def _judge(
        self, metrics: Metrics, begin: int, counted: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Value of every setting at its best score threshold, and which that is; ``counted`` ``[cases]`` count."""
        value = np.round(self._values(metrics, begin, counted), 12)
        at = np.argmax(np.round(metrics["f1"], 12) if self.goal.of_curve else value, axis=-1)
        return np.take_along_axis(value, at[..., None], axis=-1)[..., 0], at

    def _values(self, metrics: Metrics, begin: int, counted: NDArray[np.bool_] | None) -> NDArray[np.float64]:
        """``[F', V, I, H, T]``."""
        if self.ranking is None:
            return self.goal.value(metrics)
        shape = metrics["f1"].shape
        ranked = self.ranking.values(self.goal.metric, slice(begin, begin + shape[0]), counted)
        return np.broadcast_to(ranked[:, None, :, None, None], shape)

    def _improve(
        self,
        choice: _Choice,
        begin: int,
        value: NDArray[np.float64],
        at: NDArray[np.int64],
        columns: NDArray[np.int64] | None = None,
    ) -> bool:
        """Take the best of ``value`` ``[F', V, I, H]`` if it is better; the first of equals.

        ``columns`` of ``value`` are the tolerances that may be chosen.
        """
        columns = self.tolerances if columns is None else columns
        offered = value[..., columns]
        place = np.unravel_index(int(np.argmax(offered)), offered.shape)
        if offered[place] <= choice.value:
            return False
        f, v, i, h = (int(each) for each in place)
        choice.value = float(offered[place])
        choice.place = (begin + f, v, i, int(self.tolerances[h]), int(at[..., columns][place]))
        return True

    def _keep_columns(self, whole: Counts, value: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        boxes = np.broadcast_to(whole.boxes, whole.true.shape)
        cell = at[..., None]
        taken = (np.take_along_axis(each, cell, axis=-1)[..., 0] for each in (boxes, whole.true, whole.found))
        self.columns.append((at.astype(np.int16), value, *(each.astype(np.int32) for each in taken)))

    def result(self, *, nested: bool, voted: bool) -> JointResult:
        """Everything found."""
        at, value, boxes, true, found = (np.concatenate(parts) for parts in zip(*self.columns, strict=True))
        table = SweepTable(
            [self.variants[index] for index in range(len(self.variants))],
            self.axes.min_votes[self.votes],
            self.axes.vote_iou,
            self.axes.hit_iou,
            self.axes.score_threshold[at],
            boxes,
            true,
            found,
            value,
            int(self.lesions.sum()),
            len(self.cases),
        )
        f, v, i, h, _ = self.best.place
        cells = best_cells(table, h)
        row = self._row(table, (f, v, i, h), voted)
        return JointResult(
            self._settings(self.best.place),
            row,
            [self._row(table, (*cell, h), voted) for cell in cells],
            table,
            value.size * len(self.axes.score_threshold),
            self._nested(row.value) if nested else None,
        )

    def _settings(self, place: tuple[int, int, int, int, int]) -> PostprocSettings:
        f, v, i, h, t = place
        return self.variants.settings(f).but(
            {
                "min_votes": int(self.axes.min_votes[self.votes[v]]),
                "vote_iou": float(self.axes.vote_iou[i]),
                "hit_iou": float(self.axes.hit_iou[h]),
                "score_threshold": float(self.axes.score_threshold[t]),
            }
        )

    def _row(self, table: SweepTable, cell: tuple[int, int, int, int], voted: bool) -> SweepRow:
        f, v, i, h = cell
        threshold = int(np.searchsorted(self.axes.score_threshold, table.score_threshold[cell]))
        metrics = metrics_of(
            table.boxes[cell],
            table.true[cell],
            table.found[cell],
            num_lesions=table.num_lesions,
            num_cases=table.num_cases,
        )
        own = {name: float(each) for name, each in metrics.items()}
        return make_row(JOINT, self._settings((f, v, i, h, threshold)), own, table.value[cell], voted=voted)

    def _nested(self, plain: float) -> Nested:
        """All groups together, each at the thresholds of the others."""
        chosen = [self._settings(choice.place) for choice in self.without]
        curves = np.stack([choice.held_out for choice in self.without if choice.held_out is not None])
        points = np.stack([curve[:, c.place[4]] for curve, c in zip(curves, self.without, strict=True)])
        lesions, cases = int(self.lesions.sum()), len(self.cases)
        boxes, true, found = points.sum(axis=0)[:, None]
        metrics = metrics_of(boxes, true, found, num_lesions=lesions, num_cases=cases)
        if self.ranking is not None:
            value = self._ranked_apart(self.ranking)
        elif self.goal.of_curve:
            value = self.goal.value(metrics_of(*curves.sum(axis=0), num_lesions=lesions, num_cases=cases))
        else:
            value = self.goal.value(metrics)
        names = [[c.case_id for c, g in zip(self.cases, self.case_group, strict=True) if g == n] for n in
                 range(self.num_groups)]  # fmt: skip
        own = {name: float(each[0]) for name, each in metrics.items()}
        return Nested(names, chosen, **own, value=float(value[0]), optimism=plain - float(value[0]))

    def _ranked_apart(self, ranking: ImageScores) -> NDArray[np.float64]:
        """The criterion ``[1]`` of all slices, those of each group under the setting of the others."""
        group = np.repeat(self.case_group, np.diff(ranking.images.first))
        scores = np.zeros((len(group), 1))
        for number, choice in enumerate(self.without):
            own = group == number
            scores[own] = ranking.of_setting(choice.place[0], choice.place[2])[own]
        return ranking.images.auc(self.goal.metric, scores)
