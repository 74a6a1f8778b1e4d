"""FLOPs per pixel (``nndet_psma/systems/psma25d/planning/cost.py``), and what a CPU core makes of them
(``trainers/cost``).

Run ``python benchmarks/training_cost.py`` (about two minutes on one core). It prints the table of FLOPs, counted by
PyTorch on fake tensors; training steps of seven networks on one core beside the estimate; detectron2's published step
times on V100 GPUs beside the estimate. With model folders (``det_models/TASK/MODEL``) as arguments, the seconds of
their stages stand beside the estimate, too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from memory_model import detector, fake_gpu, network_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.report.training_cost import true_cost
from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.systems.psma25d.plan import Detector
from nndet_psma.systems.psma25d.planning.cost import image_flops, step_seconds
from nndet_psma.systems.psma25d.planning.memory import BACKBONES, Network
from nndet_psma.systems.system import system_of
from nndet_psma.trainers.cost.cost import estimate_cost
from nndet_psma.trainers.cost.devices import CPU_CORE, Device, gpu_for

_SIDE = 512


def measured_stage_flops(backbone: str) -> list[int]:
    """Forward FLOPs per input pixel of stem and layers 1..4."""
    totals = []
    with fake_gpu(False):
        body = build_detector(detector(backbone, "frozen", fpn_channels=8), 3, 1).backbone.body
        for depth in range(5):
            with FlopCounterMode(display=False) as counter:
                x = torch.empty(1, 3, _SIDE, _SIDE)
                for name, module in body.items():
                    if not name.startswith("layer") or int(name[-1]) <= depth:
                        x = module(x)
            totals.append(counter.get_total_flops())
    return [round((b - a) / _SIDE**2) for a, b in zip([0, *totals], totals, strict=False)]


def network(backbone: str, height: int, width: int, **changes: Any) -> Detector:
    """A detector whose anchors fit its levels."""
    levels = changes.get("levels", [1, 2, 3, 4])
    sizes = [[8.0 * 2**i, 11.0 * 2**i] for i in range(len(levels))]
    size = {"input_size": (height, width), "body_input_size": (height, width)}
    return detector(backbone, "frozen", anchor_sizes=sizes, **size, **changes)


SMALL: dict[str, Any] = {"levels": [1, 2], "fpn_channels": 64, "head_channels": 128, "rpn_samples": 64}
STEPS = [
    (network("resnet18", 152, 184, roi_samples=32, proposals_train=100, **SMALL), 4),
    (network("resnet18", 152, 184, roi_samples=256, proposals_train=300, **SMALL), 4),
    (network("resnet18", 152, 184, roi_samples=32, proposals_train=1000, **SMALL), 4),
    (network("resnet18", 256, 256, roi_samples=64, proposals_train=200), 4),
    (network("resnet18", 256, 256, roi_samples=512, proposals_train=1000), 4),
    (network("resnet50", 256, 256, roi_samples=512, proposals_train=1000), 2),
    (network("resnext50_32x4d", 256, 256, roi_samples=64, proposals_train=200), 2),
]
# detectron2, MODEL_ZOO.md: Faster R-CNN with FPN on V100, two images per GPU; COCO's images, resized to a shorter side
# of 640 to 800 and padded to a batch, are taken for 0.8 megapixels
PUBLISHED = {"resnet50": 0.210, "resnet101": 0.286, "resnext101_32x8d": 0.638}
PUBLISHED_PIXELS, PUBLISHED_IMAGES = 0.8e6, 2


def counted_flops(det: Detector, batch: int) -> int:
    """FLOPs of a real training step on the CPU, first step; PyTorch's counter overlooks groups in the backward pass of
    convolutions, so it is no reference for ResNeXt."""
    with FlopCounterMode(display=False) as counter:
        training_step(det, batch)()
    return counter.get_total_flops()


def training_step(det: Detector, batch: int) -> Any:
    """A function that trains one step on the same random slices."""
    torch.manual_seed(0)
    height, width = det.input_size
    model = build_detector(det, 3, 1).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    images: list[Tensor] = list(torch.rand(batch, 3, height, width))
    box = torch.tensor([[0.2 * width, 0.2 * height, 0.35 * width, 0.4 * height]])
    targets = [{"boxes": box, "labels": torch.ones(1, dtype=torch.int64)} for _ in images]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model(images, targets).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return step


def measured_seconds(det: Detector, batch: int, repeats: int = 4) -> float:
    """CPU seconds of a step on one thread: what other processes take does not count."""
    step = training_step(det, batch)
    step()
    begin = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - begin) / repeats


def _against(name: str, estimate: float, measured: float) -> None:
    print(
        f"  {name}: {measured:.3f} s, estimated {estimate:.3f} s ({100 * (estimate / measured - 1):+.0f} %)"
    )


def _print_core() -> None:
    print("\nsteps on one CPU core")
    torch.set_num_threads(1)
    for det, batch in STEPS:
        height, width = det.input_size
        flops = batch * image_flops(network_of(det), height * width, det.proposals_train).total
        estimate = step_seconds(network_of(det), height * width, batch, det.proposals_train, CPU_CORE)
        name = (
            f"{det.backbone} {batch} x {height} x {width}, {det.roi_samples} of {det.proposals_train} boxes"
        )
        _against(f"{name}, {flops / 1e9:.1f} GFLOP", estimate, measured_seconds(det, batch))


def published_estimate(backbone: str, device: Device) -> float:
    """Seconds of detectron2's step; its RPN has three anchors a cell."""
    return step_seconds(Network(backbone, anchors=3), PUBLISHED_PIXELS, PUBLISHED_IMAGES, 1000, device)


def _print_published() -> None:
    from nndet_psma.artifacts.plan import Target

    print("\ndetectron2's steps on V100")
    device = gpu_for(Target("gpu", 16.0))
    for backbone, seconds in PUBLISHED.items():
        _against(backbone, published_estimate(backbone, device), seconds)


def _print_trained(folder: Path) -> None:
    folds = sorted(folder.glob("fold*"))
    plan = read_plan(folds[0] / "plan.json")
    estimate = estimate_cost(plan, system_of(plan).stage_loads(plan))
    print(f"\n{folder.name}: {plan.target.device}, {os.cpu_count()} cores here; {estimate.assumption}")
    for stage in true_cost(folds).stages:
        _against(
            f"{stage.fold} {stage.stage}", estimate.seconds_per_step[stage.stage], stage.seconds_per_step
        )


if __name__ == "__main__":
    print("STAGE_FLOPS: dict[str, Stages] = {")
    for known in BACKBONES:
        print(f'    "{known}": {tuple(measured_stage_flops(known))},')
    print("}")
    _print_core()
    _print_published()
    for argument in sys.argv[1:]:
        _print_trained(Path(argument))
