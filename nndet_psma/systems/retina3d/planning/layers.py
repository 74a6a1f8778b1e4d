"""The convolutions of the one-stage 3D detector, counted: parameters and floating-point operations.

One list of layers gives parameters, FLOPs and (in ``memory``) memory, so that the three cannot disagree.
It mirrors ``network``; a test counts that network's own parameters against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from nndet_psma.systems.retina3d.plan import Detector3D
from nndet_psma.systems.retina3d.planning.network import Topology

HEAD_LAYERS = 2
"""Convolutions before the predictor of a head."""
BOX_VALUES = 6
_BLOCKS = 2  # convolutions of an encoder stage
_TRAINED = 3  # forward, gradients of inputs, gradients of weights

Norm = Literal["instance", "group", "none"]
Part = Literal["encoder", "lateral", "pyramid", "head", "predictor"]


@dataclass(frozen=True)
class PatchNetwork:
    """What the cost of a patch depends on; fields as in ``plan.Detector3D``.

    ``inputs`` are the channels of the image, ``anchors`` those per cell of a level.
    """

    topology: Topology
    widths: list[int]
    levels: list[int]
    fpn_channels: int
    head_channels: int
    inputs: int
    classes: int
    anchors: int
    segmentation_head: bool

    @classmethod
    def of(cls, detector: Detector3D, *, channels: int, classes: int) -> PatchNetwork:
        """The numbers of a planned detector."""
        return cls(
            Topology(detector.strides, detector.kernels), detector.channels, detector.levels, detector.fpn_channels,
            detector.head_channels, channels, classes, len(detector.anchor_shapes[0]), detector.segmentation_head,
        )  # fmt: skip

    def cells(self, stage: int) -> float:
        """Cells of a stage per input voxel."""
        return 1 / prod(self.topology.stride(stage))

    @property
    def level_cells(self) -> float:
        """Cells of all levels with anchors per input voxel."""
        return sum(self.cells(stage) for stage in self.levels)


@dataclass(frozen=True)
class Layer:
    """One convolution with what follows it.

    Attributes:
        part: of the network.
        cells: output cells per input voxel, over all levels that share the weights.
        kernel: its voxels.
        inputs: channels.
        outputs: channels.
        norm: normalisation behind it, with an affine pair per channel.
        bias: whether it has one.
        first: whether its input is the image, which needs no gradient.
    """

    part: Part
    cells: float
    kernel: int
    inputs: int
    outputs: int
    norm: Norm = "none"
    bias: bool = True
    first: bool = False

    @property
    def parameters(self) -> int:
        """Weights, bias, affine pair of the norm."""
        weights = self.kernel * self.inputs * self.outputs
        return weights + self.outputs * (self.bias + 2 * (self.norm != "none"))

    @property
    def flops(self) -> float:
        """Of a forward pass per input voxel; two are one multiplication and addition."""
        return 2 * self.kernel * self.inputs * self.outputs * self.cells


def network_layers(network: PatchNetwork) -> list[Layer]:
    """Every convolution of the network once."""
    return [*_encoder(network), *_pyramid(network), *_heads(network), *_segmentation(network)]


def _encoder(network: PatchNetwork) -> list[Layer]:
    layers: list[Layer] = []
    before = network.inputs
    for stage, (kernel, width) in enumerate(zip(network.topology.kernels, network.widths, strict=True)):
        for _ in range(_BLOCKS):
            cells = network.cells(stage)
            layers.append(Layer("encoder", cells, prod(kernel), before, width, "instance", first=not layers))
            before = width
    return layers


def _pyramid(network: PatchNetwork) -> list[Layer]:
    """Lateral convolutions of the finest level and all coarser stages; output convolutions of the levels."""
    f = network.fpn_channels
    stages = range(min(network.levels), len(network.widths))
    laterals = [Layer("lateral", network.cells(s), 1, network.widths[s], f) for s in stages]
    kernels = network.topology.kernels
    return laterals + [Layer("pyramid", network.cells(s), prod(kernels[s]), f, f) for s in network.levels]


def _heads(network: PatchNetwork) -> list[Layer]:
    cells, f, h = network.level_cells, network.fpn_channels, network.head_channels
    layers = []
    for outputs in (network.classes, BOX_VALUES):
        layers += [
            Layer("head", cells, 27, f if number == 0 else h, h, "group") for number in range(HEAD_LAYERS)
        ]
        layers.append(Layer("predictor", cells, 27, h, network.anchors * outputs))
    return layers


def _segmentation(network: PatchNetwork) -> list[Layer]:
    """A 1x1x1 convolution on the finest pyramid map."""
    if not network.segmentation_head:
        return []
    return [Layer("predictor", network.cells(min(network.levels)), 1, network.fpn_channels, 1)]


def patch_parameters(network: PatchNetwork) -> int:
    """Trainable parameters; the regression has a factor for every level."""
    return sum(layer.parameters for layer in network_layers(network)) + len(network.levels)


def patch_flops(network: PatchNetwork, voxels: float) -> float:
    """FLOPs of one patch of ``voxels`` in a training step, forward and backward; norms and activations left out."""
    return voxels * sum(layer.flops * (_TRAINED - layer.first) for layer in network_layers(network))
