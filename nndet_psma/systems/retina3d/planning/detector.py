"""The 3D network of a plan: patch, stages, levels, anchors, batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod

from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.detector_options import DetectorOptions
from nndet_psma.planners.ledger import Ledger
from nndet_psma.planners.training_memory import Training
from nndet_psma.planners.volume_rules import Triple, VolumeSizes
from nndet_psma.systems.retina3d.plan import Detector3D
from nndet_psma.systems.retina3d.planning.anchors import (
    SHAPES_PER_LEVEL,
    PatchAnchorFit,
    PatchAnchorScore,
    fit_patch_anchors,
)
from nndet_psma.systems.retina3d.planning.layers import PatchNetwork
from nndet_psma.systems.retina3d.planning.network import (
    FINEST_LEVEL,
    Topology,
    choose_levels,
    plan_topology,
    stage_channels,
)
from nndet_psma.systems.retina3d.planning.patch import (
    LEAST_BATCH,
    USUAL_BATCH,
    Build,
    Candidate,
    PatchChoice,
    choice_of,
    choose_patch,
    size_text,
)
from nndet_psma.systems.retina3d.planning.profile import PatchProfile, choose_patch_profile


@dataclass(frozen=True)
class PlannedPatches:
    """Detector and patches per optimiser step over all GPUs."""

    detector: Detector3D
    batch: int


def plan_patch_detector(
    ledger: Ledger,
    options: DetectorOptions,
    target: Target,
    sizes: VolumeSizes,
    spacing: Triple,
    *,
    channels: int,
    classes: int,
) -> PlannedPatches:
    """The network whose patch and batch are the largest that the machine holds.

    Args:
        ledger: where decisions are noted.
        options: of the user.
        target: the machine.
        sizes: of regions and lesions, in planned voxels.
        spacing: planned, mm.
        channels: of the input.
        classes: lesion classes.

    Raises:
        UserError: not even the smallest patch fits the target's memory.
    """
    profile = choose_patch_profile(target)

    def build(topology: Topology) -> PatchNetwork:
        return network_for(topology, profile, sizes, channels=channels, classes=classes)

    training = Training(optimizer="adamw" if target.device == "cpu" else "sgd", gpus=target.gpus)
    if options.patch_size is None:
        choice = choose_patch(target, spacing, sizes, profile, build, training)
    else:
        choice = _named_patch(options.patch_size, target, spacing, training, build)
    choice = _with_batch(options, target, choice, training)
    network = choice.network
    anchors = fit_patch_anchors(sizes.lesions, [network.topology.stride(level) for level in network.levels])
    _note_patch(ledger, options, sizes, spacing, choice)
    _note_network(ledger, sizes, profile, network)
    _note_anchors(ledger, len(sizes.lesions), anchors)
    return PlannedPatches(_detector(choice, anchors), choice.batch_size)


def network_for(
    topology: Topology, profile: PatchProfile, sizes: VolumeSizes, *, channels: int, classes: int
) -> PatchNetwork:
    """The network of a topology: widths of the profile, levels for the lesions."""
    levels = choose_levels(topology, sizes.lesions)
    width = profile.fpn_channels if levels[0] >= FINEST_LEVEL else profile.fine_fpn_channels
    return PatchNetwork(
        topology,
        stage_channels(len(topology.strides), profile.start_channels, profile.most_channels),
        levels,
        fpn_channels=width,
        head_channels=width,
        inputs=channels,
        classes=classes,
        anchors=SHAPES_PER_LEVEL,
        segmentation_head=True,
    )


def _named_patch(
    wanted: tuple[int, int, int], target: Target, spacing: Triple, training: Training, build: Build
) -> PatchChoice:
    """The user's patch, rounded up to what its strides divide, with as many patches as the usual batch."""
    topology = plan_topology(spacing, wanted)
    candidate = Candidate(topology.rounded(wanted), build(topology))
    batch = USUAL_BATCH if target.device == "gpu" else LEAST_BATCH
    return choice_of(target, candidate, batch, training)


