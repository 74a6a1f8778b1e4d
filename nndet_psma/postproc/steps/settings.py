"""Every threshold of the post-processing in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any

from nndet_psma.postproc.steps.hu_filter import quantile_index

DEFAULT_STEPS = (
    "WeightedBoxClustering",
    "NMS",
    "ScoreThreshold",
    "ZoneFilter",
    "HUFilter",
    "SizeFilter",
    "WindowBagging",
    "SliceLinking",
)
"""Steps in their usual order, by the names of :data:`nndet_psma.postproc.steps.step.STEPS`."""

VOLUME_STEPS = (
    "NMS",
    "WeightedBoxClustering",
    "ScoreThreshold",
    "ZoneFilter",
    "HUFilter",
    "SizeFilter",
    "WindowBagging",
    "BoxSlicing",
)
"""The same for detectors that give boxes in 3D; every model is suppressed by itself first, as in nnDetection."""

FOLD_SCORES = ("all", "present", "overlap")

MOST_SLICES = 1000
"""Votes, and slices to bridge, beyond which a number is a mistake: no CT has so many slices between two of a lesion."""

_IOU_FIELDS = ("fold_iou", "vote_iou", "nms_iou", "link_iou", "hit_iou")


@dataclass(frozen=True)
class PostprocSettings:
    """Thresholds of :func:`nndet_psma.postproc.steps.steps.postprocess_case`; JSON through
    :mod:`nndet_psma.core.schema`.

    tau1 .. tau6 are those of Xu 2023, table 3. The defaults are a start for the sweep, not tuned values.

    Attributes:
        score_threshold: boxes scoring less are dropped, in [0, 1]; default: torchvision's ``box_score_thresh``.
        fold_iou: IoU from which on boxes of different folds are fused (nnDetection's ``ensemble_iou``).
        nms_iou: IoU above which the worse of two boxes of a voter is dropped (torchvision's ``box_nms_thresh``).
        zone_mm: tau4, largest distance of a box centre outside the CTV in mm; ``None``: off. Paper: 1..10 pixels.
        hu_threshold: tau5 in HU; a box brighter than this at ``hu_quantile`` is dropped; ``None``: off. Paper: 80..160.
        hu_quantile: tau6, quantile of the HU inside the box that is compared, one of 0.1, 0.2 .. 1.0.
        vote_iou: tau1, IoU from which on boxes of different voters agree. Paper: 0.1..1.0.
        min_votes: tau2, voters that must agree. Paper: 1..5.
        link_iou: IoU from which on boxes of neighbouring slices are one lesion.
        link_gap: slices without a box that a lesion may bridge.
        hit_iou: tau3, IoU with the truth from which on a box is a hit. Paper: 0.1..1.0, tuned. Here it is part of the
            protocol, reported and not tuned unless asked: tuning it on data moves the goal. Default: nnDetection's 0.1.
        fold_score: what a fold without the box does to the fused score: ``all``, it counts 0; ``present``, it does not
            count; ``overlap``, it counts 0 and every other fold counts by its overlap with the best box (nnDetection).
        min_size_mm: boxes whose longer in-plane side is shorter are dropped; ``None``: off.
        max_size_mm: boxes whose longer in-plane side is longer are dropped; ``None``: off.
        min_short_axis_mm: boxes whose shorter in-plane side is shorter are dropped; ``None``: off.
        min_extent_mm: boxes in 3D with any side shorter than this are dropped (nnDetection's ``remove_small_boxes``, in
            mm); a slice box has no third side and is judged by the other two; ``None``: off.
        steps: names of the steps in their order.
        options: settings of steps from elsewhere, by ``Step.name``.

    Raises:
        ValueError: a value is out of range; names the field.
    """

    score_threshold: float = 0.05
    fold_iou: float = 0.5
    nms_iou: float = 0.5
    zone_mm: float | None = None
    hu_threshold: float | None = None
    hu_quantile: float = 0.5
    vote_iou: float = 0.5
    min_votes: int = 1
    link_iou: float = 0.3
    link_gap: int = 1
    hit_iou: float = 0.1
    fold_score: str = "all"
    min_size_mm: float | None = None
    max_size_mm: float | None = None
    min_short_axis_mm: float | None = None
    min_extent_mm: float | None = None
    steps: tuple[str, ...] = DEFAULT_STEPS
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))  # JSON has lists
        if not all(isinstance(step, str) for step in self.steps):
            raise ValueError(f"steps must be names, got {list(self.steps)!r:.200}")
        self._check_thresholds()
        for name in ("min_size_mm", "max_size_mm", "min_short_axis_mm", "min_extent_mm"):
            size = getattr(self, name)
            if size is not None and not 0 <= size < float("inf"):
                raise ValueError(f"{name} must be a length in mm from 0 on, or None, got {size}")
        if self.fold_score not in FOLD_SCORES:
            raise ValueError(f"fold_score must be one of {', '.join(FOLD_SCORES)}, got {self.fold_score!r}")
        plain = [name for name in self.options if "." not in name]
        if plain:
            raise ValueError(f"options must be named Step.name, got {plain[0]!r}")

    def _check_thresholds(self) -> None:
        for name in _IOU_FIELDS:
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {value}")
        if not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold must lie in [0, 1], got {self.score_threshold}")
        if self.zone_mm is not None and not 0 <= self.zone_mm < float("inf"):
            raise ValueError(f"zone_mm must be a distance in mm from 0 on, or None, got {self.zone_mm}")
        if self.hu_threshold is not None and not isfinite(self.hu_threshold):
            raise ValueError(f"hu_threshold must be a number in HU, or None, got {self.hu_threshold}")
        quantile_index(self.hu_quantile)
        for name, least in (("min_votes", 1), ("link_gap", 0)):
            count = getattr(self, name)
            if type(count) is not int or not least <= count <= MOST_SLICES:
                raise ValueError(f"{name} must be a whole number in [{least}, {MOST_SLICES}], got {count!r}")

    @classmethod
    def detector_only(cls) -> PostprocSettings:
        """What the detector itself says: no score threshold, no filters, every voter's word enough."""
        return cls(score_threshold=0.0, zone_mm=None, hu_threshold=None, min_votes=1)

    def but(self, changes: Mapping[str, Any]) -> PostprocSettings:
        """The same settings with some changed; a name with a dot is an option of a step.

        Raises:
            ValueError: unknown name, or a value is out of range.
        """
        options = {name: value for name, value in changes.items() if "." in name}
        own = {name: value for name, value in changes.items() if "." not in name}
        unknown = sorted(set(own) - {each.name for each in fields(self)})
        if unknown:
            raise ValueError(f"there is no setting {unknown[0]!r}")
        return replace(self, **own, options={**self.options, **options})

    def value(self, name: str) -> Any:
        """A setting, or an option by its dotted name (``None`` when it is not set)."""
        return self.options.get(name) if "." in name else getattr(self, name)
