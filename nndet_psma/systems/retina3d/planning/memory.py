"""Training memory of the one-stage 3D detector from its layers alone.

Nothing here needs a GPU or imports PyTorch. What layers keep for the backward pass is exact (a test measures it on the
real network); ``benchmarks/patch_memory.py`` measures the peak of real steps. GB are 10^9 bytes; voxels are those of
one patch.
"""

from __future__ import annotations

from nndet_psma.planners.training_memory import PLAIN, MemoryEstimate, StepBytes, Training
from nndet_psma.systems.retina3d.planning.layers import (
    BOX_VALUES,
    Layer,
    PatchNetwork,
    network_layers,
    patch_parameters,
)

_FULL, _HALF = 4, 2  # bytes of a value
# Temporaries beyond what is kept, measured on CPU steps by benchmarks/patch_memory.py: logits, deltas, matching and
# sampling per anchor; the gradients that the backward pass of the finest stage holds at once.
_ANCHOR_BYTES = 150
_FINEST_TENSORS = 2
_WORKSPACE_GB = 1.0  # 3D convolutions ask cuDNN for more than 2D ones; only a GPU can check it


def kept_values(layer: Layer) -> int:
    """Values per cell that a layer keeps for the backward pass.

    A normalised convolution keeps its own output, which the norm reads, and the activation (in place), which the next
    convolution reads. Lateral convolutions read what is kept already; their sum is read by the output convolution,
    whose output the heads read. Predictors keep nothing but the deltas that a factor scales.
    """
    if layer.norm != "none":
        return 2 * layer.outputs
    return 2 * layer.outputs if layer.part == "pyramid" else 0


def activation_bytes_3d(network: PatchNetwork, voxels: float, images: int, *, mixed: bool = False) -> float:
    """Bytes kept for backward by ``images`` patches, the patches themselves included."""
    deltas = network.level_cells * network.anchors * BOX_VALUES
    per_voxel: float = (network.inputs + deltas) * (_HALF if mixed else _FULL)
    per_voxel += sum(layer.cells * _kept_bytes(layer, mixed) for layer in network_layers(network))
    return images * voxels * per_voxel


def _kept_bytes(layer: Layer, mixed: bool) -> int:
    """Per cell. Autocast runs GroupNorm in fp32: its input and the activation are kept so, and the latter in 16 bit."""
    if mixed and layer.norm == "group":
        return layer.outputs * (2 * _FULL + _HALF)
    return kept_values(layer) * (_HALF if mixed else _FULL)


def temporary_bytes_3d(network: PatchNetwork, voxels: float, images: int) -> float:
    """Bytes beyond the kept ones at the peak: losses at the end of forward, or gradients of the finest stage."""
    anchors = network.level_cells * network.anchors * _ANCHOR_BYTES
    finest = _FINEST_TENSORS * network.widths[0] * _FULL
    return images * voxels * max(anchors, finest)


def estimate_patch_memory(
    network: PatchNetwork, voxels: float, images: int, training: Training = PLAIN, *, device: str = "gpu"
) -> MemoryEstimate:
    """Peak of one GPU (or of the CPU process, without CUDA's parts) that trains ``images`` patches per step."""
    loaded = images * voxels * (network.inputs + 1) * _FULL  # the mask, too
    activations = activation_bytes_3d(network, voxels, images, mixed=training.mixed)
    step = StepBytes(
        patch_parameters(network), loaded, activations, temporary_bytes_3d(network, voxels, images)
    )
    return step.estimate(training, _WORKSPACE_GB, device)
