"""What training has cost, from the files it left: to stand beside the planner's estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nndet_psma.trainers.cost.cost import hours_text
from nndet_psma.trainers.metrics_log import METRICS_FILE, read_metrics
from nndet_psma.trainers.watch.memory_check import MEMORY_FILE, MemoryCheck

_FINISHED = "finished"  # as trainers.maskrcnn25d leaves it


@dataclass(frozen=True)
class StageCost:
    """What one stage of one fold has cost.

    Attributes:
        fold: name of the fold's folder.
        stage: name.
        steps: that were made and logged.
        hours: of these steps, from ``metrics.csv``; validation, checkpoints and lost steps are not counted.
        memory_gb: of ``memory.json`` (GPU, without CUDA's context), else the most in ``metrics.csv``.
        finished: whether the stage came to its end.
    """

    fold: str
    stage: str
    steps: int
    hours: float
    memory_gb: float
    finished: bool

    @property
    def seconds_per_step(self) -> float:
        """Mean over the logged steps."""
        return self.hours * 3600 / self.steps if self.steps else 0.0


@dataclass(frozen=True)
class TrueCost:
    """What is known of the stages of some folds; ``stages`` has one entry for each folder with metrics."""

    stages: tuple[StageCost, ...]

    @property
    def hours_per_stage(self) -> dict[str, float]:
        """Mean hours of a fold, of stages that are finished."""
        return {name: sum(hours) / len(hours) for name, hours in self._finished().items()}

    @property
    def hours_total(self) -> float:
        """All hours, of unfinished stages, too."""
        return sum(stage.hours for stage in self.stages)

    @property
    def memory_gb(self) -> float:
        """The most of any stage; 0 when nothing is known."""
        return max((stage.memory_gb for stage in self.stages), default=0.0)

    def _finished(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for stage in self.stages:
            if stage.finished:
                found.setdefault(stage.stage, []).append(stage.hours)
        return found


def true_cost(fold_folders: Sequence[Path]) -> TrueCost:
    """Read ``metrics.csv`` and ``memory.json`` of every stage below these folders (``det_models/.../foldN``)."""
    costs = []
    for folder in fold_folders:
        for file in sorted(folder.glob(f"*/{METRICS_FILE}")):
            costs.append(_stage_cost(folder.name, file.parent))
    return TrueCost(tuple(costs))


def _stage_cost(fold: str, folder: Path) -> StageCost:
    rows = read_metrics(folder / METRICS_FILE)
    seconds = memory = before = 0.0
    for row in rows:
        seconds += (row["step"] - before) * row.get("seconds_per_step", 0.0)
        memory, before = max(memory, row.get("memory_gb", 0.0)), row["step"]
    if (folder / MEMORY_FILE).is_file():
        memory = MemoryCheck.read(folder / MEMORY_FILE).measured_gb
    return StageCost(fold, folder.name, int(before), seconds / 3600, memory, (folder / _FINISHED).is_file())


class CostRow(NamedTuple):
    """A row of ``planners.cost.cost_rows`` with what was measured; "" where nothing is known."""

    key: str
    value: str
    measured: str
    rule: str
    evidence: str


def compared_rows(
    estimate: Sequence[tuple[str, str, str, str]], cost: TrueCost, trainings: int
) -> list[CostRow]:
    """The estimate's rows (key, value, rule, evidence) with a column of measured figures.

    Args:
        estimate: of the plan's facts.
        cost: measured.
        trainings: stages of all folds.
    """
    measured = _measured(cost, trainings)
    return [
        CostRow(key, value, measured.get(key, ""), rule, evidence) for key, value, rule, evidence in estimate
    ]


def _measured(cost: TrueCost, whole: int) -> dict[str, str]:
    texts = {}
    for name, hours in cost.hours_per_stage.items():
        done = [stage for stage in cost.stages if stage.stage == name and stage.finished]
        steps = sum(stage.steps for stage in done)
        seconds = sum(stage.hours for stage in done) * 3600 / max(1, steps)
        # how many steps were made: a short training costs less than the plan's
        texts[f"cost.{name}"] = (
            f"{hours_text(hours)} per fold for {steps / len(done):.0f} steps, {seconds:.3g} s per step"
        )
    if cost.stages:
        finished = sum(stage.finished for stage in cost.stages)
        texts["cost.total"] = f"{hours_text(cost.hours_total)}, {finished} of {whole} stages finished"
    if cost.memory_gb:
        texts["cost.memory"] = f"{cost.memory_gb:.1f} GB"
    return texts
