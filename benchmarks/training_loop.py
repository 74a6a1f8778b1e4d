"""What the training loop costs over a bare torchvision training step on the same tensors.

    python benchmarks/training_loop.py [--device cuda] [--json FILE]

Both sides train copies of the planned detector on the same ready batches. Before the loop gets its next batch, the bare
step (forward, backward, optimiser; torchvision's own samplers of anchors and boxes) is taken on it, so every pair of
steps sees the machine in the same state. On CPU the process's CPU time counts, which other work does not lengthen; on
a GPU the wall, with the device waited for. What the loop does between two batches is its step: schedule, losses,
clipping, checks, metrics. The checkpoint at the end is shown apart, and as its share when there is one every 100 steps.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import table, write_result
from torch.utils.data import Dataset
from training_place import BareStep, Place, open_place, parser_of, stopwatch

_WARM_UP = 3
_READY = 6
_SAVE_EVERY = 100


class PairedBatches(Dataset[Any]):
    """Ready batches for the loop; asked for one, it first takes a bare step on it and notes both times."""

    def __init__(self, place: Place, steps: int, bare: BareStep) -> None:
        self.ready, self.steps, self.bare = place.ready(_READY), steps, bare
        self.clock = stopwatch(place.device, cpu_time=True)
        self.loop_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._handed: float | None = None

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        self.end_step()
        batch = self.ready[step % _READY]
        start = self.clock()
        self.bare(list(batch["images"]), batch["targets"])
        self.bare_seconds.append(self.clock() - start)
        self._handed = self.clock()
        return batch

    def end_step(self) -> None:
        """Note the step that the loop has just made."""
        if self._handed is not None:
            self.loop_seconds.append(self.clock() - self._handed)


def main() -> int:
    """Train both sides and print the table."""
    args = parser_of(__doc__, steps=40).parse_args()
    runs = []
    with open_place(args) as place:
        caption = place.describe()
        for number in range(args.runs):
            print(f"run {number + 1} of {args.runs}", file=sys.stderr)
            runs.append(_run(place, args.steps))
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    print(caption)
    print(table(["", "bare", "loop", "ratio", "one checkpoint, s", "ratio with checkpoints"], [[
        "s per step", medians["bare"], medians["loop"], f"{medians['ratio']:.3f}", medians["checkpoint"],
        f"{medians['ratio_with_checkpoints']:.3f}",
    ]]))  # fmt: skip
    write_result(args.json, {"setting": caption, "runs": runs, "median": medians})
    return 0


def _run(place: Place, steps: int) -> dict[str, float]:
    from accelerate import Accelerator

    from nndet_psma.trainers.loop import LoopSettings, train_loop
    from nndet_psma.trainers.settings import TrainerSettings

    model = place.model()
    pairs = PairedBatches(place, steps, BareStep(place.torchvision_model(), place.plan, place.stage))
    stage = _stage(place, steps)
    with TemporaryDirectory() as folder:
        settings = LoopSettings(
            folder=Path(folder), made_from="benchmark", seed=0,
            trainer=TrainerSettings(num_workers=0, save_every=steps + 1, channels_last=False),
            optimizer=place.plan.optimizer,
        )  # fmt: skip
        accelerator = Accelerator(cpu=place.device.type == "cpu")
        train_loop(model, _losses, pairs, stage, settings, accelerator)
        pairs.end_step()
    loop, bare = pairs.loop_seconds[_WARM_UP:-1], pairs.bare_seconds[_WARM_UP:-1]
    ratio = statistics.median(ours / theirs for ours, theirs in zip(loop, bare, strict=True))
    checkpoint = max(0.0, pairs.loop_seconds[-1] - statistics.median(loop))
    share = checkpoint / _SAVE_EVERY / statistics.median(bare)
    return {
        "bare": statistics.median(bare),
        "loop": statistics.median(loop),
        "ratio": ratio,
        "checkpoint": checkpoint,
        "ratio_with_checkpoints": ratio + share,
    }


def _stage(place: Place, steps: int) -> Any:
    from nndet_psma.trainers.settings import TrainerSettings, adjusted_stage

    return adjusted_stage(place.stage, TrainerSettings(iterations=steps))


def _losses(model: Any, batch: Any) -> Any:
    return model(list(batch["images"]), batch["targets"])


if __name__ == "__main__":
    sys.exit(main())
