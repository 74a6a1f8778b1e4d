"""The machine that is planned for."""

from __future__ import annotations

import sys
from pathlib import Path

from nndet_psma.artifacts.plan import Target
from nndet_psma.planners.options import PlannerOptions

_DEFAULT_GPU_GB = 24.0
_GPU_DEVICES = ("nv*", "kfd", "dxg")  # NVIDIA's, AMD's, and the one of Windows' Linux


def choose_target(options: PlannerOptions) -> Target:
    """The machine to plan for: as told, else the visible GPUs, else the CPU. No GPU is needed to plan for one."""
    if options.target == "cpu":
        return Target("cpu", 0.0)
    visible = _visible_gpus_gb()
    if options.target == "auto" and not visible and options.gpu_memory_gb is None:
        return Target("cpu", 0.0)
    memory = options.gpu_memory_gb or min(visible, default=_DEFAULT_GPU_GB)
    # a stage trains on one process so far: more GPUs are planned for only when asked
    return Target("gpu", memory, options.num_gpus or 1)


def _visible_gpus_gb() -> list[float]:
    if sys.platform == "linux" and not any(list(Path("/dev").glob(name)) for name in _GPU_DEVICES):
        return []  # importing PyTorch to learn this takes longer than all the rest of planning
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_properties(i).total_memory / 1e9 for i in range(count)]
