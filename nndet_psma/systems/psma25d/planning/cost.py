"""FLOPs, seconds and memory of a training step on slices, and what to lower where it does not fit.

``benchmarks/training_cost.py`` counts the FLOPs on the real network.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, prod
from typing import ClassVar, NamedTuple

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import MemoryEstimate, Training
from nndet_psma.systems.psma25d.plan import Detector, PSMA25DPlan
from nndet_psma.systems.psma25d.planning.memory import Network, Stages, estimate_memory, max_images_for
from nndet_psma.trainers.cost.devices import CPU_CORE, Device
from nndet_psma.trainers.cost.stage_load import StageLoad

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
_BOX_CELLS, _MASK_CELLS, _MASK_SHARE = 49, 196, 0.25  # as in the memory model
_GROUPED = ("resnext",)


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


def step_seconds(
    network: Network, pixels: float, images: int, proposals: int, device: Device, cores: int = 1
) -> float:
    """Seconds of a training step of ``images`` on one GPU, or on ``cores`` of a CPU."""
    flops = image_flops(network, pixels, proposals)
    slow = device.grouped if network.backbone.startswith(_GROUPED) else 1.0
    speed = device.speed(cores)
    boxes = min(network.roi_samples, proposals) * network.fpn_channels * device.box_seconds
    beside = device.image_seconds + proposals * device.proposal_seconds + boxes
    return device.step_seconds + images * (flops.backbone / slow / speed + flops.heads / speed + beside)


@dataclass(frozen=True)
class SliceLoad(StageLoad):
    """Of slices with ``channels`` channels and lesions of ``classes`` classes."""

    unit: ClassVar[str] = "slices"
    cpu: ClassVar[Device] = CPU_CORE

    detector: Detector
    channels: int
    classes: int

    @property
    def network(self) -> Network:
        """The numbers of the detector; UserError where its backbone or norm is unknown."""
        return Network.of(self.detector, channels=self.channels, classes=self.classes)

    def memory(self, images: int, training: Training, *, device: str = "gpu") -> MemoryEstimate:
        """By :func:`estimate_memory`."""
        return estimate_memory(self.network, prod(self.input_size), images, training, device=device)

    def flops(self) -> float:
        """By :func:`image_flops`."""
        return image_flops(self.network, prod(self.input_size), self.detector.proposals_train).total

    def step_seconds(self, images: int, device: Device, cores: int = 1) -> float:
        """By :func:`step_seconds`."""
        proposals = self.detector.proposals_train
        return step_seconds(self.network, prod(self.input_size), images, proposals, device, cores)


def stage_load(plan: PSMA25DPlan, stage: Stage) -> SliceLoad:
    """What a slice of a stage asks of a machine in training."""
    detector = plan.detector
    size = detector.input_size if stage.region == "search" else detector.body_input_size
    return SliceLoad(detector.backbone, size, detector, plan.channels(stage), len(plan.classes))


def what_to_lower(
    plan: PSMA25DPlan,
    stage: Stage,
    batch_size: int,
    training: Training,
    memory_gb: float,
    held_gb: float = 0.0,
) -> str:
    """A remedy for a full GPU: the batch that fits by the planner's estimate, or else a smaller network.

    Args:
        plan: of the stage.
        stage: that did not fit.
        batch_size: slices per step of one GPU.
        training: what else takes memory; its ``gpus`` share a batch.
        memory_gb: memory of the GPU.
        held_gb: what other processes hold of it.
    """
    load = stage_load(plan, stage)
    try:
        network = load.network
    except UserError:
        return "Lower trainer_cfg.batch_size"
    height, width = load.input_size
    room = max_images_for(memory_gb - held_gb, network, height * width, training)
    gpus = training.gpus
    if room >= batch_size > 1:  # the estimate is wrong here, so trust it no further
        return (
            f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {max(1, batch_size // 2) * gpus}; by the "
            f"estimate {room * gpus} would fit, so see whether other programs hold GPU memory"
        )
    if 1 <= room < batch_size:
        needed = load.memory(room, training).total
        return (
            f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {room * gpus} "
            f"(about {needed:.1f} of {memory_gb:.1f} GB per GPU, {held_gb:.1f} held by others)"
        )
    return (
        f"Not even one slice of {height} x {width} pixels fits {memory_gb:.1f} GB ({held_gb:.1f} held by others): "
        f"plan for this GPU with nndet_prep -o plan_cfg.gpu_memory_gb={floor(memory_gb)} prep.overwrite=true"
    )
