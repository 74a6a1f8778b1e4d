"""What training a plan will cost, before anything is trained: hours and memory, from FLOPs and assumed speeds.

FLOPs are exact (counted by ``benchmarks/training_cost.py`` on the real network); what a device makes of them is an
assumption, named in every estimate. Two FLOPs are one multiplication and addition. Training steps only: mining of
hard negatives, validation, checkpoints and waiting for data come on top (a few per cent where the loader keeps up).
Of plans on 3D patches the FLOPs are those of the planned layers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.describe import DecisionRow
from nndet_psma.planners.training_memory import Network, Stages, Training, estimate_memory
from nndet_psma.systems.psma25d.plan import Detector
from nndet_psma.systems.retina3d.layers import PatchNetwork, patch_flops
from nndet_psma.systems.retina3d.memory import estimate_patch_memory

# Forward FLOPs per input pixel of stem (three channels) and layers 1..4; norms and activations are not counted.
STAGE_FLOPS: dict[str, Stages] = {
    "resnet18": (4704, 18432, 16384, 16384, 16384),
    "resnet50": (4704, 26624, 40960, 58368, 32256),
    "resnet101": (4704, 26624, 40960, 206336, 32256),
    "resnext50_32x4d": (4704, 25280, 43264, 60800, 34496),
    "resnext101_32x8d": (4704, 51968, 87040, 442112, 68352),
}
_TRAINED = 3  # forward, gradients of inputs, gradients of weights
_STEM_TRAINED = 2  # images need no gradient
_BOX_CELLS, _MASK_CELLS, _MASK_SHARE = 49, 196, 0.25  # as in planners.memory
_GROUPED = ("resnext",)


class Device(NamedTuple):
    """Assumed speed of a device class.

    Attributes:
        name: what it stands for.
        tflops: effective, of one GPU or one CPU core, in a training step's convolutions.
        grouped: share of it that grouped convolutions (ResNeXt) reach.
        image_seconds: per image, beside its FLOPs: anchors, sampling.
        proposal_seconds: per proposal.
        box_seconds: per sampled box and pyramid channel (RoIAlign and its backward).
        step_seconds: per step: optimiser, Python.
        source: where the figures are from.
    """

    name: str
    tflops: float
    grouped: float
    image_seconds: float
    proposal_seconds: float
    box_seconds: float
    step_seconds: float
    source: str


# Fitted by benchmarks/training_cost.py to steps of seven networks on one core of an Intel Xeon with AVX-512: all within
# 10 %. RoIAlign's backward runs on one core whatever their number.
CPU_CORE = Device("a core of a Xeon with AVX-512", 0.120, 0.65, 0.0, 22e-6, 2.9e-6, 0.03, "measured there")
# Steps of 3D networks with 16 to 64 channels: 60 to 100 GFLOPS (benchmarks/patch_memory.py); narrow layers are slow.
CPU_CORE_3D = Device("a core of a Xeon with AVX-512 in 3D", 0.075, 1.0, 0.0, 0.0, 0.0, 0.05, "measured there")
# ResNet-50 v1.5 training in NVIDIA's DeepLearningExamples (PyTorch 21.03): V100 367 (fp32) and 1200 (mixed) images/s,
# A100-80GB 938 (TF32, PyTorch's default for convolutions) and 2470 (mixed), times 24.6 GFLOP per image. That is 57 and
# 24 % of a V100's peak (15.7 and 125 TFLOPS), 15 and 19 % of an A100's (156 and 312).
# 0.7 and 10 ms: with them detectron2's model zoo (V100 fp32, Faster R-CNN with FPN, two images of about 0.8 megapixels
# per GPU: R50 0.210, R101 0.286, X101-32x8d 0.638 s per step) comes out within 10 %.
_GPU_SOURCE = "published ResNet-50 training rates of NVIDIA, detectron2's step times; not measured here"
_GPUS: dict[tuple[str, bool], Device] = {
    ("V100", False): Device("a V100 in fp32", 9.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
    ("V100", True): Device("a V100 in mixed precision", 29.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
    ("A100", False): Device("an A100 with TF32", 23.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
    ("A100", True): Device("an A100 in mixed precision", 61.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
}
_A100_MEMORY_GB = 39.0  # GPUs below are taken for a V100
_CORES_EXPONENT = 0.9  # convolutions on n cores are n ** 0.9 times as fast; measured from one to two
_SHARED_BATCH = 0.95  # what each of several GPUs reaches; eight reach 7.7 times one in NVIDIA's figures
_RULE = "planners.cost: steps x images x FLOPs / assumed speed"


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a whole task, estimated.

    Attributes:
        hours_per_stage: wall clock of one fold on the planned machine.
        hours_total: of all stages of all folds, one after the other.
        memory_gb: peak of one GPU (CUDA's context included), or of the CPU process without Python and its libraries.
        devices: GPUs that work at once; 1 on the CPU.
        folds: of the plan.
        seconds_per_step: by stage.
        assumption: the assumed speed, in words.
    """

    hours_per_stage: dict[str, float]
    hours_total: float
    memory_gb: float
    devices: int
    folds: int
    seconds_per_step: dict[str, float]
    assumption: str

    @property
    def device_hours(self) -> float:
        """GPU hours (or hours of the whole CPU) that the task takes."""
        return self.hours_total * self.devices


