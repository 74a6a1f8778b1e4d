"""The steps that come with the package; each calls the function that does the work."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.clustering import (
    Missing,
    PartClusters,
    cluster_parts,
    nms_mask,
    weighted_box_clustering,
)
from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.bagging import consensus, outvoted
from nndet_psma.postproc.steps.box_slicing import slice_lesions
from nndet_psma.postproc.steps.hu_filter import hu_filter, quantile_index
from nndet_psma.postproc.steps.linking import link_slices
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.size_filter import in_plane_axes, shortest_sides, size_filter
from nndet_psma.postproc.steps.step import (
    STEPS,
    Candidates,
    FilterStep,
    FuseStep,
    LinkStep,
    Outvoted,
    Spacing,
    Variant,
    VoteStep,
)
from nndet_psma.postproc.steps.zone_filter import zone_filter

_MISSING: dict[str, Missing] = {"all": "zero", "present": "ignore", "overlap": "overlap"}


@STEPS.register
class WeightedBoxClustering(FuseStep):
    """Folds of one voter fused, see :func:`nndet_psma.boxes.clustering.weighted_box_clustering`."""

    label = "folds"

    def fuse(self, parts: Sequence[Detections], settings: PostprocSettings) -> Detections:
        """Fused at ``fold_iou``, best score first; a single fold's boxes stay as they are."""
        if len(parts) == 1:
            return parts[0].sorted_by_score()
        missing = _MISSING[settings.fold_score]
        return weighted_box_clustering(parts, iou=settings.fold_iou, missing=missing)


@STEPS.register
class NMS(FilterStep):
    """Suppression of a voter's own boxes, see :func:`nndet_psma.boxes.clustering.nms`."""

    label = "nms"
    alone = False

    def keep(self, boxes: Detections, settings: PostprocSettings, spacing: Spacing) -> NDArray[np.bool_]:
        """Boxes that no better one suppresses."""
        return nms_mask(boxes, settings.nms_iou)

    def reason(self, boxes: Detections, row: int, settings: PostprocSettings, spacing: Spacing) -> str:
        """The threshold."""
        return f"overlaps a better box with IoU above {settings.nms_iou:g}"


@STEPS.register
class ScoreThreshold(FilterStep):
    """Boxes that score less are dropped."""

    label = "score"

    def keep(self, boxes: Detections, settings: PostprocSettings, spacing: Spacing) -> NDArray[np.bool_]:
        """Scores from ``score_threshold`` on."""
        return boxes.scores >= settings.score_threshold

    def reason(self, boxes: Detections, row: int, settings: PostprocSettings, spacing: Spacing) -> str:
        """Score and threshold."""
        return f"score {boxes.scores[row]:.3g} below {settings.score_threshold:g}"


@STEPS.register
class ZoneFilter(FilterStep):
    """See :func:`nndet_psma.postproc.steps.zone_filter.zone_filter`."""

    label = "zone"
    fields = ("zone_mm",)

    def keep(self, boxes: Detections, settings: PostprocSettings, spacing: Spacing) -> NDArray[np.bool_]:
        """Boxes near enough to the CTV."""
        return zone_filter(boxes, settings.zone_mm)

    def reason(self, boxes: Detections, row: int, settings: PostprocSettings, spacing: Spacing) -> str:
        """Distance and limit."""
        distance = boxes.columns["zone_mm"][row]
        return f"centre {distance:.1f} mm outside the CTV, at most {settings.zone_mm:.1f} mm kept"

    def variants(self, candidates: Candidates, base: PostprocSettings) -> list[Variant]:
        """Off, then the widest zone first."""
        return _off_and("zone_mm", candidates, widest_first=True)


@STEPS.register
class HUFilter(FilterStep):
    """See :func:`nndet_psma.postproc.steps.hu_filter.hu_filter`."""

    label = "hu"
    fields = ("hu_threshold", "hu_quantile")

    def keep(self, boxes: Detections, settings: PostprocSettings, spacing: Spacing) -> NDArray[np.bool_]:
        """Boxes that are not too bright."""
        return hu_filter(boxes, settings.hu_threshold, settings.hu_quantile)

    def reason(self, boxes: Detections, row: int, settings: PostprocSettings, spacing: Spacing) -> str:
        """HU and limit."""
        found = boxes.columns["hu_quantiles"][row, quantile_index(settings.hu_quantile)]
        return (
            f"{found:.0f} HU at quantile {settings.hu_quantile:g}, at most {settings.hu_threshold:g} HU kept"
        )

    def variants(self, candidates: Candidates, base: PostprocSettings) -> list[Variant]:
        """Off, then the highest threshold first, then the lowest quantile."""
        thresholds = sorted({v for v in candidates.get("hu_threshold", ()) if v is not None}, reverse=True)
        quantiles = sorted(set(candidates.get("hu_quantile", ())) or {base.hu_quantile})
        off: Variant = {"hu_threshold": None, "hu_quantile": base.hu_quantile}
        pairs = product(thresholds, quantiles)
        return [off, *({"hu_threshold": hu, "hu_quantile": quantile} for hu, quantile in pairs)]


