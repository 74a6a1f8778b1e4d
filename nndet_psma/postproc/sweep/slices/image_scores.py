"""Best candidate of every slice under many filter settings and vote overlaps at once.

As in the joint sweep the vote of a handful of overlapping boxes is worked out once for each subset that some filter
leaves; a slice's score is the best consensus of all such handfuls on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.clustering import vote_ranks
from nndet_psma.postproc.steps.ranking import RANKING_VOTE_IOU
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.postproc.sweep.fixed_boxes import FixedBoxes
from nndet_psma.postproc.sweep.image_ranking import Images
from nndet_psma.postproc.sweep.slices.components import Bucket, UnitIndex, Units, make_buckets, make_units
from nndet_psma.postproc.sweep.slices.vote_events import group_boxes, part_of_units, unit_seeds

_CELLS = 1 << 22  # of the largest array looked at together

Ints = NDArray[np.int64]
Values = NDArray[np.float64]


class ImageScores:
    """Scores of all slices under any filter setting and vote overlap, without score threshold and vote count.

    Args:
        cases: validation cases.
        given: their boxes.
        masks: ``[F, N]`` boxes each filter setting keeps.
        vote_iou: ``[I]`` ascending.
    """

    def __init__(
        self,
        cases: Sequence[SweepCase],
        given: FixedBoxes,
        masks: NDArray[np.bool_],
        vote_iou: NDArray[np.float64],
    ) -> None:
        self.images = Images.of(cases)
        self.given = given
        self.ious, self.level = np.unique(np.minimum(vote_iou, RANKING_VOTE_IOU), return_inverse=True)
        asked = [sum(len(folds) > 0 for folds in case.raw.values()) for case in cases]
        self.asked = np.array(asked, dtype=np.int64)[given.case]
        group = group_boxes(given.boxes, given.case, cases)[0]
        indices, best, rows, first_unit = [], [np.zeros(0)], [np.zeros(0, dtype=np.int64)], 0
        for bucket in make_buckets(given.boxes, group, self.asked == 1, float(self.ious[0])):
            units, index = make_units(bucket, masks, self.ious, first_unit)
            indices.append(index)
            best.append(self._best(bucket, units))
            rows.append(bucket.rows[:, 0])
            first_unit += len(units.component)
        self.index = UnitIndex.join(indices, len(masks), len(self.ious))
        self.unit_score = np.concatenate(best)
        self.image = self._images_of(np.concatenate(rows))

    def values(self, metric: str, filters: slice, counted: NDArray[np.bool_] | None = None) -> Values:
        """Value ``[F', I]`` of a criterion; see :meth:`~nndet_psma.postproc.sweep.image_ranking.Images.auc`."""
        step = max(1, _CELLS // (max(len(self.image), len(self.images.positive), 1) * len(self.ious)))
        found = [np.zeros((0, len(self.ious)))]
        for begin in range(filters.start, filters.stop, step):
            part = slice(begin, min(begin + step, filters.stop))
            area = self.images.auc(metric, self._scores(part), counted)
            found.append(area.reshape(part.stop - begin, len(self.ious)))
        return np.concatenate(found)[:, self.level.reshape(-1)]

    def of_setting(self, filters: int, vote_iou: int) -> Values:
        """Scores ``[S, 1]`` under one filter setting and one vote overlap, both by their place."""
        level = int(self.level.reshape(-1)[vote_iou])
        return self._scores(slice(filters, filters + 1))[:, level : level + 1]

    def _scores(self, filters: slice) -> Values:
        """``[S, F' * I]``, the overlap varying fastest."""
        units = self.index.units(filters, np.arange(len(self.image)))
        scores = self.unit_score[units].transpose(1, 0, 2).reshape(len(self.image), -1)
        if not len(self.image):
            scores = np.zeros((0, (filters.stop - filters.start) * len(self.ious)))
        return self.images.best(self.image, scores)

    def _images_of(self, rows: Ints) -> Ints:
        if not len(rows):
            return rows
        return self.images.number(self.given.case[rows], self.given.boxes.columns["slice"][rows])

    def _best(self, bucket: Bucket, units: Units) -> Values:
        """Best consensus score ``[U]`` of every unit, 0 where nothing is left."""
        step = max(1, _CELLS // bucket.rows.shape[1] ** 2)
        parts = [
            self._best_of(bucket, part_of_units(units, slice(begin, begin + step)))
            for begin in range(0, len(units.component), step)
        ]
        return np.concatenate(parts)

    def _best_of(self, bucket: Bucket, units: Units) -> Values:
        seed = unit_seeds(bucket, units, self.ious)
        unit, place = np.nonzero(units.keep)
        rows = bucket.rows[units.component[unit], place]
        members = unit * bucket.rows.shape[1] + seed[unit, place]
        _, first, cluster = np.unique(members, return_index=True, return_inverse=True)
        cluster = cluster.reshape(-1)
        voting = vote_ranks(cluster, self.given.voter[rows], len(self.given.names)) > 0
        scores = self.given.boxes.scores[rows] / self.asked[rows]
        consensus = np.bincount(cluster[voting], weights=scores[voting], minlength=len(first))
        best = np.zeros(len(units.component))
        np.maximum.at(best, unit[first], consensus)
        return best
