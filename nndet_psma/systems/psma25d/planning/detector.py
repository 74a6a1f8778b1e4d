"""The network of a plan: input size, pyramid levels, anchors, backbone, batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners import rules
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.plane_rules import PlaneSizes
from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.options import SliceOptions
from nndet_psma.systems.psma25d.plan import Detector
from nndet_psma.systems.psma25d.planning.anchors import (
    DEFAULT_RATIOS,
    DEFAULT_SIZES,
    AnchorFit,
    AnchorScore,
    fit_anchors,
    score_anchors,
)
from nndet_psma.systems.psma25d.planning.canvas import Canvas, Views, choose_canvas
from nndet_psma.systems.psma25d.planning.memory import (
    CPU_BATCH,
    LADDER,
    PAPER_BATCH,
    Network,
    NetworkChoice,
    choose_network,
    estimate_memory,
    max_images_for,
)
from nndet_psma.systems.psma25d.planning.profile import Profile
from nndet_psma.systems.psma25d.planning.settled import settled

_MIN_SCORE = 0.02
_NMS_IOU = 0.3
_MAX_DETECTIONS = 50
_GREY_MEAN, _GREY_STD = 0.45, 0.225  # ImageNet's, averaged over the colours


@dataclass(frozen=True)
class PlannedNetwork:
    """Detector, slices per optimiser step over all GPUs, and the largest rotation its training images have room for."""

    detector: Detector
    batch: int
    rotation_degrees: float


@dataclass(frozen=True)
class _Scales:
    """Detector pixels per voxel of the two kinds of stages."""

    search: float
    body: float

    def times(self, factor: float) -> _Scales:
        return _Scales(
            math.floor(self.search * factor * 1000) / 1000, math.floor(self.body * factor * 1000) / 1000
        )


def plan_detector(
    ledger: Ledger,
    options: SliceOptions,
    target: Target,
    profile: Profile,
    plane: PlaneSizes,
    *,
    augmentation: Augmentation,
    draw: Literal["slices", "lesions", "cases"],
    channels: int,
    classes: int,
) -> PlannedNetwork:
    """The network that shows the lesions large enough and fits the machine.

    Args:
        ledger: where decisions are noted.
        options: of the user.
        target: the machine.
        profile: what it affords.
        plane: sizes of regions and lesions, in planned voxels.
        augmentation: wished; its rotation may be bounded.
        draw: how slices with a lesion are drawn.
        channels: most input channels of any stage.
        classes: lesion classes.

    Raises:
        UserError: not even one slice fits the target's memory.
    """
    scales, rule = _scales(options, profile, plane)
    levels = rules.pyramid_levels(float(np.quantile(plane.sides, 0.95)) * scales.search)
    network = Network(
        norm=_norm(options, profile),
        levels=tuple(levels),
        fpn_channels=profile.fpn_channels,
        head_channels=profile.head_channels,
        channels=channels,
        classes=classes,
        roi_samples=profile.roi_samples,
    )
    choice = _fitting(options, target, network, _pixels(plane, scales, levels))
    wanted = max(_pixels(plane, scales, levels))
    if choice.pixels < wanted:
        scales = scales.times(math.sqrt(choice.pixels / wanted) * 0.98)  # sides are rounded up to the stride
        rule += ", shrunk to fit the memory"
    anchors = _anchors(options, plane, scales, len(levels))

    def fitting(search: tuple[int, int], body: tuple[int, int]) -> NetworkChoice:
        return _fitting(options, target, network, (search[0] * search[1], body[0] * body[1]))

    tight = Canvas(*_input_sizes(plane, scales, levels), choice, augmentation.rotation_degrees)
    views = Views(plane.search * scales.search, plane.body * scales.body, 2 ** (max(levels) + 1))
    canvas = choose_canvas(ledger, options, augmentation, tight, views, profile.max_pixels, fitting)
    _note_sizes(ledger, plane, scales, rule, levels)
    _note_anchors(ledger, options, plane, anchors)
    _note_network(ledger, options, profile, canvas.choice)
    detector = _detector(ledger, options, profile, canvas, scales, levels, anchors)
    detector = replace(detector, positive_draw=draw)
    return PlannedNetwork(detector, canvas.choice.batch_size, canvas.rotation_degrees)


def _scales(options: SliceOptions, profile: Profile, plane: PlaneSizes) -> tuple[_Scales, str]:
    if options.input_side is not None:
        sides = (plane.largest_search, plane.largest_body)
        search, body = (rules.fitting_scale(side, options.input_side) for side in sides)
        return _Scales(search, body), f"plan_cfg.input_side: longest side {options.input_side} pixels"
    side = float(np.median(plane.sides))
    search, body = (
        rules.detector_scale(side, profile.lesion_pixels, largest, profile.max_pixels)
        for largest in (plane.largest_search, plane.largest_body)
    )
    rule = f"rules.detector_scale: median lesion {profile.lesion_pixels:g} pixels, slice at most {profile.max_pixels}"
    return _Scales(search, body), rule


def _pixels(plane: PlaneSizes, scales: _Scales, levels: list[int]) -> tuple[int, int]:
    search, body = _input_sizes(plane, scales, levels)
    return search[0] * search[1], body[0] * body[1]


def _input_sizes(
    plane: PlaneSizes, scales: _Scales, levels: list[int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    divisor = 2 ** (max(levels) + 1)
    return (
        rules.input_size(plane.largest_search, scales.search, divisor),
        rules.input_size(plane.largest_body, scales.body, divisor),
    )


def _fitting(
    options: SliceOptions, target: Target, network: Network, pixels: tuple[int, int]
) -> NetworkChoice:
    """Backbone and batch: as the user says, else what fits with search-region and whole slices of these ``pixels``."""
    training = Training(gpus=target.gpus, optimizer="adamw" if target.device == "cpu" else "sgd")
    if options.backbone is not None:
        choice = _named_network(options.backbone, target, max(pixels), network, training)
    else:
        choice = choose_network(target, *pixels, network, training)
    if options.batch_size is None:
        return choice
    images = math.ceil(options.batch_size / target.gpus)
    estimate = estimate_memory(choice.network, choice.pixels, images, training, device=target.device)
    reason = f"plan_cfg.batch_size; {choice.network.backbone}, estimated peak {estimate.describe()}"
    if target.device == "gpu" and estimate.total > target.memory_gb:
        reason += f", more than the {target.memory_gb:g} GB of the GPU"
    return replace(choice, batch_size=options.batch_size, estimate=estimate, reason=reason)


def _named_network(
    backbone: str, target: Target, pixels: int, network: Network, training: Training
) -> NetworkChoice:
    """The user's backbone with the batch that fits."""
    named = replace(network, backbone=backbone)
    images = CPU_BATCH
    if target.device == "gpu":
        most = max(1, PAPER_BATCH // target.gpus)
        images = min(most, max_images_for(target.memory_gb, named, pixels, training))
    if images == 0:
        needed = estimate_memory(named, pixels, 1, training)
        raise UserError(
            f"{backbone} does not fit the GPU with one slice of {pixels} pixels",
            expected=needed.describe(),
            found=f"{target.memory_gb:g} GB",
            remedy="Choose a smaller plan_cfg.backbone or plan_cfg.input_side",
        )
    estimate = estimate_memory(named, pixels, images, training, device=target.device)
    reason = f"{backbone}, {images} slices of {pixels} pixels per device, peak {estimate.describe()}"
    return NetworkChoice(named, images * target.gpus, pixels, estimate, reason)


def _norm(options: SliceOptions, profile: Profile) -> Literal["batch", "frozen", "group"]:
    """Frozen statistics need pretrained weights to come from."""
    return "batch" if options.weights == "none" else profile.norm


def _anchors(options: SliceOptions, plane: PlaneSizes, scales: _Scales, levels: int) -> AnchorFit:
    heights, widths = plane.heights * scales.search, plane.widths * scales.search
    if options.anchors == "fitted":
        return fit_anchors(heights, widths, levels)
    sizes, ratios = [list(level) for level in DEFAULT_SIZES[:levels]], list(DEFAULT_RATIOS)
    score = score_anchors(heights, widths, sizes, ratios)
    return AnchorFit(**vars(score), sizes=sizes, ratios=ratios, default=score)


def _note_sizes(ledger: Ledger, plane: PlaneSizes, scales: _Scales, rule: str, levels: list[int]) -> None:
    side = np.median(plane.sides)
    evidence = f"median lesion side {side:.1f} voxels = {side * scales.search:.0f} pixels"
    ledger.note("detector.scale", rule, f"{evidence}; region up to {_text(plane.largest_search)} voxels")
    evidence = (
        f"median lesion side {side * scales.body:.0f} pixels; body up to {_text(plane.largest_body)} voxels"
    )
    ledger.note("detector.body_scale", rule, evidence)
    middle = [tuple(np.median(sizes, axis=0)) for sizes in (plane.search, plane.body)]
    share = np.prod(plane.search, axis=1).sum() / np.prod(plane.body, axis=1).sum()
    evidence = f"median crop {_text(middle[0])} voxels, {share:.0%} of the body's area"
    ledger.note("detector.input_size", "rules.input_size: holds every training case's region", evidence)
    ledger.note(
        "detector.body_input_size",
        "rules.input_size: holds every body",
        f"median body {_text(middle[1])} voxels",
    )
    largest = np.quantile(plane.sides, 0.95) * scales.search
    ledger.note("detector.levels", "rules.pyramid_levels", f"95 % of lesion sides below {largest:.0f} pixels")


def _note_anchors(ledger: Ledger, options: SliceOptions, plane: PlaneSizes, fit: AnchorFit) -> None:
    rule = "anchors.fit_anchors: highest mean best IoU with the lesions' slice boxes"
    if options.anchors == "torchvision":
        rule = "plan_cfg.anchors: fixed sizes of torchvision's detectors"
    ledger.note("detector.anchor_sizes", rule, _fit_text(len(plane.sides), fit))
    ratios = plane.heights / plane.widths
    evidence = f"height / width from {ratios.min():.2f} to {ratios.max():.2f}, median {np.median(ratios):.2f}"
    ledger.note("detector.aspect_ratios", rule.split(":")[0], evidence)


def _note_network(ledger: Ledger, options: SliceOptions, profile: Profile, choice: NetworkChoice) -> None:
    rule = f"memory.choose_network: deepest of {', '.join(LADDER)} with 8 slices per step"
    ledger.note("detector.backbone", "plan_cfg.backbone" if options.backbone else rule, choice.reason)
    ledger.note(
        "detector.weights",
        "plan_cfg.weights" if options.weights else "profile.choose_profile",
        profile.reason,
    )
    ledger.note(
        "batch_size", "plan_cfg.batch_size" if options.batch_size else "memory.choose_network", choice.reason
    )


def _frozen_layers(ledger: Ledger, options: SliceOptions, weights: str) -> int:
    if weights != "none":
        return int(settled(ledger, options, "frozen_layers", 0, "detector.frozen_layers"))
    if options.frozen_layers:
        raise UserError(
            "plan_cfg.frozen_layers would freeze layers that were never trained",
            expected="plan_cfg.weights=imagenet or a path",
            found="weights none, as a CPU is planned with unless asked otherwise",
        )
    if options.defaults == "detectron2":
        ledger.note("detector.frozen_layers", "weights none", "nothing trained that could be frozen")
    return 0


def _detector(
    ledger: Ledger,
    options: SliceOptions,
    profile: Profile,
    canvas: Canvas,
    scales: _Scales,
    levels: list[int],
    anchors: AnchorFit,
) -> Detector:
    weights = options.weights or profile.weights

    def value(name: str, own: Any) -> Any:
        return settled(ledger, options, name, own, f"detector.{name}")

    return Detector(
        backbone=canvas.choice.network.backbone,
        weights=weights,
        norm=_norm(options, profile),
        levels=levels,
        fpn_channels=profile.fpn_channels,
        head_channels=profile.head_channels,
        scale=scales.search,
        body_scale=scales.body,
        input_size=canvas.search,
        body_input_size=canvas.body,
        anchor_sizes=anchors.sizes,
        aspect_ratios=anchors.ratios,
        input_mean=_GREY_MEAN if weights == "imagenet" else 0.0,
        input_std=_GREY_STD if weights == "imagenet" else 1.0,
        rpn_samples=profile.rpn_samples,
        roi_samples=profile.roi_samples,
        proposals_train=profile.proposals,
        proposals_test=profile.proposals,
        detections_per_slice=min(value("detections_per_slice", _MAX_DETECTIONS), profile.proposals),
        min_score=value("min_score", _MIN_SCORE),
        nms_iou=value("nms_iou", _NMS_IOU),
        mask_branch=False,
        frozen_layers=_frozen_layers(ledger, options, weights),
        box_loss=value("box_loss", "smooth_l1"),
    )


def _fit_text(boxes: int, fit: AnchorFit) -> str:
    def figures(score: AnchorScore) -> str:
        return f"mean best IoU {score.placed_mean_best_iou:.2f}, recall at 0.5 {score.placed_recall_50:.0%}"

    return (
        f"{boxes} slice boxes at any place of the grid: {figures(fit)}; torchvision's: {figures(fit.default)}"
    )


def _text(sides: tuple[float, ...]) -> str:
    return " x ".join(f"{side:.0f}" for side in sides)
