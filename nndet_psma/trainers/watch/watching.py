"""Who watches a stage: progress bar, figure, pictures, trackers, GPU memory."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.planners.training_memory import Training
from nndet_psma.trainers.observer import Observer
from nndet_psma.trainers.registry import FoldJob
from nndet_psma.trainers.watch.console import ConsoleProgress
from nndet_psma.trainers.watch.memory_check import MemoryWatch
from nndet_psma.trainers.watch.pictures import BatchPictures, PatchPictures, Shade, centre_channel
from nndet_psma.trainers.watch.progress_plot import ProgressPlot
from nndet_psma.trainers.watch.trackers import TrackerLog, tracked_config


def stage_observers(
    job: FoldJob, stage: Stage, accelerator: Accelerator, images: int, training: Training
) -> list[Observer]:
    """Observers of a stage in the order they are told; ``images`` per step of one process. Main process only.

    They watch slices or patches, as the plan has a detector of one or the other.
    """
    folder, settings = job.folder / stage.name, job.settings
    title = f"fold {job.fold} {stage.name}"
    observers: list[Observer] = [
        MemoryWatch(job.plan, stage, folder, images, training, accelerator.device),
        ConsoleProgress(title, stage.iterations),
        ProgressPlot(folder, title),
        _pictures(job, folder),
    ]
    if settings.trackers:
        config = tracked_config(job.plan, stage, settings)
        run = f"fold{job.fold} {stage.name}"
        observers.append(TrackerLog(accelerator, job.plan.task, run, config, settings.log_every))
    return observers


def _pictures(job: FoldJob, folder: Path) -> BatchPictures:
    every, plan = job.settings.pictures_every, job.plan
    if plan.detector is None:
        patches = plan.detector3d
        return PatchPictures(folder, every, 0, Shade(patches.input_mean, patches.input_std))
    shade = Shade(plan.detector.input_mean, plan.detector.input_std)
    return BatchPictures(folder, every, centre_channel(plan.neighbours), shade)
