"""Thresholds in two searches: the filters on each voter alone, then the vote behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.clustering import PartClusters
from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.builtin_steps import agreement
from nndet_psma.postproc.steps.ranking import RANKING_VOTE_IOU
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.sweep.candidates import SweepGrid
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.criterion import Criterion
from nndet_psma.postproc.sweep.fixed_boxes import FixedBoxes, fixed_boxes
from nndet_psma.postproc.sweep.image_ranking import Images
from nndet_psma.postproc.sweep.result import FILTERS, VOTING, SweepRow, make_row
from nndet_psma.postproc.sweep.slices.metrics import Hits, Metrics, RankedBoxes, find_hits
from nndet_psma.postproc.sweep.variants import FilterVariants


def two_phase(
    cases: Sequence[SweepCase], grid: SweepGrid, goal: Criterion, base: PostprocSettings
) -> tuple[PostprocSettings, SweepRow, list[SweepRow]]:
    """Two searches, each over the full product of its grid.

    Phase 1: filters x score threshold on each voter alone, metrics averaged over the voters. Phase 2, with the filters
    of phase 1: tau1 x tau2 x score threshold on the consensus of the voters (left out with one voter).
    tau3 is not tuned.

    Returns:
        The chosen settings, their row, every row.
    """
    given = fixed_boxes(cases, base, grid.tuned())
    thresholds = grid.score_thresholds(given.boxes.scores) if given.thresholded else np.zeros(1)
    variants = FilterVariants(given.masks, grid.candidates(), base)
    masks = given.kept_by(variants, cases)
    tried = list(_filter_rows(given, cases, variants, masks, goal, thresholds))
    settings, best = _first_best(tried)
    if len(given.names) > 1:
        chosen = masks[_index_of(variants, settings)]
        voted = list(_voting_rows(given, chosen, cases, grid, goal, settings, thresholds))
        tried += voted
        settings, best = _first_best(voted)
    return settings, best, [row for _, row in tried]


Tried = tuple[PostprocSettings, SweepRow]


def _first_best(tried: list[Tried]) -> Tried:
    """The first of the best: settings come the mildest first."""
    values = np.round([row.value for _, row in tried], 12)
    return tried[int(np.argmax(values))]


def _index_of(variants: FilterVariants, settings: PostprocSettings) -> int:
    wanted = settings.but(
        {"score_threshold": variants.base.score_threshold, "min_votes": variants.base.min_votes}
    )
    return next(i for i in range(len(variants)) if variants.settings(i) == wanted)


def _filter_rows(
    given: FixedBoxes,
    cases: Sequence[SweepCase],
    variants: FilterVariants,
    masks: NDArray[np.bool_],
    goal: Criterion,
    thresholds: NDArray[np.float64],
) -> Iterator[Tried]:
    """Phase 1: every filter setting at every score threshold, averaged over the voters."""
    ranked, ranking = [], np.zeros(len(variants))
    images = Images.of(cases)
    for voter in range(len(given.names)):
        rows = np.flatnonzero(given.voter == voter)
        hits = Hits.pool(
            [
                _case_hits(given.boxes.select(rows[given.case[rows] == i]), c, variants.base)
                for i, c in enumerate(cases)
            ]
        )
        ranked.append((rows, RankedBoxes(given.boxes.scores[rows], np.full(len(rows), -np.inf), hits)))
        if goal.of_ranking:
            scores = np.where(masks[:, rows].T, given.boxes.scores[rows, None], 0.0)
            ranking += images.auc(
                goal.metric, _image_scores(images, given.boxes.select(rows), given.case[rows], scores)
            )
    for index in range(len(variants)):
        per_voter = [ranks.metrics(masks[index, rows], thresholds, len(cases)) for rows, ranks in ranked]
        metrics = {name: np.mean([m[name] for m in per_voter], axis=0) for name in per_voter[0]}
        settings = variants.settings(index).but({"min_votes": 1})
        yield from _rows(FILTERS, settings, metrics, goal, thresholds, ranking[index] / len(ranked))


def _voting_rows(
    given: FixedBoxes,
    chosen: NDArray[np.bool_],
    cases: Sequence[SweepCase],
    grid: SweepGrid,
    goal: Criterion,
    filtered: PostprocSettings,
    thresholds: NDArray[np.float64],
) -> Iterator[Tried]:
    """Phase 2: every voting setting at every score threshold, behind the filters of phase 1."""
    of_cases = [_voters_of(given, chosen, index, case) for index, case in enumerate(cases)]
    consensus = {
        vote_iou: _rank_consensus(
            [agreement(voters, vote_iou) for voters in of_cases], len(given.names), cases, filtered
        )
        for vote_iou in sorted(set(grid.vote_iou))
    }
    ranking = {vote_iou: _ranked_consensus(of_cases, vote_iou, cases, goal) for vote_iou in consensus}
    for min_votes in grid.votes(len(given.names)):
        for vote_iou, (ranked, votes) in consensus.items():
            metrics = ranked.metrics(votes >= min_votes, thresholds, len(cases))
            settings = filtered.but({"vote_iou": vote_iou, "min_votes": min_votes})
            yield from _rows(VOTING, settings, metrics, goal, thresholds, ranking[vote_iou])


def _ranked_consensus(
    of_cases: Sequence[list[Detections]], vote_iou: float, cases: Sequence[SweepCase], goal: Criterion
) -> float:
    """Value of a criterion that ranks, of every candidate that the voters have; 0 for other criteria."""
    if not goal.of_ranking:
        return 0.0
    fused = [agreement(voters, min(vote_iou, RANKING_VOTE_IOU)).fused()[0] for voters in of_cases]
    case = np.repeat(np.arange(len(fused)), [len(each) for each in fused])
    pooled = Detections.concatenate([each for each in fused if len(each)], dim=2)
    images = Images.of(cases)
    return float(images.auc(goal.metric, _image_scores(images, pooled, case, pooled.scores[:, None]))[0])


def _image_scores(
    images: Images, boxes: Detections, case: NDArray[np.int64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Best score of every slice ``[S, F]``; ``scores`` ``[N, F]`` are 0 where a box is filtered out."""
    slices = boxes.columns["slice"] if len(boxes) else np.zeros(0, dtype=np.int64)
    return images.best(images.number(case, slices), scores)


