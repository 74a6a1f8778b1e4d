"""Measure what ``nndet_psma/systems/retina3d/planning/memory.py`` estimates: memory of training steps of ``retina3d``.

Run ``python benchmarks/patch_memory.py``. Parameters and what is kept for the backward pass are counted on PyTorch's
fake tensors (no GPU, no memory); peaks are those of real training steps on the CPU.
"""

from __future__ import annotations

import time
from math import prod
from typing import Any

import torch
from memory_model import _peak_bytes, fake_gpu, saved_bytes
from torch import Tensor

from nndet_psma.systems.retina3d.network import build_retinanet3d
from nndet_psma.systems.retina3d.plan import Detector3D
from nndet_psma.systems.retina3d.planning.layers import PatchNetwork, patch_flops, patch_parameters
from nndet_psma.systems.retina3d.planning.memory import activation_bytes_3d, temporary_bytes_3d
from nndet_psma.systems.retina3d.planning.network import plan_topology, stage_channels

Steps = tuple[int, int, int]


def patch_detector(
    patch: Steps,
    *,
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    start: int = 16,
    most: int = 64,
    levels: list[int] | None = None,
    fpn: int = 32,
    shapes: int = 3,
    segmentation: bool = True,
) -> Detector3D:
    """A detector in the topology that the planner would give the patch."""
    topology = plan_topology(spacing, patch)
    levels = levels or [1, 2]
    return Detector3D(
        patch_size=topology.rounded(patch),
        strides=topology.strides,
        kernels=topology.kernels,
        channels=stage_channels(len(topology.strides), start, most),
        levels=levels,
        fpn_channels=fpn,
        head_channels=fpn,
        anchor_shapes=[[(2.0 + i, 4.0 + i, 4.0 + i) for i in range(shapes)] for _ in levels],
        segmentation_head=segmentation,
    )


def kept_bytes(detector: Detector3D, channels: int, classes: int, *, mixed: bool = False) -> int:
    """Bytes that encoder, pyramid and heads keep for the backward pass of one patch, on fake tensors."""
    with fake_gpu(mixed):
        model = build_retinanet3d(detector, channels, classes).train()

        def forward() -> Any:
            maps = model.pyramid(model.encoder(torch.empty(1, channels, *detector.patch_size)))
            return model.heads(maps), model.segmentation(maps[0]) if model.segmentation else None

        return saved_bytes(forward, model)


def real_step(detector: Detector3D, channels: int, batch: int) -> tuple[int, int, float]:
    """A real training step on the CPU: bytes kept, peak bytes that the step allocates, seconds.

    Gradients of the parameters are counted, weights are not.
    """
    torch.manual_seed(0)
    model = build_retinanet3d(detector, channels, 1).train()
    images = torch.rand(batch, channels, *detector.patch_size)
    box = torch.tensor([[2.0, 4.0, 4.0, 6.0, 12.0, 12.0]])
    mask = torch.zeros(detector.patch_size, dtype=torch.uint8)
    mask[2:6, 4:12, 4:12] = 1
    targets = [{"boxes": box, "labels": torch.zeros(1, dtype=torch.int64), "mask": mask}] * batch

    def forward() -> Tensor:
        return torch.stack(list(model(images, targets).values())).sum()

    kept = saved_bytes(forward, model)
    forward().backward()  # first-call allocations of the CPU kernels are not the step's
    model.zero_grad(set_to_none=True)
    peak = _peak_bytes(lambda: forward().backward())
    started = time.perf_counter()
    forward().backward()
    return kept, peak, time.perf_counter() - started


def network_of(detector: Detector3D, channels: int, classes: int = 1) -> PatchNetwork:
    """What the model needs to know of a detector."""
    return PatchNetwork.of(detector, channels=channels, classes=classes)


def main() -> None:
    print("patch, channels, segmentation: parameters, kept MB (fp32, mixed), counted MB")
    cases: list[tuple[Steps, dict[str, Any]]] = [
        ((16, 48, 48), {}),
        ((16, 48, 48), {"segmentation": False, "fpn": 16}),
        ((32, 64, 64), {"spacing": (1.0, 1.0, 1.0), "levels": [2, 3]}),
        ((24, 48, 48), {"start": 8, "levels": [1, 2, 3], "shapes": 1}),
    ]
    for patch, changes in cases:
        detector = patch_detector(patch, **changes)
        network, voxels = network_of(detector, 2), prod(detector.patch_size)
        fp32, mixed = (kept_bytes(detector, 2, 1, mixed=m) / 1e6 for m in (False, True))
        ours = [activation_bytes_3d(network, voxels, 1, mixed=m) / 1e6 for m in (False, True)]
        print(f"{detector.patch_size} {changes}: {patch_parameters(network)}", end=" ")
        print(f"fp32 {fp32:.2f} counted {ours[0]:.2f}; mixed {mixed:.2f} counted {ours[1]:.2f}")
    print("\nreal steps of 2 patches: kept MB, peak MB, estimated peak MB, s, GFLOPS")
    for patch, changes in cases:
        detector = patch_detector(patch, **changes)
        network, voxels = network_of(detector, 2), prod(detector.patch_size)
        kept, peak, seconds = real_step(detector, 2, 2)
        estimate = activation_bytes_3d(network, voxels, 2) + temporary_bytes_3d(network, voxels, 2)
        estimate += 4 * patch_parameters(network)
        speed = 2 * patch_flops(network, voxels) / seconds / 1e9
        print(f"{detector.patch_size}: {kept / 1e6:.1f} {peak / 1e6:.1f} {estimate / 1e6:.1f}", end=" ")
        print(f"{seconds:.2f} s, {speed:.0f} GFLOPS on {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
