"""Peak memory of training against the planner's estimate (``nndet_psma/systems/psma25d/planning/memory.py``).

    python benchmarks/training_memory.py [--device cuda] [--json FILE]

Each setting runs in a process of its own: a few steps of the planned detector with random weights on random slices and
boxes. On a GPU the peak is what PyTorch's allocator reserves, against the estimate without CUDA's context. On CPU it is
the kernel's high-water mark of the process less what it held before the detector was built (after a tiny detector has
taken a step, so that libraries and their buffers are there already). It is taken twice: with glibc told to give every
larger block back at once (``MALLOC_MMAP_THRESHOLD_``), which shows the memory in use and is what the estimate is
about, and with glibc as it is, whose heap keeps holes between blocks. Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from measure import table, write_result

# backbone, norm, slices, side of a slice in pixels, boxes sampled per slice
SETTINGS = {
    "cpu": [("resnet18", "batch", 4, 320, 32), ("resnet18", "frozen", 4, 480, 32), ("resnet50", "frozen", 2, 448, 64)],
    "cuda": [
        ("resnet50", "frozen", 8, 800, 512),
        ("resnext50_32x4d", "frozen", 16, 800, 512),
        ("resnext101_32x8d", "frozen", 16, 800, 512),
    ],
}  # fmt: skip
_STEPS = 4
_COMPACT = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc raises it by itself unless it is set


def main() -> int:
    """Measure every setting and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=list(SETTINGS), default="cpu")
    parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="sgd")
    parser.add_argument("--precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_measure(args.device, json.loads(args.one), args.optimizer, args.precision)))
        return 0
    rows, results = [], []
    for setting in SETTINGS[args.device]:
        found = _in_own_process(args, setting, _COMPACT)
        holes = _in_own_process(args, setting, {}) if args.device == "cpu" else {"peak": float("nan")}
        results.append({"setting": setting, **found, "peak_with_holes": holes["peak"]})
        backbone, norm, count, side, boxes = setting
        name = f"{backbone}, {norm}, {count} x {side} x {side}, {boxes} boxes"
        ratio = f"{found['peak'] / found['estimate']:.3f}"
        rows.append([name, found["estimate"], found["peak"], ratio, holes["peak"]])
    print(table(["", "estimated GB", "measured GB", "ratio", "with glibc's holes, GB"], rows))
    options = {"device": args.device, "optimizer": args.optimizer, "precision": args.precision}
    write_result(args.json, {**options, "results": results})
    return 0


def _in_own_process(
    args: argparse.Namespace, setting: tuple[Any, ...], environment: dict[str, str]
) -> dict[str, float]:
    command = [sys.executable, __file__, "--device", args.device, "--optimizer", args.optimizer]
    command += ["--precision", args.precision, "--one", json.dumps(setting)]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(device: str, setting: list[Any], optimizer: str, precision: str) -> dict[str, float]:
    import torch
    from memory_model import detector, network_of

    from nndet_psma.planners.training_memory import Training
    from nndet_psma.systems.psma25d.planning.memory import estimate_memory

    backbone, norm, count, side, boxes = setting
    torch.set_num_threads(1)
    det = detector(backbone, norm, input_size=(side, side), roi_samples=boxes)
    tiny = replace(det, input_size=(64, 64), backbone="resnet18", fpn_channels=8, head_channels=8)
    _train(tiny, 1, device, optimizer, precision)
    before = _start_anew(device)
    _train(det, count, device, optimizer, precision)
    kind = "gpu" if device == "cuda" else "cpu"
    estimate = estimate_memory(
        network_of(det), side * side, count, Training(optimizer, precision), device=kind
    )
    return {"peak": _peak(device) - before, "estimate": estimate.total - estimate.context}


def _train(det: Any, count: int, device: str, optimizer: str, precision: str) -> None:
    import torch

    from nndet_psma.systems.psma25d.network import build_detector
    from nndet_psma.trainers.precision import Precision

    torch.manual_seed(0)
    place = torch.device(device)
    model = build_detector(det, 3, 1).to(place).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    build: Any = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer]
    steps = build(parameters, lr=1e-5, **({"momentum": 0.9} if optimizer == "sgd" else {}))
    numbers = Precision(precision, place)
    for _ in range(_STEPS):
        images = torch.rand(count, 3, *det.input_size, device=place)
        targets = [_target(det.input_size, place) for _ in range(count)]
        with numbers.autocast():
            losses = torch.stack(list(model(list(images), targets).values())).sum()
        numbers.step(losses, parameters, steps, 10.0)


def _target(size: tuple[int, int], device: Any) -> dict[str, Any]:
    import torch

    corner = torch.rand(3, 2, device=device) * torch.tensor([size[1] - 20, size[0] - 20], device=device)
    return {
        "boxes": torch.cat([corner, corner + 16], dim=1),
        "labels": torch.ones(3, dtype=torch.int64, device=device),
    }


def _start_anew(device: str) -> float:
    """Forget the peak so far; GB that are held and not of the training to come."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: proc(5)
    return _status("VmRSS")


def _peak(device: str) -> float:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_reserved() / 1e9
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError(f"/proc/self/status does not tell {name}")


if __name__ == "__main__":
    sys.exit(main())
