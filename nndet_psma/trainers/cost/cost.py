"""What training a plan will cost, before anything is trained: hours and memory, from FLOPs and assumed speeds.

FLOPs are exact; what a device makes of them is an assumption, named in every estimate. Training steps only: mining of
hard negatives, validation, checkpoints and waiting for data come on top (a few per cent where the loader keeps up).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nndet_psma.artifacts.detector_plan import DetectorPlan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.planners.describe import DecisionRow
from nndet_psma.planners.training_memory import Training
from nndet_psma.trainers.cost.devices import Device, gpu_for
from nndet_psma.trainers.cost.stage_load import StageLoads

_SHARED_BATCH = 0.95  # what each of several GPUs reaches; eight reach 7.7 times one in NVIDIA's figures
_RULE = "planners.cost: steps x images x FLOPs / assumed speed"


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a whole task, estimated.

    Attributes:
        hours_per_stage: wall clock of one fold on the planned machine.
        hours_total: of all stages of all folds, one after the other.
        memory_gb: peak of one GPU (CUDA's context included), or of the CPU process without Python and its libraries.
        devices: GPUs that work at once; 1 on the CPU.
        folds: of the plan.
        seconds_per_step: by stage.
        assumption: the assumed speed, in words.
    """

    hours_per_stage: dict[str, float]
    hours_total: float
    memory_gb: float
    devices: int
    folds: int
    seconds_per_step: dict[str, float]
    assumption: str

    @property
    def device_hours(self) -> float:
        """GPU hours (or hours of the whole CPU) that the task takes."""
        return self.hours_total * self.devices


def estimate_cost(
    plan: DetectorPlan, loads: StageLoads, *, precision: str = "no", cores: int | None = None
) -> CostEstimate:
    """Cost of training every stage of every fold, one after the other, on the planned machine.

    Args:
        plan: steps, batch and target.
        loads: of the stages, counted by the plan's system.
        precision: as in ``trainer_cfg``.
        cores: of the CPU, when planned for one; None takes those of this machine.

    Raises:
        UserError: nothing is known of the planned network.
    """
    cpu = plan.target.device == "cpu"
    device = next(iter(loads.values())).cpu if cpu else gpu_for(plan.target, precision)
    cores = (cores or os.cpu_count() or 1) if cpu else 1
    gpus = 1 if cpu else plan.target.gpus
    images = -(-plan.batch_size // gpus)
    seconds = {name: load.step_seconds(images, device, cores) for name, load in loads.items()}
    if gpus > 1:
        seconds = {name: value / _SHARED_BATCH for name, value in seconds.items()}
    hours = {stage.name: stage.iterations * seconds[stage.name] / 3600 for stage in plan.stages}
    training = Training(plan.optimizer, precision, gpus=gpus)
    memory = max(load.memory(images, training, device=plan.target.device).total for load in loads.values())
    total, folds = sum(hours.values()) * len(plan.folds), len(plan.folds)
    return CostEstimate(hours, total, memory, gpus, folds, seconds, _assumption(device, cores, gpus, cpu))


def _assumption(device: Device, cores: int, gpus: int, cpu: bool) -> str:
    count = f"{cores} cores" if cpu else f"{gpus} GPUs" if gpus > 1 else "1 GPU"
    speed = f"{1000 * device.tflops:.0f} GFLOPS" if cpu else f"{device.tflops:g} TFLOPS"
    taken = f"each taken for {device.name}: {speed} in effect ({device.source})"
    return f"estimate for {count}, {taken}; factor 2 either way"


def cost_rows(
    plan: DetectorPlan, loads: StageLoads, *, precision: str = "no", cores: int | None = None
) -> list[DecisionRow]:
    """Rows for ``plan show``: hours of each stage, of the whole task, memory; the last tells what is assumed.

    A plan of which nothing is known (a backbone outside the table) gives one row that says so. Arguments are those of
    :func:`estimate_cost`.
    """
    try:
        cost = estimate_cost(plan, loads, precision=precision, cores=cores)
    except UserError as error:
        return [DecisionRow("cost", "unknown", _RULE, str(error))]
    rows = [_stage_row(plan, stage, loads, cost) for stage in plan.stages]
    count = f"{cost.folds} folds x {len(plan.stages)} stages one after the other"
    if plan.target.device == "gpu":
        total = f"{hours_text(cost.device_hours)} of GPU time"
        total += f", {hours_text(cost.hours_total)} on {cost.devices} GPUs" if cost.devices > 1 else ""
    else:
        total = hours_text(cost.hours_total)
    rows.append(DecisionRow("cost.total", total, _RULE, f"{count}; {cost.assumption}"))
    where = "peak of one GPU" if plan.target.device == "gpu" else "without Python and its libraries (0.5 GB)"
    rows.append(DecisionRow("cost.memory", f"{cost.memory_gb:.1f} GB", "planners.memory", where))
    return rows


def _stage_row(plan: DetectorPlan, stage: Stage, loads: StageLoads, cost: CostEstimate) -> DecisionRow:
    load, seconds = loads[stage.name], cost.seconds_per_step[stage.name]
    work = f"{stage.iterations} steps x {plan.batch_size} {load.unit} x {_flops_text(load.flops())}"
    evidence = f"{work}, {seconds:.3g} s per step"
    return DecisionRow(
        f"cost.{stage.name}", f"{hours_text(cost.hours_per_stage[stage.name])} per fold", _RULE, evidence
    )


def _flops_text(flops: float) -> str:
    return f"{flops / 1e12:.3g} TFLOP" if flops >= 1e12 else f"{flops / 1e9:.3g} GFLOP"


def hours_text(hours: float) -> str:
    """Hours with two figures; minutes below one hour."""
    if hours < 0.995:
        return f"{60 * hours:.1f} min" if hours < 1 / 6 else f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 9.95 else f"{hours:.0f} h"
