"""Trains the tiny task as a launcher's processes do: ``train_job.py DATA MODELS NORM``."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent))

from tiny_place import Workplace

import nndet_psma.trainers.stage_run as module
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.trainer import MaskRCNN25D
from nndet_psma.trainers.registry import FoldJob
from nndet_psma.trainers.settings import TrainerSettings
from nndet_psma.trainers.stopping import Stopped

SETTINGS = TrainerSettings(
    iterations=4, batch_size=3, num_workers=0, save_every=10, log_every=2, ema_decay=0.5, pictures_every=0
)


def job(place: Workplace, folder: Path, norm: str) -> FoldJob:
    """Three slices on two processes, so that their shares differ; SGD, which does not magnify rounding."""
    plan: PSMA25DPlan = place.plan
    detector = replace(plan.detector, norm=norm, weights="none", mask_branch=True)
    plan = replace(plan, detector=detector, optimizer="sgd")
    return FoldJob(plan, 0, place.store, folder, SETTINGS, voter=plan.voters[0].name)


def train(place: Workplace, folder: Path, norm: str, stop_after: int | None = None) -> None:
    """One process of a training; the second is told to stop after ``stop_after`` steps."""
    torch.set_num_threads(1)
    if stop_after is not None and os.environ["RANK"] == "1":
        module.train_loop = _stopping(module.train_loop, stop_after)
    try:
        MaskRCNN25D().train(job(place, folder, norm))
    except Stopped as stopped:
        sys.exit(stopped.exit_code)


def _stopping(train_loop, step):
    """The loop, with SIGTERM to this process in the midst of a step; observers live on the main process only."""
    calls = []

    def loop(model, losses, *rest):
        def counting(inner, batch):
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return losses(inner, batch)

        return train_loop(model, counting, *rest)

    return loop


if __name__ == "__main__":
    train(Workplace(Path(sys.argv[1]), Path(sys.argv[2])), Path(sys.argv[2]), sys.argv[3])