class ImageFlops(NamedTuple):
    """FLOPs of a training step (forward and backward) per image: of the ResNet, and of FPN and heads."""

    backbone: float
    heads: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.backbone + self.heads


def image_flops(network: Network, pixels: float, proposals: int) -> ImageFlops:
    """FLOPs of one image of ``pixels`` in a training step; ``proposals`` limit the boxes that can be sampled."""
    table = STAGE_FLOPS[network.backbone]
    stem, layers = table[0] * network.channels / 3, sum(table[1 : 1 + max(network.levels)])
    f, cells = network.fpn_channels, network.cells
    expansion = 1 if network.backbone == "resnet18" else 4
    lateral = sum(2 * 64 * 2 ** (level - 1) * expansion * f * 4.0 ** -(level + 1) for level in network.levels)
    per_pixel = lateral + cells * (2 * 2 * 9 * f * f + 2 * f * 5 * network.anchors)
    boxes = min(network.roi_samples, proposals)
    heads = pixels * per_pixel + boxes * _box_flops(network)
    return ImageFlops(pixels * (_STEM_TRAINED * stem + _TRAINED * layers), _TRAINED * heads)


def _box_flops(network: Network) -> float:
    f, h, outputs = network.fpn_channels, network.head_channels, network.classes + 1
    box = 2 * (_BOX_CELLS * f * h + h * h + 5 * outputs * h)
    mask = 2 * _MASK_CELLS * (4 * 9 * f * f + 4 * f * f + 4 * f * outputs)
    return box + (_MASK_SHARE * mask if network.mask_branch else 0)


def device_for(target: Target, precision: str = "no") -> Device:
    """The device class of a planned machine; GPUs are told apart by their memory only."""
    if target.device == "cpu":
        return CPU_CORE
    return _GPUS["A100" if target.memory_gb > _A100_MEMORY_GB else "V100", precision != "no"]


def step_seconds(
    network: Network, pixels: float, images: int, proposals: int, device: Device, cores: int = 1
) -> float:
    """Seconds of a training step of ``images`` on one GPU, or on ``cores`` of a CPU."""
    flops = image_flops(network, pixels, proposals)
    slow = device.grouped if network.backbone.startswith(_GROUPED) else 1.0
    speed: float = device.tflops * 1e12 * cores**_CORES_EXPONENT
    boxes = min(network.roi_samples, proposals) * network.fpn_channels * device.box_seconds
    beside = device.image_seconds + proposals * device.proposal_seconds + boxes
    return device.step_seconds + images * (flops.backbone / slow / speed + flops.heads / speed + beside)


def patch_step_seconds(
    network: PatchNetwork, voxels: int, images: int, device: Device, cores: int = 1
) -> float:
    """Seconds of a training step of ``images`` patches on one GPU, or on ``cores`` of a CPU."""
    seconds: float = patch_flops(network, voxels) / (device.tflops * 1e12 * cores**_CORES_EXPONENT)
    return device.step_seconds + images * (seconds + device.image_seconds)


