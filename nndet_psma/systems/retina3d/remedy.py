"""What to lower when patches do not fit the GPU."""

from __future__ import annotations

import math

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.planners.training_memory import Training
from nndet_psma.systems.retina3d.cost import stage_load
from nndet_psma.systems.retina3d.plan import Retina3DPlan


def what_to_lower(
    plan: Retina3DPlan,
    stage: Stage,
    batch_size: int,
    training: Training,
    memory_gb: float,
    held_gb: float = 0.0,
) -> str:
    """A remedy for a full GPU: the batch that fits by the planner's estimate, or else a plan for this GPU.

    Args:
        plan: of the stage.
        stage: that did not fit.
        batch_size: patches per step of one GPU.
        training: what else takes memory; its ``gpus`` share a batch.
        memory_gb: memory of the GPU.
        held_gb: what other processes hold of it.
    """
    load, room = stage_load(plan, stage), memory_gb - held_gb
    fitting = [n for n in range(1, batch_size) if load.memory(n, training).total <= room]
    if fitting:
        gpus = training.gpus
        return f"Lower trainer_cfg.batch_size from {batch_size * gpus} to {fitting[-1] * gpus}"
    sides = " x ".join(str(side) for side in load.input_size)
    return (
        f"Not even one patch of {sides} voxels fits the {room:.1f} GB that are free: plan for this GPU with "
        f"nndet_prep -o plan_cfg.gpu_memory_gb={max(1, math.floor(room))} prep.overwrite=true"
    )
