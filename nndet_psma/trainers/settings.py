"""``trainer_cfg`` of the configuration: what changes a run without changing the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nndet_psma.artifacts.plan import Plan, Stage
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain


@dataclass(frozen=True)
class TrainerSettings:
    """Keys of ``trainer_cfg``; None keeps the plan's value.

    Attributes:
        iterations: steps of every stage (milestones and warm-up shrink in proportion).
        learning_rate: peak rate of every stage.
        batch_size: slices per step.
        num_workers: loader processes; None takes one less than the cores, at most 8.
        precision: "no", "fp16" or "bf16" (accelerate's mixed precision).
        save_every: steps between checkpoints.
        log_every: steps between rows of metrics.csv.
        clip_norm: gradient norm limit.
        sgd_momentum: momentum of SGD.
        weight_decay: weight decay of SGD.
        seed: None takes the plan's.
    """

    iterations: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    precision: str = "no"
    save_every: int = 100
    log_every: int = 10
    clip_norm: float = 10.0
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "num_workers"):
            value = getattr(self, name)
            if value is not None and value < (1 if name == "batch_size" else 0):
                raise ValueError(f"{name} is too small: {value}")
        if min(self.save_every, self.log_every) < 1:
            raise ValueError("save_every and log_every must be at least 1")
        if self.precision not in ("no", "fp16", "bf16"):
            raise ValueError(f"precision must be no, fp16 or bf16, found {self.precision}")

    @classmethod
    def parse(cls, content: dict[str, Any]) -> TrainerSettings:
        """From the configuration's ``trainer_cfg``; UserError names the key that is wrong."""
        try:
            return from_plain(cls, content, "trainer_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(f"configuration: {error}") from None


def adjusted_stage(stage: Stage, settings: TrainerSettings) -> Stage:
    """The stage with the settings' iterations and learning rate."""
    iterations = stage.iterations if settings.iterations is None else settings.iterations
    share = iterations / stage.iterations if stage.iterations else 0.0
    return Stage(
        stage.name,
        stage.region,
        stage.windows,
        stage.start_from,
        stage.voter,
        iterations,
        stage.learning_rate if settings.learning_rate is None else settings.learning_rate,
        [round(m * share) for m in stage.milestones],
        round(stage.warmup * share),
    )


def stages_for(plan: Plan, voter: str | None) -> list[Stage]:
    """Stages to train in order: all, or one and its ancestors; UserError lists the stages on a miss."""
    if voter is None:
        return plan.stages
    wanted: list[Stage] = []
    name: str | None = voter
    while name is not None:
        try:
            stage = plan.stage(name)
        except ValueError as error:
            raise UserError(str(error)) from None
        wanted.insert(0, stage)
        name = stage.start_from
    return wanted
