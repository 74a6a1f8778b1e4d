"""How many jobs run at once on this machine, and on which GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.core.errors import UserError
from nndet_psma.core.logs import LOGGER
from nndet_psma.planners.training_memory import USABLE_SHARE, Training
from nndet_psma.trainers.cost.stage_load import StageLoads
from nndet_psma.trainers.settings import TrainerSettings

_GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd")
_MEMORY_OF_GPUS = (
    "import json, torch; print(json.dumps([torch.cuda.get_device_properties(i).total_memory / 1e9 "
    "for i in range(torch.cuda.device_count())]))"
)


@dataclass(frozen=True)
class Gpu:
    """One visible GPU; ``name`` is what CUDA_VISIBLE_DEVICES calls it, ``memory_gb`` in 10^9 bytes."""

    name: str
    memory_gb: float


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that PyTorch would see; asked in another process, which takes its CUDA context away with it."""
    if sys.platform == "linux" and not any(list(Path("/dev").glob(name)) for name in _GPU_DEVICES):
        return []
    asked = subprocess.run(
        [sys.executable, "-c", _MEMORY_OF_GPUS], capture_output=True, text=True, check=False, env=environment
    )
    memory = json.loads(asked.stdout) if asked.returncode == 0 else []
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in listed.split(",")] if listed else [str(i) for i in range(len(memory))]
    return [Gpu(name, size) for name, size in zip(names, memory, strict=False)]


def jobs_per_gpu(plan: DetectorPlan, loads: StageLoads, settings: TrainerSettings, memory_gb: float) -> int:
    """How many stages train side by side on a GPU of ``memory_gb`` by the planner's estimate; at least 1.

    The largest stage of the plan counts (``loads`` are those of its stages), the CUDA context of every process
    included. 1 where the planner has no numbers for the network.
    """
    training = Training(plan.optimizer, settings.precision, settings.ema_decay is not None)
    images = settings.batch_size or plan.batch_size
    try:
        largest = max(load.memory(images, training).total for load in loads.values())
    except UserError as error:
        LOGGER.warning("one job per GPU: %s", error)
        return 1
    return max(1, int(USABLE_SHARE * memory_gb / largest))


def job_slots(gpus: Sequence[Gpu], jobs: int | None, per_gpu: Sequence[int]) -> list[str | None]:
    """One entry per job that may run at once: the GPU it gets, None for the CPU.

    GPUs are filled in turn, so that few jobs spread over all of them.

    Args:
        gpus: visible ones.
        jobs: most jobs at once; None for as many as the GPUs hold, and for one on the CPU.
        per_gpu: most jobs of each GPU.
    """
    if not gpus:
        return [None] * (jobs or 1)
    rounds = range(max(per_gpu))
    slots: list[str | None] = [
        gpu.name for turn in rounds for gpu, most in zip(gpus, per_gpu, strict=True) if turn < most
    ]
    return slots if jobs is None else slots[:jobs]
