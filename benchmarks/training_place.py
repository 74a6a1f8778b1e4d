"""A prepared task, its model and bare training steps: shared by the benchmarks of training in this folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from measure import ONE_THREAD, executable, measure
from torch import nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.psma25d.batches import SliceBatches
from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.trainers.loading import to_device

CASES = 12


@dataclass(frozen=True)
class Place:
    """A planned and preprocessed task and where it is trained."""

    plan: DetectorPlan
    store: Path
    stage: Stage
    device: torch.device
    batch_size: int
    workers: int

    def batches(self) -> SliceBatches:
        """Training batches of fold 0."""
        cases = self.plan.folds[0].train
        return SliceBatches(self.store, self.plan, self.stage, cases, self.batch_size, self.plan.seed)

    def model(self) -> nn.Module:
        """The planned detector with random weights: nothing is downloaded."""
        torch.manual_seed(0)
        detector = replace(self.plan.detector, weights="none")
        model = build_detector(detector, self.plan.channels(self.stage), len(self.plan.classes))
        return model.to(self.device).train()

    def torchvision_model(self) -> nn.Module:
        """The same with torchvision's own samplers of anchors and boxes in place of ours."""
        model: Any = self.model()
        detector = self.plan.detector
        del (
            model.rpn.fg_bg_sampler,
            model.roi_heads.fg_bg_sampler,
        )  # modules give way to plain objects only so
        model.rpn.fg_bg_sampler = BalancedPositiveNegativeSampler(detector.rpn_samples, 0.5)
        model.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(detector.roi_samples, 0.25)
        bare: nn.Module = model
        return bare

    def ready(self, count: int) -> list[dict[str, Any]]:
        """The first ``count`` batches on the device."""
        batches = self.batches()
        return [to_device(batches[step], self.device) for step in range(count)]

    def describe(self) -> str:
        """One line for the table's caption."""
        detector = self.plan.detector
        size = detector.input_size if self.stage.region == "search" else detector.body_input_size
        device = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        threads = f"{torch.get_num_threads()} threads, {self.workers} workers"
        return (
            f"{detector.backbone}, {self.batch_size} slices of {size[0]} x {size[1]}, {device}, {threads}; "
            f"stage {self.stage.name}"
        )


def parser_of(description: str | None, steps: int) -> argparse.ArgumentParser:
    """Options that these benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--task-root", type=Path, help="folder of a prepared task; else a phantom is prepared"
    )
    parser.add_argument("--plan", default="PSMA25D", help="name of its plan")
    parser.add_argument("--stage", help="stage of the plan; default: the last")
    parser.add_argument("--batch-size", type=int, help="slices per step instead of the planned ones")
    parser.add_argument("--workers", type=int, help="loader processes; default as nndet_train")
    parser.add_argument("--threads", type=int, help="threads of PyTorch on CPU; default: its own")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser


@contextmanager
def open_place(args: argparse.Namespace) -> Iterator[Place]:
    """The task that the options name, or a phantom in a temporary folder, planned for the device."""
    if args.threads:
        torch.set_num_threads(args.threads)
    with TemporaryDirectory() as scratch:
        root = args.task_root or _phantom(Path(scratch), args.device)
        plan = read_plan(TaskPaths(root).plan(args.plan))
        stage = plan.stage(args.stage) if args.stage else plan.stages[-1]
        workers = min(8, max(0, (os.cpu_count() or 1) - 1)) if args.workers is None else args.workers
        yield Place(
            plan,
            TaskPaths(root).store(plan.data_identifier),
            stage,
            torch.device(args.device),
            args.batch_size or plan.batch_size,
            workers,
        )


def _phantom(folder: Path, device: str) -> Path:
    print("preparing a phantom", file=sys.stderr)
    environment = {
        **os.environ,
        **ONE_THREAD,
        "det_data": str(folder),
        "det_models": str(folder / "models"),
    }
    example = [executable("nndet_example"), "--cases", str(CASES), "--test-cases", "0", "-o", str(folder)]
    measure(example, environment, folder / "example.log")
    target = "cpu" if device == "cpu" else "gpu"
    prep = [executable("nndet_prep"), "100", "-o", f"plan_cfg.target={target}"]
    measure(prep, environment, folder / "prep.log")
    return folder / "Task100_PSMAPhantom"


class BareStep:
    """Forward, backward and optimiser step as in torchvision's detection reference, and nothing else."""

    def __init__(self, model: nn.Module, plan: DetectorPlan, stage: Stage) -> None:
        self.model = model
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer: torch.optim.Optimizer
        if plan.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(parameters, lr=stage.learning_rate, weight_decay=1e-4)
        else:
            self.optimizer = torch.optim.SGD(
                parameters, lr=stage.learning_rate, momentum=0.9, weight_decay=1e-4
            )

    def __call__(self, images: list[torch.Tensor], targets: list[dict[str, torch.Tensor]]) -> float:
        """The loss; reading it waits for the device, as the reference's log does."""
        losses: torch.Tensor = sum(self.model(images, targets).values())
        value = float(losses.detach())
        self.optimizer.zero_grad()
        losses.backward()
        self.optimizer.step()
        return value


def stopwatch(device: torch.device, *, cpu_time: bool) -> Callable[[], float]:
    """Seconds: of this process's CPU, or of the wall once the device has finished what it was given."""
    if cpu_time and device.type == "cpu":
        return time.process_time

    def wall() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return wall
