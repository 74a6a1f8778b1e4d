"""Training memory of the detector from its numbers alone, and the network and batch that fit a machine.

Nothing here needs a GPU or imports PyTorch. The tables were measured on the real network by
``benchmarks/memory_model.py``, tests measure them again, and ``trainers.watch.memory_check`` sets the estimate against
the peak of a real GPU. GB are 10^9 bytes; pixels are those of one slice in the detector's input.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import (
    PLAIN,
    USABLE_SHARE,
    MemoryEstimate,
    StepBytes,
    Training,
)
from nndet_psma.systems.psma25d.plan import Detector

Stages = tuple[int, int, int, int, int]

BACKBONES = ("resnet18", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d")
NORMS = ("batch", "frozen", "group")
LADDER = ("resnet18", "resnet50", "resnext50_32x4d", "resnext101_32x8d")  # what is chosen, by depth
PAPER_BATCH, LEAST_BATCH, CPU_BATCH = 64, 8, 4
MIN_PIXELS = 128 * 128

# Bytes kept for backward per input pixel of three channels, by (backbone, mixed precision) and norm: stem, layers 1..4,
# each layer with the input of its lateral FPN convolution. What follows from these is left out: in fp32 "group" keeps
# what "batch" keeps, and mixed "batch" and "frozen" half of their fp32 (models.norms keeps 16 bits; torchvision's
# frozen norm would not). Autocast runs GroupNorm in fp32: there activations are kept in fp32 and again in 16 bit, so
# mixed precision costs memory instead of saving it.
_STAGE_BYTES: dict[tuple[str, bool], dict[str, Stages]] = {
    ("resnet18", False): {"batch": (172, 144, 72, 36, 18), "frozen": (108, 80, 32, 16, 8)},
    ("resnet50", False): {"batch": (172, 656, 464, 328, 92), "frozen": (108, 304, 216, 156, 42)},
    ("resnet101", False): {"batch": (172, 656, 464, 1144, 92), "frozen": (108, 304, 216, 564, 42)},
    ("resnext50_32x4d", False): {"batch": (172, 848, 640, 448, 128), "frozen": (108, 400, 304, 216, 60)},
    ("resnext101_32x8d", False): {"batch": (172, 1232, 992, 2320, 200), "frozen": (108, 592, 480, 1152, 96)},
    ("resnet18", True): {"group": (166, 168, 104, 52, 26)},
    ("resnet50", True): {"group": (166, 800, 636, 438, 129)},
    ("resnet101", True): {"group": (166, 800, 636, 1458, 129)},
    ("resnext50_32x4d", True): {"group": (166, 1040, 856, 588, 174)},
    ("resnext101_32x8d", True): {"group": (166, 1520, 1296, 2928, 264)},
}
# Parameters of stem (three input channels) and layers 1..4, affine parameters of the norms included.
_STAGE_PARAMETERS: dict[str, Stages] = {
    "resnet18": (9_536, 147_968, 525_568, 2_099_712, 8_393_728),
    "resnet50": (9_536, 215_808, 1_219_584, 7_098_368, 14_964_736),
    "resnet101": (9_536, 215_808, 1_219_584, 26_090_496, 14_964_736),
    "resnext50_32x4d": (9_536, 205_824, 1_197_056, 7_022_592, 14_544_896),
    "resnext101_32x8d": (9_536, 420_864, 2_405_376, 55_160_832, 28_745_728),
}
_PYRAMID_TENSORS = (
    3  # kept per level: inputs of the output convolution, of the RPN's convolution, of its predictors
)
_POOL_INDEX_BYTES = 32  # 64-bit indices of the stem's max pooling, which no precision halves
_BOX_CELLS, _MASK_CELLS = 7 * 7, 14 * 14
_MASK_TENSORS = 5 * _MASK_CELLS + 28 * 28  # pooled, four convolutions, one transposed
_MASK_SHARE = 0.25  # torchvision samples at most a quarter of the boxes as positives; only they get masks
# Temporaries measured on real CPU steps; the three phases follow each other, so the largest counts.
_ANCHOR_TEMPORARY_BYTES = 168  # decoding and matching, per anchor
_PYRAMID_TEMPORARY_TENSORS = 3.5  # gradients of the finest pyramid level
_WORKSPACE_GB = 0.3  # cuDNN; an assumption that only a GPU can check


@dataclass(frozen=True)
class Network:
    """What training memory depends on; fields as in ``plan.Detector``.

    ``channels`` are the largest input channels of any stage, ``anchors`` those per cell of a level.
    """

    backbone: str = "resnext50_32x4d"
    norm: str = "frozen"
    levels: tuple[int, ...] = (1, 2, 3, 4)
    fpn_channels: int = 256
    head_channels: int = 1024
    channels: int = 3
    classes: int = 1
    anchors: int = 6
    roi_samples: int = 512
    mask_branch: bool = False

    @property
    def cells(self) -> float:
        """Cells of all levels per input pixel."""
        return sum(4.0 ** -(level + 1) for level in self.levels)

    def __post_init__(self) -> None:
        for name, known in (("backbone", BACKBONES), ("norm", NORMS)):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise UserError(f"memory of this {name} is unknown", expected=", ".join(known), found=found)

    @classmethod
    def of(cls, detector: Detector, *, channels: int, classes: int) -> Network:
        """The numbers of a planned detector."""
        return cls(
            detector.backbone, detector.norm, tuple(detector.levels), detector.fpn_channels,
            detector.head_channels, channels, classes,
            len(detector.anchor_sizes[0]) * len(detector.aspect_ratios), detector.roi_samples, detector.mask_branch,
        )  # fmt: skip


def parameter_count(network: Network) -> int:
    """Trainable parameters, frozen norms counted in (below 1 %)."""
    body = sum(_STAGE_PARAMETERS[network.backbone][: 1 + max(network.levels)])
    body += 64 * 49 * (network.channels - 3)
    f, h, outputs = network.fpn_channels, network.head_channels, network.classes + 1
    widths: list[int] = [
        64 * 2 ** (level - 1) * (1 if network.backbone == "resnet18" else 4) for level in network.levels
    ]
    pyramid = sum(width * f + f for width in widths) + len(widths) * (9 * f * f + f)
    rpn = 9 * f * f + f + 5 * network.anchors * (f + 1)
    head = (_BOX_CELLS * f + 1) * h + (h + 1) * h + 5 * outputs * (h + 1)
    mask = 4 * (9 * f * f + f) + (4 * f * f + f) + (f + 1) * outputs
    return body + pyramid + rpn + head + (mask if network.mask_branch else 0)


def stage_bytes(backbone: str, norm: str, mixed: bool) -> list[float]:
    """Bytes kept for backward per input pixel (three channels) of stem and layers 1..4."""
    if mixed and norm != "group":
        full = _STAGE_BYTES[backbone, False][norm]
        return [full[0] / 2 + _POOL_INDEX_BYTES / 2, *(size / 2 for size in full[1:])]
    return list(_STAGE_BYTES[backbone, mixed]["batch" if norm == "group" and not mixed else norm])


def activation_bytes(network: Network, pixels: float, images: int, *, mixed: bool = False) -> float:
    """Bytes kept for backward by ``images`` slices of ``pixels`` each; exact to the size of statistics and indices."""
    width, f = 2 if mixed else 4, network.fpn_channels
    per_pixel: float = sum(stage_bytes(network.backbone, network.norm, mixed)[: 1 + max(network.levels)])
    per_pixel += width * (network.channels - 3) + width * _PYRAMID_TENSORS * f * network.cells
    per_box: float = width * (_BOX_CELLS * f + 2 * network.head_channels)
    per_box += _MASK_SHARE * width * _MASK_TENSORS * f if network.mask_branch else 0
    return images * (pixels * per_pixel + network.roi_samples * per_box)


def temporary_bytes(network: Network, pixels: float, images: int) -> float:
    """Bytes beyond the kept ones at the peak; mixed precision is taken as fp32, since RoIAlign widens its input."""
    f = network.fpn_channels
    anchors = pixels * network.cells * network.anchors * _ANCHOR_TEMPORARY_BYTES
    finest = 4.0 ** -(min(network.levels) + 1)
    pyramid = pixels * finest * 4 * f * _PYRAMID_TEMPORARY_TENSORS
    boxes: float = network.roi_samples * 4 * f * _BOX_CELLS
    boxes += _MASK_SHARE * network.roi_samples * 4 * f * _MASK_CELLS if network.mask_branch else 0
    return images * max(anchors, pyramid, boxes)


def estimate_memory(
    network: Network, pixels: float, images: int, training: Training = PLAIN, *, device: str = "gpu"
) -> MemoryEstimate:
    """Peak of one GPU (or of the CPU process, without CUDA's parts) that trains ``images`` slices per step."""
    # in fp32 the padded copy is what the first convolution keeps, counted with the activations
    loaded = images * pixels * network.channels * 4 * (2 if training.mixed else 1)
    activations = activation_bytes(network, pixels, images, mixed=training.mixed)
    step = StepBytes(parameter_count(network), loaded, activations, temporary_bytes(network, pixels, images))
    return step.estimate(training, _WORKSPACE_GB, device)


def max_pixels_for(memory_gb: float, net: Network, images: int, training: Training = PLAIN) -> int:
    """Most pixels per slice with which ``images`` fit on a GPU of ``memory_gb``; 0 when not even the weights do."""
    counts, usable = range(1, 2**32), USABLE_SHARE * memory_gb
    return bisect_right(counts, usable, key=lambda n: estimate_memory(net, n, images, training).total)


def max_images_for(memory_gb: float, net: Network, pixels: float, training: Training = PLAIN) -> int:
    """Most slices per step on a GPU of ``memory_gb``, at most 64; 0 when not even one fits."""
    counts, usable = range(1, PAPER_BATCH + 1), USABLE_SHARE * memory_gb
    return bisect_right(counts, usable, key=lambda n: estimate_memory(net, pixels, n, training).total)


@dataclass(frozen=True)
class NetworkChoice:
    """Backbone, slices per step over all GPUs, pixels per slice (below the wish only when not even one slice fits
    otherwise), and the peak of one GPU."""

    network: Network
    batch_size: int
    pixels: int
    estimate: MemoryEstimate
    reason: str


def choose_network(
    target: Target,
    search_pixels: int,
    body_pixels: int,
    network: Network,
    training: Training = PLAIN,
) -> NetworkChoice:
    """Deepest backbone of ``LADDER`` that leaves room for 8 slices per step, and the batch.

    Memory buys, in this order: a batch of 8, a deeper backbone, a batch of up to 64. So neither batch nor depth falls
    when memory grows, at the price of idle memory below the last rung. 64 slices and a ResNeXt are those of Xu et al.
    2023 ("Model training", 4 GPUs x 16; "Pretraining to fine tuning"), who do not name its depth; 8 is half a GPU's
    share there. ResNet-101 is no rung, as ResNeXt-50 needs less. On CPU: ResNet-18 and 4 slices; time is short there.

    ``target.memory_gb`` is that of one GPU; the larger of a search-region and a whole slice (detector pixels) counts;
    the backbone of ``network`` is replaced. Raises UserError when not even ``MIN_PIXELS`` fit.
    """
    pixels = max(search_pixels, body_pixels)
    if target.device == "cpu":
        small = replace(network, backbone=LADDER[0])
        estimate = estimate_memory(small, pixels, CPU_BATCH, training, device="cpu")
        return NetworkChoice(small, CPU_BATCH, pixels, estimate, f"CPU: {LADDER[0]}, {CPU_BATCH} slices")
    least = math.ceil(LEAST_BATCH / training.gpus)
    rungs = [replace(network, backbone=name) for name in LADDER]
    room = [max_images_for(target.memory_gb, rung, pixels, training) for rung in rungs]
    best = max((i for i, count in enumerate(room) if count >= least), default=0)
    if room[best] == 0:
        return _with_fewer_pixels(target, rungs[0], pixels, training)
    most = max(1, PAPER_BATCH // training.gpus) if best == len(LADDER) - 1 else least
    return _choice(target, rungs[best], min(room[best], most), pixels, training)


def _with_fewer_pixels(target: Target, network: Network, wanted: int, training: Training) -> NetworkChoice:
    pixels = max_pixels_for(target.memory_gb, network, 1, training)
    if pixels < MIN_PIXELS:
        needed = estimate_memory(network, MIN_PIXELS, 1, training).total / USABLE_SHARE
        raise UserError(
            f"the smallest network ({network.backbone}) does not fit the GPU",
            expected=f"{needed:.1f} GB for one slice of {MIN_PIXELS} pixels",
            found=f"{target.memory_gb:g} GB",
            remedy="Plan for the CPU with plan_cfg.target=cpu, or for a larger GPU with plan_cfg.gpu_memory_gb",
        )
    return _choice(target, network, 1, min(pixels, wanted), training, f"; one slice of {wanted} does not fit")


def _choice(
    target: Target, network: Network, images: int, pixels: int, training: Training, note: str = ""
) -> NetworkChoice:
    estimate = estimate_memory(network, pixels, images, training)
    gpus = f"{training.gpus} GPUs" if training.gpus > 1 else "GPU"
    load = f"{network.backbone}, {images} slices of {pixels} pixels each, peak {estimate.describe()}"
    reason = f"{gpus} of {target.memory_gb:g} GB: {load}{note}"
    return NetworkChoice(network, images * training.gpus, pixels, estimate, reason)
