"""Thresholds tuned on validation predictions, exhaustively."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nndet_psma.core.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.postproc.clustering import PartClusters, cluster_parts, nms
from nndet_psma.postproc.criterion import Criterion, parse_criterion
from nndet_psma.postproc.hu_filter import hu_filter
from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.postproc.slice_metrics import Hits, Metrics, RankedBoxes, find_hits
from nndet_psma.postproc.steps import RawPredictions, fuse_folds
from nndet_psma.postproc.sweep_grid import SweepGrid
from nndet_psma.postproc.zone_filter import zone_filter

TIE_RULE = (
    "of equal values (to 1e-12) the milder setting, compared in this order: zone filter off, then larger zone_mm; "
    "HU filter off, then larger hu_threshold; smaller hu_quantile; fewer min_votes; lower vote_iou; "
    "lower score_threshold"
)


@dataclass(frozen=True)
class SweepCase:
    """Predictions and truth of one validation case, on the grid of its store.

    Attributes:
        case_id: name of the case.
        raw: predictions of every voter, see :data:`nndet_psma.postproc.steps.RawPredictions`; every case needs the same
            voters.
        truth: 2D slice boxes of the lesions with columns ``slice`` (axial index) and ``lesion`` (index from 0).
        num_lesions: lesions of the case; those without a slice box (lost to the crop) count as missed.
        num_slices: axial slices of the case.
        spacing: voxel size in mm (z, y, x).

    Raises:
        ValueError: a lesion index is not below ``num_lesions``, or a column is missing.
    """

    case_id: str
    raw: RawPredictions
    truth: Detections
    num_lesions: int
    num_slices: int
    spacing: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.truth) == 0:
            return
        missing = {"slice", "lesion"} - set(self.truth.columns)
        if missing:
            raise ValueError(f"{self.case_id}: truth without the columns {sorted(missing)}")
        highest = int(self.truth.columns["lesion"].max())
        if highest >= self.num_lesions:
            raise ValueError(f"{self.case_id}: lesion {highest}, but only {self.num_lesions} lesions")


@dataclass(frozen=True)
class SweepRow:
    """One setting that was tried and what it scored; in phase 1 the mean over the voters, each on its own.

    ``vote_iou`` and ``min_votes`` are ``None`` in phase 1. ``value`` is that of the criterion, negative where its limit
    is missed.
    """

    phase: int
    zone_mm: float | None
    hu_threshold: float | None
    hu_quantile: float
    vote_iou: float | None
    min_votes: int | None
    score_threshold: float
    sensitivity: float
    precision: float
    f1: float
    fp_per_case: float
    value: float


@dataclass(frozen=True)
class SweepResult:
    """The chosen settings and everything that was tried.

    Attributes:
        settings: the base settings with the tuned thresholds put in.
        criterion: its name.
        best: the row of the chosen settings.
        num_settings: settings tried, both phases.
        num_cases: cases they were tried on.
        num_lesions: lesions in them.
        tie_rule: how equal settings were told apart.
        rows: every setting tried.
    """

    settings: PostprocSettings
    criterion: str
    best: SweepRow
    num_settings: int
    num_cases: int
    num_lesions: int
    tie_rule: str
    rows: tuple[SweepRow, ...]


def sweep(
    cases: Sequence[SweepCase], grid: SweepGrid, *, criterion: str, base: PostprocSettings
) -> SweepResult:
    """Find the thresholds that maximise ``criterion`` on validation predictions.

    Two searches, each over the full product of its grid. Phase 1: tau4 x tau5 x tau6 x score threshold on each
    voter alone, metrics averaged over the voters. Phase 2, with the filters of phase 1: tau1 x tau2 x score
    threshold on the consensus of the voters (left out with one voter). "Filter off", one vote and score threshold 0 are
    always among the candidates, so that a step which hurts is switched off. tau3 (``base.hit_iou``) is not tuned.

    What is measured is exactly what :func:`nndet_psma.postproc.steps.postprocess_case` yields: folds are fused and
    boxes suppressed before any of the tuned thresholds, so these are masks on fixed boxes.

    Args:
        cases: validation cases, at least one with a lesion.
        grid: candidates; votes beyond the number of voters are left out.
        criterion: see :func:`nndet_psma.postproc.criterion.parse_criterion`.
        base: the thresholds that are not tuned; with one voter also ``vote_iou``.

    Raises:
        UserError: unknown criterion, no cases, or no lesion in any of them.
        ValueError: cases with different voters.
    """
    goal = parse_criterion(criterion)
    _check(cases)
    names = list(cases[0].raw)
    voters = [[nms(fuse_folds(case.raw[name], base), base.nms_iou) for case in cases] for name in names]
    thresholds = grid.score_thresholds(np.concatenate([boxes.scores for of in voters for boxes in of]))
    rows = list(_filter_rows(voters, cases, grid, goal, base, thresholds))
    best = min(rows, key=_preference)
    if len(names) > 1:
        voting = list(_voting_rows(voters, cases, grid, goal, base, best, thresholds))
        rows += voting
        best = min(voting, key=_preference)
    return SweepResult(
        settings=_chosen(base, best),
        criterion=criterion,
        best=best,
        num_settings=len(rows),
        num_cases=len(cases),
        num_lesions=sum(case.num_lesions for case in cases),
        tie_rule=TIE_RULE,
        rows=tuple(rows),
    )


def _check(cases: Sequence[SweepCase]) -> None:
    remedy = "Keep the default thresholds, or give the validation set cases with lesions"
    if not cases:
        raise UserError("no validation case: thresholds cannot be tuned", remedy=remedy)
    if not any(case.num_lesions for case in cases):
        raise UserError(
            "no lesion in any validation case: thresholds cannot be tuned",
            expected="at least one lesion",
            found=f"none in {len(cases)} cases",
            remedy=remedy,
        )
    for case in cases:
        if set(case.raw) != set(cases[0].raw) or not case.raw:
            raise ValueError(
                f"every case needs the same voters, at least one: {cases[0].case_id} has {sorted(cases[0].raw)}, "
                f"{case.case_id} has {sorted(case.raw)}"
            )


def _filter_rows(
    voters: list[list[Detections]],
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    goal: Criterion,
    base: PostprocSettings,
    thresholds: NDArray[np.float64],
) -> Iterator[SweepRow]:
    """Phase 1: every filter setting at every score threshold, averaged over the voters."""
    pooled = [_pool(boxes) for boxes in voters]
    ranked = []
    for boxes, of_cases in zip(pooled, voters, strict=True):
        hits = Hits.pool([_case_hits(b, c, base) for b, c in zip(of_cases, cases, strict=True)])
        ranked.append(RankedBoxes(boxes.scores, np.full(len(boxes), -np.inf), hits))
    for zone_mm, (hu_threshold, hu_quantile) in product(grid.zones(), grid.hu_pairs(base.hu_quantile)):
        per_voter = []
        for boxes, ranks in zip(pooled, ranked, strict=True):
            keep = zone_filter(boxes, zone_mm) & hu_filter(boxes, hu_threshold, hu_quantile)
            per_voter.append(ranks.metrics(keep, thresholds, len(cases)))
        metrics = {name: np.mean([m[name] for m in per_voter], axis=0) for name in per_voter[0]}
        yield from _rows((1, zone_mm, hu_threshold, hu_quantile, None, None), metrics, goal, thresholds)


def _voting_rows(
    voters: list[list[Detections]],
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    goal: Criterion,
    base: PostprocSettings,
    filters: SweepRow,
    thresholds: NDArray[np.float64],
) -> Iterator[SweepRow]:
    """Phase 2: every voting setting at every score threshold, behind the filters of phase 1."""
    of_cases = [[_filtered(boxes, filters) for boxes in of_case] for of_case in zip(*voters, strict=True)]
    for vote_iou in grid.vote_iou:
        clusters = [cluster_parts(of_case, vote_iou) for of_case in of_cases]
        ranked, votes = _rank_consensus(clusters, cases, base)
        for min_votes in grid.votes(len(voters)):
            metrics = ranked.metrics(votes >= min_votes, thresholds, len(cases))
            key = (2, filters.zone_mm, filters.hu_threshold, filters.hu_quantile, vote_iou, min_votes)
            yield from _rows(key, metrics, goal, thresholds)


def _rank_consensus(
    clusters: list[PartClusters], cases: Sequence[SweepCase], base: PostprocSettings
) -> tuple[RankedBoxes, NDArray[np.int64]]:
    """Every stage of every consensus box, over all cases, and its votes.

    Raising the score threshold takes votes from a cluster, worst first, and never changes who belongs to it (see
    :mod:`nndet_psma.postproc.clustering`). So the stages are the running consensus boxes.
    """
    upper, lower, votes, hits = [], [], [], []
    for of_case, case in zip(clusters, cases, strict=True):
        rows = of_case.votes()
        scores, ranks = of_case.members.scores[rows], of_case.rank[rows]
        last = np.append(ranks[1:] == 1, True)[: len(rows)]
        upper.append(scores)
        lower.append(np.where(last, -np.inf, np.append(scores[1:], 0.0)[: len(rows)]))
        votes.append(ranks)
        seen = of_case.members.select(rows)
        stages = Detections(of_case.running_consensus()[0], scores, seen.labels, seen.columns)
        hits.append(_case_hits(stages, case, base))
    return RankedBoxes(np.concatenate(upper), np.concatenate(lower), Hits.pool(hits)), np.concatenate(votes)


def _rows(
    key: tuple[int, float | None, float | None, float, float | None, int | None],
    metrics: Metrics,
    goal: Criterion,
    thresholds: NDArray[np.float64],
) -> Iterator[SweepRow]:
    names = ("sensitivity", "precision", "f1", "fp_per_case")
    columns = [thresholds, *(metrics[name] for name in names), goal.value(metrics)]
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield SweepRow(*key, *values)


def _preference(row: SweepRow) -> tuple[float, ...]:
    """Smallest is best: the value first, then :data:`TIE_RULE`."""
    return (
        -round(row.value, 12),
        -np.inf if row.zone_mm is None else -row.zone_mm,
        -np.inf if row.hu_threshold is None else -row.hu_threshold,
        row.hu_quantile,
        row.min_votes or 0,
        row.vote_iou or 0.0,
        row.score_threshold,
    )


def _chosen(base: PostprocSettings, row: SweepRow) -> PostprocSettings:
    return replace(
        base,
        zone_mm=row.zone_mm,
        hu_threshold=row.hu_threshold,
        hu_quantile=row.hu_quantile,
        vote_iou=base.vote_iou if row.vote_iou is None else row.vote_iou,
        min_votes=row.min_votes or 1,
        score_threshold=row.score_threshold,
    )


def _pool(boxes: list[Detections]) -> Detections:
    """Boxes of all cases in one; cases without boxes need no columns."""
    return Detections.concatenate([part for part in boxes if len(part)] or boxes[:1], dim=2)


def _filtered(boxes: Detections, filters: SweepRow) -> Detections:
    keep = zone_filter(boxes, filters.zone_mm)
    return boxes.select(keep & hu_filter(boxes, filters.hu_threshold, filters.hu_quantile))


def _case_hits(boxes: Detections, case: SweepCase, base: PostprocSettings) -> Hits:
    return find_hits(boxes, case.truth, num_lesions=case.num_lesions, hit_iou=base.hit_iou)