def _voters_of(given: FixedBoxes, chosen: NDArray[np.bool_], index: int, case: SweepCase) -> list[Detections]:
    """The filtered boxes of the voters of one case that were asked."""
    here = chosen & (given.case == index)
    asked = [given.names.index(name) for name, folds in case.raw.items() if len(folds)]
    return [given.boxes.select(here & (given.voter == place)) for place in asked]


def _rank_consensus(
    clusters: list[PartClusters], num_voters: int, cases: Sequence[SweepCase], base: PostprocSettings
) -> tuple[RankedBoxes, NDArray[np.int64]]:
    """Every stage of every consensus box, over all cases, and its votes.

    Raising the score threshold takes votes from a cluster, worst first, and never changes who belongs to it (see
    :mod:`nndet_psma.boxes.clustering`). So the stages are the running consensus boxes. Where not all voters were
    asked, the votes of those that were are enough for any number.
    """
    upper, lower, votes, hits = [], [], [], []
    for of_case, case in zip(clusters, cases, strict=True):
        rows = of_case.votes()
        scores, ranks = of_case.members.scores[rows], of_case.rank[rows]
        upper.append(scores)
        lower.append(next_scores(scores, ranks))
        votes.append(np.where(ranks == of_case.num_parts, num_voters, ranks))
        seen = of_case.members.select(rows)
        stages = Detections(of_case.running_consensus()[0], scores, seen.labels, seen.columns)
        hits.append(_case_hits(stages, case, base))
    return RankedBoxes(np.concatenate(upper), np.concatenate(lower), Hits.pool(hits)), np.concatenate(votes)


def next_scores(scores: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Score of the next vote of the same cluster, below which this one is no longer the last; -inf behind the last."""
    last = np.append(ranks[1:] == 1, True)[: len(ranks)]
    return np.where(last, -np.inf, np.append(scores[1:], 0.0)[: len(ranks)])


def _rows(
    phase: int,
    settings: PostprocSettings,
    metrics: Metrics,
    goal: Criterion,
    thresholds: NDArray[np.float64],
    ranked: float,
) -> Iterator[Tried]:
    """A row for every score threshold; ``ranked`` is the value of a criterion that ranks."""
    value = np.full(len(thresholds), ranked) if goal.of_ranking else goal.value(metrics)
    # a curve has one value: its threshold is taken by F1, so only that one is offered
    offered = [int(np.argmax(np.round(metrics["f1"], 12)))] if goal.of_curve else range(len(thresholds))
    for place in offered:
        at = settings.but({"score_threshold": float(thresholds[place])})
        own = {name: float(values[place]) for name, values in metrics.items()}
        yield at, make_row(phase, at, own, value[place], voted=phase == VOTING)


def _case_hits(boxes: Detections, case: SweepCase, base: PostprocSettings) -> Hits:
    return find_hits(boxes, case.truth, num_lesions=case.num_lesions, hit_iou=base.hit_iou)
