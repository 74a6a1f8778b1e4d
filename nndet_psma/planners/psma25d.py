"""Planner of the central system: CT + CTV -> PSMA-positive nodes by a 2.5D two-stage detector (Xu et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.artifacts.plan import (
    Augmentation,
    Decision,
    Detector,
    FoldPlan,
    Plan,
    Scaling,
    Stage,
    Target,
    Window,
)
from nndet_psma.core.errors import UserError
from nndet_psma.planners import rules
from nndet_psma.planners.grids import postproc_defaults, postproc_grid
from nndet_psma.planners.machine import Profile, choose_batch_size, choose_profile, estimate_memory_gb
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.planners.registry import PLANNERS
from nndet_psma.planners.schedule import Schedule, schedule_for

_BODY_MARGIN_MM = 5.0
_WSI = "wsi"


@dataclass(frozen=True)
class _Plane:
    """In-plane sizes in planned voxels: of slices and of lesion slice boxes."""

    search: tuple[float, float]
    body: tuple[float, float]
    heights: NDArray[np.float64]
    widths: NDArray[np.float64]

    @property
    def sides(self) -> NDArray[np.float64]:
        return np.sqrt(self.heights * self.widths)


@PLANNERS.register
class PSMA25DPlanner:
    """Plans ``psma25d``; every value is recorded with its rule and evidence."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}

    def plan(
        self,
        fingerprint: Fingerprint,
        options: PlannerOptions,
        *,
        plan_id: str,
        trainer: str,
        target: Target,
        folds: list[FoldPlan],
    ) -> Plan:
        """The plan; raises UserError when no training case has a lesion."""
        if not fingerprint.lesions:
            raise UserError(
                "no training case has a lesion, so there is nothing to learn",
                remedy="Check labelsTr, or add cases with lesions",
            )
        self.decisions = {}
        ct, ctv = _find_modality(fingerprint, "CT"), _find_modality(fingerprint, "CTV")
        spacing = self._spacing(fingerprint)
        margin = self._margin(fingerprint, options, ctv is not None)
        profile = choose_profile(target)
        self._note("detector.backbone", "machine.choose_profile", profile.reason)
        windows = self._windows(fingerprint, options, profile, ct is not None)
        scalings = _scalings(fingerprint, ct, ctv)
        plane = _plane_sizes(fingerprint, spacing, margin)
        detector = self._detector(profile, plane)
        batch = self._batch(target, detector)
        positive = self._positive_fraction(fingerprint)
        schedule = schedule_for(
            target, _positive_slices(fingerprint), batch, positive, options.iterations_factor
        )
        self._note("stages", "schedule.schedule_for", schedule.reason)
        return Plan(
            plan_id=plan_id,
            planner=type(self).__name__,
            trainer=trainer,
            task=fingerprint.task,
            made_from=fingerprint.content_hash(),
            target=target,
            modalities=fingerprint.modalities,
            classes=fingerprint.labels,
            ct_modality=ct,
            ctv_modality=ctv,
            spacing=spacing,
            margin_mm=margin,
            body_margin_mm=_BODY_MARGIN_MM,
            windows=windows,
            scalings=scalings,
            neighbours=self._neighbours(fingerprint, spacing),
            stages=_stages(windows, options, schedule),
            batch_size=batch,
            positive_fraction=positive,
            detector=detector,
            augmentation=self._augmentation(target),
            folds=folds,
            seed=options.seed,
            postproc_defaults=postproc_defaults(margin if ctv is not None else None),
            postproc_grid=self._grid(fingerprint, windows, margin if ctv is not None else None),
            optimizer=schedule.optimizer,
            decisions=self.decisions,
        )

    def _note(self, key: str, rule: str, evidence: str) -> None:
        self.decisions[key] = Decision(rule, evidence)

    def _spacing(self, fingerprint: Fingerprint) -> tuple[float, float, float]:
        spacings = np.array([case.spacing for case in fingerprint.cases])
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        evidence = (
            f"{len(spacings)} cases, from {np.round(low, 3).tolist()} to {np.round(high, 3).tolist()} mm"
        )
        self._note("spacing", "rules.target_spacing: median", evidence)
        return rules.target_spacing(spacings)

    def _margin(self, fingerprint: Fingerprint, options: PlannerOptions, has_ctv: bool) -> float:
        if not has_ctv:
            self._note("margin_mm", "no modality is named CTV", "the body is searched; nothing is masked")
            return 0.0
        outside = [lesion.outside_ctv_mm or 0.0 for lesion in fingerprint.lesions]
        margin, share = rules.ctv_margin(outside, options.margin_coverage, options.min_margin_mm)
        evidence = (
            f"contains {share:.1%} of {len(outside)} lesions; farthest voxel {max(outside):.2f} mm outside"
        )
        self._note("margin_mm", "rules.ctv_margin: coverage, at least Xu et al.'s 6.48 mm", evidence)
        return margin

    def _windows(
        self, fingerprint: Fingerprint, options: PlannerOptions, profile: Profile, has_ct: bool
    ) -> list[Window]:
        if not has_ct:
            self._note("windows", "no modality is CT", "modalities are scaled instead")
            return []
        pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
        windows = rules.quantile_windows(pooled, options.quantiles, options.soft_tissue)
        count = options.max_voters or profile.voters or len(windows)
        chosen = rules.most_different_windows(windows, count)
        dropped = [window.name for window in windows if window not in chosen]
        evidence = f"{pooled.total} lesion voxels; tails {options.quantiles} %"
        evidence += f"; left out as most alike: {', '.join(dropped)}" if dropped else ""
        self._note("windows", "rules.quantile_windows (table 2), rules.most_different_windows", evidence)
        return chosen

    def _neighbours(self, fingerprint: Fingerprint, spacing: tuple[float, float, float]) -> int:
        height = float(np.median([lesion.size_mm[0] for lesion in fingerprint.lesions]))
        self._note(
            "neighbours",
            "rules.neighbour_slices",
            f"median lesion height {height:.1f} mm, slices {spacing[0]} mm",
        )
        return rules.neighbour_slices(height, spacing[0])

    def _detector(self, profile: Profile, plane: _Plane) -> Detector:
        side = float(np.median(plane.sides))
        scale = rules.detector_scale(side, profile.lesion_pixels, plane.search, profile.max_pixels)
        body_scale = rules.detector_scale(side, profile.lesion_pixels, plane.body, profile.max_pixels)
        levels = rules.pyramid_levels(float(np.quantile(plane.sides, 0.95)) * scale)
        divisor = 2 ** (max(levels) + 1)
        self._note(
            "detector.scale",
            "rules.detector_scale",
            f"median lesion side {side:.1f} voxels, slices up to {plane.search[0]:.0f} x {plane.search[1]:.0f} voxels",
        )
        self._note(
            "detector.anchor_sizes",
            "rules.anchor_sizes, rules.aspect_ratios: quantiles of the lesions' slice boxes",
            f"{len(plane.sides)} lesions, {plane.sides.min() * scale:.0f} to {plane.sides.max() * scale:.0f} pixels",
        )
        imagenet = profile.weights == "imagenet"
        return Detector(
            backbone=profile.backbone,
            weights=profile.weights,
            norm=profile.norm,  # type: ignore[arg-type]
            levels=levels,
            fpn_channels=profile.fpn_channels,
            head_channels=profile.head_channels,
            scale=scale,
            body_scale=body_scale,
            input_size=rules.input_size(plane.search, scale, divisor),
            body_input_size=rules.input_size(plane.body, body_scale, divisor),
            anchor_sizes=rules.anchor_sizes(plane.sides * scale, len(levels)),
            aspect_ratios=rules.aspect_ratios(plane.heights, plane.widths),
            input_mean=0.45 if imagenet else 0.0,
            input_std=0.225 if imagenet else 1.0,
            rpn_samples=profile.rpn_samples,
            roi_samples=profile.roi_samples,
            proposals_train=profile.proposals,
            proposals_test=profile.proposals,
            detections_per_slice=min(50, profile.proposals),
            min_score=0.02,
            nms_iou=0.3,
            mask_branch=False,
        )

    def _batch(self, target: Target, detector: Detector) -> int:
        pixels = max(
            detector.input_size[0] * detector.input_size[1],
            detector.body_input_size[0] * detector.body_input_size[1],
        )
        batch = choose_batch_size(target, detector.backbone, pixels)
        memory = estimate_memory_gb(detector.backbone, pixels, batch)
        evidence = f"{pixels} pixels per slice, estimated {memory:.1f} GB (not checked against a real peak)"
        self._note("batch_size", "machine.choose_batch_size", evidence)
        return batch

    def _positive_fraction(self, fingerprint: Fingerprint) -> float:
        positive = _positive_slices(fingerprint)
        boxes = [case.ctv_box or case.body_box for case in fingerprint.cases]
        total = int(sum(box[3] - box[0] for box in boxes))
        self._note(
            "positive_fraction", "rules.positive_fraction", f"{positive} of {total} slices hold a lesion"
        )
        return rules.positive_fraction(positive, total)

    def _augmentation(self, target: Target) -> Augmentation:
        if target.device == "cpu":
            self._note(
                "augmentation", "light: short CPU schedules", "rotation 15 instead of the paper's 180 degrees"
            )
            return Augmentation((0.9, 1.1), 15.0, 0.5, 0.1, 1.0, 0.1, 0.02, 6.0)
        self._note(
            "augmentation", "Xu et al. 2023, data preprocessing", "largest side 640-800 = factor 0.89-1.11"
        )
        return Augmentation((0.89, 1.11), 180.0, 0.5, 0.5, 1.0, 0.2, 0.0, 0.0)

    def _grid(
        self, fingerprint: Fingerprint, windows: list[Window], margin: float | None
    ) -> dict[str, list[Any]]:
        pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
        self._note(
            "postproc_grid",
            "grids.postproc_grid: table 3, HU thresholds from the lesions",
            "HU 75 % and 99 % of lesion voxels: "
            + (f"{pooled.quantile(0.75):.0f}, {pooled.quantile(0.99):.0f}" if pooled.total else "no CT"),
        )
        return postproc_grid(pooled, margin, max(1, len(windows)))