def estimate_cost(plan: DetectorPlan, *, precision: str = "no", cores: int | None = None) -> CostEstimate:
    """Cost of training every stage of every fold, one after the other, on the planned machine.

    Args:
        plan: steps, batch, detector and target.
        precision: as in ``trainer_cfg``.
        cores: of the CPU, when planned for one; None takes those of this machine.

    Raises:
        UserError: nothing is known of the plan's backbone or norm.
    """
    device, cpu = device_for(plan.target, precision), plan.target.device == "cpu"
    if cpu and plan.detector3d is not None:
        device = CPU_CORE_3D
    cores = (cores or os.cpu_count() or 1) if cpu else 1
    gpus = 1 if cpu else plan.target.gpus
    images = -(-plan.batch_size // gpus)
    seconds = {s.name: _stage_seconds(plan, s, images, device, cores) for s in plan.stages}
    if gpus > 1:
        seconds = {name: value / _SHARED_BATCH for name, value in seconds.items()}
    hours = {stage.name: stage.iterations * seconds[stage.name] / 3600 for stage in plan.stages}
    memory = max(_stage_memory(plan, stage, images, precision, gpus) for stage in plan.stages)
    total, folds = sum(hours.values()) * len(plan.folds), len(plan.folds)
    return CostEstimate(hours, total, memory, gpus, folds, seconds, _assumption(device, cores, gpus, cpu))


def _stage_seconds(plan: DetectorPlan, stage: Stage, images: int, device: Device, cores: int) -> float:
    if plan.detector3d is not None:
        return patch_step_seconds(*_patches(plan, stage), images, device, cores)
    network, pixels = _network(plan, stage)
    return step_seconds(network, pixels, images, plan.detector.proposals_train, device, cores)


def _stage_memory(plan: DetectorPlan, stage: Stage, images: int, precision: str, gpus: int) -> float:
    training = Training(plan.optimizer, precision, gpus=gpus)
    return stage_memory_gb(plan, stage, images, training)


def stage_memory_gb(plan: DetectorPlan, stage: Stage, images: int, training: Training) -> float:
    """Estimated peak (GB) of one GPU, or of the CPU process, that trains ``images`` slices or patches per step.

    Raises:
        UserError: nothing is known of the plan's backbone or norm.
    """
    device = plan.target.device
    if plan.detector3d is not None:
        return estimate_patch_memory(*_patches(plan, stage), images, training, device=device).total
    return estimate_memory(*_network(plan, stage), images, training, device=device).total


def _network(plan: DetectorPlan, stage: Stage) -> tuple[Network, int]:
    height, width = _input_size(plan.detector, stage)
    return Network.of(plan.detector, channels=plan.channels(stage), classes=len(plan.classes)), height * width


def _patches(plan: DetectorPlan, stage: Stage) -> tuple[PatchNetwork, int]:
    detector = plan.detector3d
    network = PatchNetwork.of(detector, channels=plan.channels(stage), classes=len(plan.classes))
    return network, prod(detector.patch_size)


def _input_size(detector: Detector, stage: Stage) -> tuple[int, int]:
    return detector.input_size if stage.region == "search" else detector.body_input_size


def _assumption(device: Device, cores: int, gpus: int, cpu: bool) -> str:
    count = f"{cores} cores" if cpu else f"{gpus} GPUs" if gpus > 1 else "1 GPU"
    speed = f"{1000 * device.tflops:.0f} GFLOPS" if cpu else f"{device.tflops:g} TFLOPS"
    taken = f"each taken for {device.name}: {speed} in effect ({device.source})"
    return f"estimate for {count}, {taken}; factor 2 either way"


def cost_rows(plan: DetectorPlan, *, precision: str = "no", cores: int | None = None) -> list[DecisionRow]:
    """Rows for ``plan show``: hours of each stage, of the whole task, memory; the last tells what is assumed.

    A plan of which nothing is known (a backbone outside the table) gives one row that says so.
    """
    try:
        cost = estimate_cost(plan, precision=precision, cores=cores)
    except UserError as error:
        return [DecisionRow("cost", "unknown", _RULE, str(error))]
    rows = [_stage_row(plan, stage, cost) for stage in plan.stages]
    count = f"{cost.folds} folds x {len(plan.stages)} stages one after the other"
    if plan.target.device == "gpu":
        total = f"{hours_text(cost.device_hours)} of GPU time"
        total += f", {hours_text(cost.hours_total)} on {cost.devices} GPUs" if cost.devices > 1 else ""
    else:
        total = hours_text(cost.hours_total)
    rows.append(DecisionRow("cost.total", total, _RULE, f"{count}; {cost.assumption}"))
    where = "peak of one GPU" if plan.target.device == "gpu" else "without Python and its libraries (0.5 GB)"
    rows.append(DecisionRow("cost.memory", f"{cost.memory_gb:.1f} GB", "planners.memory", where))
    return rows


def _stage_row(plan: DetectorPlan, stage: Stage, cost: CostEstimate) -> DecisionRow:
    seconds = cost.seconds_per_step[stage.name]
    unit = "slices" if plan.detector3d is None else "patches"
    work = f"{stage.iterations} steps x {plan.batch_size} {unit} x {_flops_text(_stage_flops(plan, stage))}"
    evidence = f"{work}, {seconds:.3g} s per step"
    return DecisionRow(
        f"cost.{stage.name}", f"{hours_text(cost.hours_per_stage[stage.name])} per fold", _RULE, evidence
    )


def _stage_flops(plan: DetectorPlan, stage: Stage) -> float:
    """FLOPs of one slice or patch in a training step."""
    if plan.detector3d is not None:
        return patch_flops(*_patches(plan, stage))
    return image_flops(*_network(plan, stage), plan.detector.proposals_train).total


def _flops_text(flops: float) -> str:
    return f"{flops / 1e12:.3g} TFLOP" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP"


def hours_text(hours: float) -> str:
    """Hours with two figures; minutes below one hour."""
    if hours < 0.995:
        return f"{60 * hours:.1f} min" if hours < 1 / 6 else f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 9.95 else f"{hours:.0f} h"
