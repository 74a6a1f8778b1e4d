"""Does the loader keep the device busy? Step time with real data against step time on ready tensors.

    python benchmarks/training_data.py [--device cuda] [--json FILE]

The planned detector is trained by bare steps, in turn for a block of steps with batches from the loader (the planned
workers, the trainer's own way to the device) and for a block on batches that lie there already. The first steps of a
block are not counted: they live on what the loader had prepared meanwhile. Wall times, since workers and training run
side by side.

On a machine with other work wall times say little. "CPU ratio" is the CPU time of a step with real data, that of its
workers included, over the CPU time of a step on ready tensors: what real data cost where every core is busy and nobody
waits; "waiting" is the share of a step's wall time that training waits for its batch.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from measure import table, write_result
from training_place import BareStep, Place, open_place, parser_of, stopwatch

from nndet_psma.trainers.loading import Share, load_batches

_READY = 6
_PREFETCH = 4  # batches that each worker holds ready


def main() -> int:
    """Train in blocks and print the table."""
    parser = parser_of(__doc__, steps=10)
    parser.add_argument("--blocks", type=int, default=4, help="pairs of blocks in a run")
    args = parser.parse_args()
    runs = []
    with open_place(args) as place:
        caption = place.describe()
        for number in range(args.runs):
            print(f"run {number + 1} of {args.runs}", file=sys.stderr)
            runs.append(_run(place, args.steps, args.blocks))
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    print(caption)
    header = ["", "ready", "from the loader", "ratio", "waiting", "workers, CPU s", "CPU ratio"]
    shares = [f"{medians[name]:.3f}" for name in ("ratio", "waiting", "loader_cpu", "cpu_ratio")]
    print(table(header, [["s per step", medians["ready"], medians["real"], *shares]]))
    write_result(args.json, {"setting": caption, "runs": runs, "median": medians})
    return 0


def _run(place: Place, steps: int, blocks: int) -> dict[str, float]:
    skipped = _PREFETCH * place.workers + 1
    total = blocks * (steps + skipped)
    step = BareStep(place.torchvision_model(), place.plan, place.stage)
    ready = place.ready(_READY)
    before = _children()
    source = load_batches(Share(place.batches(), 0, total), place.workers, place.device)
    _time(place, step, iter(ready[:2]), 2)
    blocks_of_both = []
    for _ in range(blocks):
        real = _time(place, step, source, steps + skipped)[skipped:]
        prepared = _time(place, step, iter((ready * total)[: steps + 2]), steps + 2)[2:]
        blocks_of_both.append((_mean(real), _mean(prepared)))
    for _ in source:  # let the workers end, so that their time is known
        pass
    workers = (_children() - before) / total
    middle = statistics.median
    return {
        "real": middle(real.wall for real, _ in blocks_of_both),
        "ready": middle(prepared.wall for _, prepared in blocks_of_both),
        "ratio": middle(real.wall / prepared.wall for real, prepared in blocks_of_both),
        "waiting": middle(real.waiting / real.wall for real, _ in blocks_of_both),
        "loader_cpu": workers,
        "cpu_ratio": middle((real.cpu + workers) / prepared.cpu for real, prepared in blocks_of_both),
    }


class StepTime(NamedTuple):
    """Seconds of a step: wall, the part of it that the batch was waited for, CPU of the training process."""

    wall: float
    waiting: float
    cpu: float


def _time(place: Place, step: BareStep, source: Iterator[Any], count: int) -> list[StepTime]:
    clock, seconds = stopwatch(place.device, cpu_time=False), []
    for _ in range(count):
        start, cpu = clock(), time.process_time()
        batch = next(source)
        waiting = time.perf_counter() - start
        step(list(batch["images"]), batch["targets"])
        seconds.append(StepTime(clock() - start, waiting, time.process_time() - cpu))
    return seconds


def _mean(steps: list[StepTime]) -> StepTime:
    return StepTime(*(statistics.mean(values) for values in zip(*steps, strict=True)))


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