def _find_modality(fingerprint: Fingerprint, name: str) -> int | None:
    return next(
        (int(i) for i, found in fingerprint.modalities.items() if found.strip().upper() == name), None
    )


def _scalings(fingerprint: Fingerprint, ct: int | None, ctv: int | None) -> list[Scaling]:
    """Every image modality but CT: 0.5 % of the body to the larger of its 99.5 % and the lesions' median."""
    scalings = []
    for index, name in fingerprint.modalities.items():
        if int(index) in (ct, ctv):
            continue
        found = [case.intensities[name] for case in fingerprint.cases]
        lower = float(np.median([f.percentile_00_5 for f in found]))
        medians = [f.lesion_percentile_50 for f in found if f.lesion_percentile_50 is not None]
        upper = max(float(np.median([f.percentile_99_5 for f in found])), float(np.median(medians or [0.0])))
        scalings.append(Scaling(int(index), name, lower, upper if upper > lower else lower + 1.0))
    return scalings


def _plane_sizes(fingerprint: Fingerprint, spacing: tuple[float, float, float], margin: float) -> _Plane:
    def extent(box: tuple[float, ...], case_spacing: tuple[float, ...], grow: float) -> tuple[float, float]:
        sides = [(box[3 + a] - box[a]) * case_spacing[a] / spacing[a] + 2 * grow / spacing[a] for a in (1, 2)]
        return sides[0], sides[1]

    search, body, heights, widths = [], [], [], []
    for case in fingerprint.cases:
        body.append(extent(case.body_box, case.spacing, _BODY_MARGIN_MM))
        search.append(body[-1] if case.ctv_box is None else extent(case.ctv_box, case.spacing, margin))
        for lesion in case.lesions:
            height, width = extent(lesion.box, case.spacing, 0.0)
            heights.append(height)
            widths.append(width)
    largest_search, largest_body = np.max(search, axis=0), np.max(body, axis=0)
    return _Plane(
        (float(largest_search[0]), float(largest_search[1])),
        (float(largest_body[0]), float(largest_body[1])),
        np.array(heights),
        np.array(widths),
    )


def _positive_slices(fingerprint: Fingerprint) -> int:
    return sum(lesion.slices for lesion in fingerprint.lesions)


def _stages(windows: list[Window], options: PlannerOptions, schedule: Schedule) -> list[Stage]:
    """Whole-slice pretraining with the widest general window, then one search-region stage per window."""
    names = [window.name for window in windows]
    start = None
    stages = []
    if options.wsi_pretraining:
        stages.append(Stage(_WSI, "body", names[-1:], None, False, *schedule.wsi))
        start = _WSI
    for name in names or ["all"]:
        stages.append(Stage(name, "search", [name] if names else [], start, True, *schedule.search))
    return stages