@STEPS.register
class SizeFilter(FilterStep):
    """See :func:`nndet_psma.postproc.steps.size_filter.size_filter`; judges lesions when it stands behind the
    linking.
    """

    label = "size"
    fields = ("min_size_mm", "max_size_mm", "min_short_axis_mm", "min_extent_mm")

    def keep(self, boxes: Detections, settings: PostprocSettings, spacing: Spacing) -> NDArray[np.bool_]:
        """Boxes of the right size."""
        return size_filter(boxes, spacing, **{name: getattr(settings, name) for name in self.fields})

    def reason(self, boxes: Detections, row: int, settings: PostprocSettings, spacing: Spacing) -> str:
        """Axes and the limits that are set."""
        long, short = (axis[row] for axis in in_plane_axes(boxes, spacing))
        limits = ", ".join(
            f"{name} {getattr(settings, name):g}"
            for name in self.fields
            if getattr(settings, name) is not None
        )
        extent = f", shortest side {shortest_sides(boxes, spacing)[row]:.1f} mm" if boxes.dim == 3 else ""
        return f"{long:.1f} x {short:.1f} mm in plane{extent}, limits: {limits}"

    def variants(self, candidates: Candidates, base: PostprocSettings) -> list[Variant]:
        """Every combination of the limits that have candidates, off first, then the mildest."""
        choices = [
            _off_and(name, candidates, widest_first=name == "max_size_mm")
            for name in self.fields
            if candidates.get(name)
        ]
        return [{k: v for each in combined for k, v in each.items()} for combined in product(*choices)]


@STEPS.register
class WindowBagging(VoteStep):
    """See :func:`nndet_psma.postproc.steps.bagging.window_bagging`; ``min_votes`` ends at the number of voters
    present.
    """

    label = "bagging"

    def vote(self, voters: Sequence[Detections], settings: PostprocSettings) -> tuple[Detections, Outvoted]:
        """Consensus of the voters present."""
        clusters = agreement(voters, settings.vote_iou)
        needed = min(settings.min_votes, len(voters))
        return consensus(clusters, needed), outvoted(clusters, needed)


@STEPS.register
class SliceLinking(LinkStep):
    """See :func:`nndet_psma.postproc.steps.linking.link_slices`."""

    label = "linking"

    def link(
        self, boxes: Detections, settings: PostprocSettings, spacing: Spacing
    ) -> tuple[Detections, Detections]:
        """Slice boxes with their lesion, and lesions."""
        return link_slices(boxes, link_iou=settings.link_iou, max_gap=settings.link_gap, spacing=spacing)


@STEPS.register
class BoxSlicing(LinkStep):
    """See :func:`nndet_psma.postproc.steps.box_slicing.slice_lesions`: for detectors whose boxes are lesions
    already.
    """

    label = "slicing"
    dim = 3

    def link(
        self, boxes: Detections, settings: PostprocSettings, spacing: Spacing
    ) -> tuple[Detections, Detections]:
        """Slice boxes with their lesion, and the lesions as they came."""
        return slice_lesions(boxes, spacing)


def agreement(voters: Sequence[Detections], vote_iou: float) -> PartClusters:
    """Clusters of agreeing boxes; a single voter's boxes stay apart, each with its own vote."""
    if len(voters) > 1:
        return cluster_parts(voters, vote_iou)
    boxes = voters[0].sorted_by_score()
    each = np.arange(len(boxes))
    return PartClusters(boxes, np.zeros_like(each), each, np.ones_like(each), 1)


def _off_and(name: str, candidates: Candidates, *, widest_first: bool) -> list[Variant]:
    given = sorted({v for v in candidates.get(name, ()) if v is not None}, reverse=widest_first)
    return [{name: None}, *({name: value} for value in given)]
