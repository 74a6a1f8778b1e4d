"""What nnU-Net is given to segment: region, channels, network preset; pure choices from our fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.artifacts.plan import Decision, Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners import rules
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.sweep_values import postproc_defaults, postproc_grid
from nndet_psma.systems.nodeseg.channels import choose_channels
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import Candidates, Channel, SegmentationTraining
from nndet_psma.systems.nodeseg.training import choose_training

"""Name of the one voter in raw predictions."""

STEPS = (
    "WeightedBoxClustering",
    "ScoreThreshold",
    "ZoneFilter",
    "HUFilter",
    "SizeFilter",
    "WindowBagging",
    "BoxSlicing",
)
"""Post-processing of 3D boxes; contiguous voxels are one node already, so nothing is suppressed."""

_BODY_MARGIN_MM = 5.0
_WORTH_CROPPING = 0.75  # nnU-Net's own limit from which on a crop counts
_CPU_FEATURES, _CPU_MOST_FEATURES, _CPU_GB = 8, 64, 0.3
_PRESETS = (("resenc_xl", 40.0), ("resenc_l", 24.0), ("resenc_m", 9.0))
_PRESET_GB = {"plain": 8.0, "resenc_m": 8.0, "resenc_l": 24.0, "resenc_xl": 40.0}


@dataclass(frozen=True)
class NetworkBudget:
    """What nnU-Net's planner may spend.

    Attributes:
        network: preset.
        gpu_gb: its memory target, in nnU-Net's own GB.
        features: channels of the first stage; None leaves nnU-Net's.
        most_features: of any stage; None leaves nnU-Net's.
        gpus: that train together; the batch is multiplied by it.
    """

    network: Literal["plain", "resenc_m", "resenc_l", "resenc_xl"]
    gpu_gb: float
    features: int | None = None
    most_features: int | None = None
    gpus: int = 1


@dataclass(frozen=True)
class NodeSegChoices:
    """Ours to decide, before nnU-Net plans patch, batch and network depth; fields as in ``NodeSegPlan``."""

    dataset: str
    ct_modality: int | None
    ctv_modality: int | None
    crop: Literal["ctv", "body", "image"]
    margin_mm: float
    context_mm: float
    channels: list[Channel]
    configuration: str
    budget: NetworkBudget
    spacing: tuple[float, float, float] | None
    patch_size: tuple[int, int, int] | None
    batch_size: int | None
    training: SegmentationTraining
    candidates: Candidates
    postproc_defaults: dict[str, Any]
    postproc_grid: dict[str, list[Any]]
    decisions: dict[str, Decision]


def choose_nodeseg(fingerprint: Fingerprint, options: NodeSegOptions, target: Target) -> NodeSegChoices:
    """Every choice with rule and evidence.

    Raises:
        UserError: no training case has a lesion, or a region is asked for that the data do not have.
    """
    if not fingerprint.lesions:
        raise UserError(
            "no training case has a lesion, so there is nothing to learn",
            remedy="Check labelsTr, or add cases with lesions",
        )
    ledger = Ledger()
    ct, ctv = find_modality(fingerprint, "CT"), find_modality(fingerprint, "CTV")
    crop = _crop(ledger, fingerprint, options, ct, ctv)
    margin = _margin(ledger, fingerprint, options, crop, ctv)
    context = options.context_mm if crop == "ctv" else 0.0
    ledger.note("context_mm", "plan_cfg.context_mm", "what surrounds a node tells it from vessels and bowel")
    channels = choose_channels(ledger, fingerprint, options, ct, ctv)
    budget = _budget(ledger, options, target)
    spacing, patch = _grid_wishes(ledger, fingerprint, options)
    ledger.note("configuration", "plan_cfg.configuration", "nodes are told from vessels along z (dwi2022)")
    training = choose_training(ledger, fingerprint, options, target)
    candidates = Candidates(options.threshold, options.low_threshold, options.score)
    ledger.note(
        "candidates",
        "plan_cfg.threshold, low_threshold, score",
        "contiguous voxels are a node (dwi2022); weak candidates give the ranking its tail",
    )
    zone = margin if ctv is not None else None
    return NodeSegChoices(
        dataset=dataset_name(fingerprint.task),
        ct_modality=ct,
        ctv_modality=ctv,
        crop=crop,
        margin_mm=margin,
        context_mm=context,
        channels=channels,
        configuration=options.configuration,
        budget=budget,
        spacing=spacing,
        patch_size=patch,
        batch_size=options.batch_size,
        training=training,
        candidates=candidates,
        postproc_defaults=_defaults(ledger, zone),
        postproc_grid=_grid(ledger, fingerprint, zone),
        decisions=ledger.decisions,
    )


def dataset_name(task: str) -> str:
    """nnU-Net's name of a task: ``Task100_Name`` is ``Dataset100_Name``."""
    return task.replace("Task", "Dataset", 1)


def find_modality(fingerprint: Fingerprint, name: str) -> int | None:
    """Index of the modality called ``name`` (case does not matter), or None."""
    return next((int(i) for i, m in fingerprint.modalities.items() if m.strip().upper() == name), None)


