"""What to lower when slices do not fit the GPU."""

from __future__ import annotations

import math

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.psma25d.cost import stage_load
from nndet_psma.systems.psma25d.memory import max_images_for
from nndet_psma.systems.psma25d.plan import PSMA25DPlan


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
        f"plan for this GPU with nndet_prep -o plan_cfg.gpu_memory_gb={math.floor(memory_gb)} prep.overwrite=true"
    )
