"""Who watches a stage: progress bar, figure, pictures, trackers, GPU memory."""

from __future__ import annotations

from nndet_psma.trainers.cost.stage_load import StageLoad
from nndet_psma.trainers.observer import Observer
from nndet_psma.trainers.registry import SP
from nndet_psma.trainers.stage_system import StageRun
from nndet_psma.trainers.watch.console import ConsoleProgress
from nndet_psma.trainers.watch.memory_check import MemoryWatch
from nndet_psma.trainers.watch.progress_plot import ProgressPlot
from nndet_psma.trainers.watch.trackers import TrackerLog, tracked_config


def stage_observers(run: StageRun[SP], load: StageLoad | None, pictures: Observer | None) -> list[Observer]:
    """Observers of a stage in the order they are told; main process only.

    Args:
        run: the stage.
        load: what it should ask of the machine; None where nothing is known.
        pictures: who draws its batches; None for none.
    """
    job, stage, settings = run.job, run.stage, run.job.settings
    title = f"fold {job.fold} {stage.name}"
    observers: list[Observer] = [ConsoleProgress(title, stage.iterations), ProgressPlot(run.folder, title)]
    if load is not None:
        device = run.accelerator.device
        observers.insert(0, MemoryWatch(load, stage, run.folder, run.images, run.training, device))
    if pictures is not None:
        observers.append(pictures)
    if settings.trackers:
        config = tracked_config(job.plan, stage, settings)
        name = f"fold{job.fold} {stage.name}"
        observers.append(TrackerLog(run.accelerator, job.plan.task, name, config, settings.log_every))
    return observers