def _crop(
    ledger: Ledger, fingerprint: Fingerprint, options: NodeSegOptions, ct: int | None, ctv: int | None
) -> Literal["ctv", "body", "image"]:
    share = _body_share(fingerprint)
    evidence = f"the body's box holds {share:.0%} of the median image"
    if options.crop != "auto":
        if options.crop == "ctv" and ctv is None:
            raise UserError("plan_cfg.crop is ctv, but no modality is called CTV", remedy="Use crop=auto")
        ledger.note("crop", "plan_cfg.crop", evidence)
        return options.crop
    if ctv is not None:
        ledger.note("crop", "the CTV where there is one (Xu et al. 2023)", evidence)
        return "ctv"
    if ct is not None and share < _WORTH_CROPPING:
        ledger.note("crop", f"the body where its box is below {_WORTH_CROPPING:.0%} of the image", evidence)
        return "body"
    why = "CT" if ct is not None else "nnU-Net cuts off empty borders of MR and PET itself"
    ledger.note("crop", "nothing to gain: images are linked, not copied", f"{evidence}; {why}")
    return "image"


def _body_share(fingerprint: Fingerprint) -> float:
    """Median share of the image that the body's box takes."""
    shares = []
    for case in fingerprint.cases:
        box = np.array(case.body_box)
        shares.append(float(np.prod(box[3:] - box[:3]) / np.prod(case.shape)))
    return float(np.median(shares))


def _margin(
    ledger: Ledger,
    fingerprint: Fingerprint,
    options: NodeSegOptions,
    crop: str,
    ctv: int | None,
) -> float:
    if ctv is None:
        margin = options.margin_mm if options.margin_mm is not None else _BODY_MARGIN_MM
        margin = margin if crop == "body" else 0.0
        ledger.note("margin_mm", "no modality is named CTV", "skin and fat round the body")
        return margin
    outside = [lesion.outside_ctv_mm or 0.0 for lesion in fingerprint.lesions]
    margin, share = rules.ctv_margin(outside, options.margin_coverage, options.min_margin_mm)
    rule = (
        f"rules.ctv_margin: {options.margin_coverage:.0%} of lesions, at least {options.min_margin_mm:g} mm"
    )
    if options.margin_mm is not None:
        margin, rule = options.margin_mm, "plan_cfg.margin_mm"
        share = float(np.mean(np.array(outside) <= margin))
    evidence = f"contains {share:.1%} of {len(outside)} lesions; farthest voxel {max(outside):.2f} mm outside"
    ledger.note("margin_mm", rule, evidence)
    return margin


def _budget(ledger: Ledger, options: NodeSegOptions, target: Target) -> NetworkBudget:
    if target.device == "cpu":
        network = "plain" if options.network == "auto" else options.network
        evidence = (
            f"CPU: {_CPU_FEATURES} channels at first, a patch of about {_CPU_GB:g} GB by nnU-Net's measure"
        )
        ledger.note("target", "prepare.choose_target", "no GPU visible or asked for")
        ledger.note("network", "plan_cfg.network, small on CPU", evidence)
        return NetworkBudget(network, _CPU_GB, _CPU_FEATURES, _CPU_MOST_FEATURES)
    fitting = next((name for name, gb in _PRESETS if target.memory_gb >= gb), "plain")
    network = fitting if options.network == "auto" else options.network  # type: ignore[assignment]
    gb = min(_PRESET_GB[network], target.memory_gb)
    ledger.note("target", "prepare.choose_target", "visible, or plan_cfg.gpu_memory_gb")
    rule = "plan_cfg.network" if options.network != "auto" else "the largest of nnU-Net's presets that fits"
    ledger.note("network", rule, f"{target.memory_gb:g} GB; planned for {gb:g} GB")
    return NetworkBudget(network, gb, gpus=target.gpus)


def _grid_wishes(
    ledger: Ledger, fingerprint: Fingerprint, options: NodeSegOptions
) -> tuple[tuple[float, float, float] | None, tuple[int, int, int] | None]:
    """Spacing (None: nnU-Net's) and patch size (None: nnU-Net's)."""
    spacings = np.array([case.spacing for case in fingerprint.cases])
    z, y, x = np.median(spacings, axis=0).tolist()
    height = float(np.median([lesion.size_mm[0] for lesion in fingerprint.lesions]))
    short = float(np.median([lesion.short_axis_mm for lesion in fingerprint.lesions]))
    evidence = f"median {z:g}, {y:g}, {x:g} mm; median node {height:.1f} mm high, {short:.1f} mm across"
    patch = options.patch_size or options.matrix
    if options.matrix is not None:
        extents = [np.array(case.shape) * np.array(case.spacing) for case in fingerprint.cases]
        wished = np.round(np.median(extents, axis=0) / np.array(options.matrix), 4).tolist()
        ledger.note("spacing", "plan_cfg.matrix: a median image gets this many voxels (dwi2022)", evidence)
        return (wished[0], wished[1], wished[2]), patch
    if options.spacing is not None:
        ledger.note("spacing", "plan_cfg.spacing", evidence)
        return options.spacing, patch
    rule = "nnU-Net: median, a tenth percentile along z where slices are more than three times as thick"
    ledger.note("spacing", rule, evidence)
    return None, patch


def _defaults(ledger: Ledger, zone: float | None) -> dict[str, Any]:
    ledger.note(
        "postproc_defaults", "nodeseg.STEPS", "filters off until the sweep has tuned them; 3D boxes are cut"
    )
    return {**postproc_defaults(zone), "steps": list(STEPS)}


def _grid(ledger: Ledger, fingerprint: Fingerprint, zone: float | None) -> dict[str, list[Any]]:
    pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    ledger.note("postproc_grid", "grids.postproc_grid", "one voter: score, zone and HU are tuned")
    return {**postproc_grid(pooled, zone, 1), "vote_iou": [0.3]}