def _with_batch(
    options: DetectorOptions, target: Target, choice: PatchChoice, training: Training
) -> PatchChoice:
    """The user's batch, whether it fits or not; how much it needs is said."""
    if options.batch_size is None:
        return choice
    candidate = Candidate(choice.patch, choice.network)
    images = ceil(options.batch_size / target.gpus)
    made = choice_of(target, candidate, images, training)
    return replace(made, batch_size=options.batch_size)


def _note_patch(
    ledger: Ledger, options: DetectorOptions, sizes: VolumeSizes, spacing: Triple, choice: PatchChoice
) -> None:
    rule = "patch_size.choose_patch: from the median region down to what fits"
    if options.patch_size is not None:
        rule = "plan_cfg.patch_size, rounded up to the strides"
    share = prod(min(1.0, p / r) for p, r in zip(choice.patch, sizes.median_region, strict=True))
    mm = size_text([p * s for p, s in zip(choice.patch, spacing, strict=True)])
    evidence = f"{mm} mm, {share:.0%} of the median region of {size_text(sizes.median_region)} voxels"
    ledger.note("detector3d.patch_size", rule, evidence)
    rule = "plan_cfg.batch_size" if options.batch_size else "patch_size.choose_patch: patch first, then batch"
    ledger.note("batch_size", rule, choice.reason)


def _note_network(ledger: Ledger, sizes: VolumeSizes, profile: PatchProfile, network: PatchNetwork) -> None:
    rule = "patch_network.plan_topology: axes within twice the finest spacing, four cells left (nnU-Net)"
    ledger.note(
        "detector3d.strides",
        rule,
        f"{len(network.widths)} stages, {size_text(network.topology.divisor)} in all",
    )
    thin = sum(min(kernel) == 1 for kernel in network.topology.kernels)
    ledger.note(
        "detector3d.kernels",
        "patch_network.plan_topology: 1 along coarse axes",
        f"{thin} stages with coarse axes",
    )
    ledger.note("detector3d.channels", "patch_profile.choose_patch_profile", profile.reason)
    small, large = (size_text(sizes.lesion_quantile(q)) for q in (0.05, 0.95))
    strides = ", ".join(size_text(network.topology.stride(level)) for level in network.levels)
    evidence = f"lesions from {small} (5 %) to {large} (95 %) voxels; strides {strides}"
    ledger.note(
        "detector3d.levels", "patch_network.choose_levels: stage 2 or finer to the largest lesions", evidence
    )
    fine = network.levels[0] < FINEST_LEVEL
    ledger.note(
        "detector3d.fpn_channels",
        "patch_profile.choose_patch_profile",
        f"the finest level is stage {network.levels[0]}{', finer than in nnDetection' if fine else ''}",
    )
    ledger.note(
        "detector3d.segmentation_head",
        "as Retina U-Net",
        f"voxels of {len(sizes.lesions)} lesions teach beside their boxes",
    )


def _note_anchors(ledger: Ledger, lesions: int, fit: PatchAnchorFit) -> None:
    def figures(score: PatchAnchorScore) -> str:
        return f"mean best IoU {score.placed_mean_best_iou:.2f}, recall at 0.3 {score.placed_recall_30:.0%}"

    rule = "patch_anchors.fit_patch_anchors: highest mean best IoU with the lesions"
    centred = f"centred {fit.score.mean_best_iou:.2f}, recall at 0.5 {fit.score.recall_50:.0%}"
    evidence = f"{lesions} lesions at any place of the grid: {figures(fit.score)} ({centred}); "
    evidence += f"sizes doubled from level to level: {figures(fit.doubled)}"
    ledger.note("detector3d.anchor_shapes", rule, evidence)


def _detector(choice: PatchChoice, anchors: PatchAnchorFit) -> Detector3D:
    network = choice.network
    return Detector3D(
        patch_size=choice.patch,
        strides=network.topology.strides,
        kernels=network.topology.kernels,
        channels=network.widths,
        levels=network.levels,
        fpn_channels=network.fpn_channels,
        head_channels=network.head_channels,
        anchor_shapes=anchors.shapes,
        segmentation_head=network.segmentation_head,
    )
