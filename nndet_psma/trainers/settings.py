"""``trainer_cfg`` of the configuration: what changes a run without changing the plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.staged_plan import StagedPlan
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files
from nndet_psma.core.schema import SchemaError, from_plain, to_plain

MACHINE_KEYS = {
    "num_workers": "a batch depends on its number alone",
    "save_every": "a checkpoint changes nothing",
    "log_every": "nor does a row of metrics",
    "channels_last": "changes results by rounding at most",
    "compile": "changes results by rounding at most",
    "validate_every": "counts only where the best weights are selected",
    "pictures_every": "random numbers are put back after a picture",
    "trackers": "are only told",
}
"""Keys that may differ between an interrupted run and the one that goes on, and why. Every other key counts."""
_VALIDATIONS = 10


@dataclass(frozen=True)
class TrainerSettings:
    """Keys of ``trainer_cfg``; None keeps the plan's value.

    Attributes:
        iterations: steps of every stage (milestones and warm-up shrink in proportion).
        learning_rate: peak rate of every stage.
        batch_size: slices per step over all processes.
        num_workers: loader processes of each training process; None takes its share of the cores less one, at most 8.
            More than there are cores are lowered to the cores, with a warning.
        precision: "no" (fp32), "fp16" or "bf16": mixed precision, on a GPU.
        save_every: steps between checkpoints.
        log_every: steps between rows of metrics.csv.
        clip_norm: gradient norm limit; 0 does not clip.
        sgd_momentum: momentum of SGD.
        weight_decay: weight decay of SGD and AdamW.
        ema_decay: decay of an average of the weights, in (0, 1), such as 0.999; the average is what is written and
            predicted with. None keeps the last step's weights.
        select: "last" keeps the last step's weights, as the paper; "best" those with the best slice-wise average
            precision on the validation patients, which makes later scores on these patients optimistic.
        validate_every: steps between validations; None: a tenth of the stage where ``select`` is "best", else never.
            With a number, best/ is kept even where "last" is selected.
        start_weights: weights of a detector (a model.safetensors of an earlier training) that stages start from which
            would start from ``detector.weights``.
        channels_last: memory order of convolutions; None: on a GPU.
        compile: compile the backbone with torch.compile.
        pictures_every: steps between pictures of a batch; None: ten per stage, 0: none.
        trackers: of tensorboard, mlflow, wandb.
        seed: None takes the plan's.
    """

    iterations: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    precision: str = "no"
    save_every: int = 100
    log_every: int = 10
    clip_norm: float | None = None
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    ema_decay: float | None = None
    select: Literal["last", "best"] = "last"
    validate_every: int | None = None
    start_weights: str | None = None
    channels_last: bool | None = None
    compile: bool = False
    pictures_every: int | None = None
    trackers: list[str] = field(default_factory=list)
    seed: int | None = None

    def __post_init__(self) -> None:
        least = {"iterations": 0, "batch_size": 1, "num_workers": 0, "validate_every": 1, "pictures_every": 0}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ValueError(f"{name} is too small: {value}")
        if min(self.save_every, self.log_every) < 1:
            raise ValueError("save_every and log_every must be at least 1")
        if self.precision not in ("no", "fp16", "bf16"):
            raise ValueError(f"precision must be no, fp16 or bf16, found {self.precision}")
        if self.select not in ("last", "best"):
            raise ValueError(f"select must be last or best, found {self.select}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, found {self.ema_decay}")
        if self.clip_norm is not None and self.clip_norm < 0:
            raise ValueError(f"clip_norm must not be negative (0 is off), found {self.clip_norm}")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError("learning_rate must be above 0")

    @classmethod
    def parse(cls, content: dict[str, Any]) -> TrainerSettings:
        """From the configuration's ``trainer_cfg``; UserError names the key that is wrong."""
        try:
            return from_plain(cls, content, "trainer_cfg")
        except (SchemaError, ValueError) as error:
            raise UserError(
                f"configuration: {error}", remedy="nndet_psma config prints every key with its default"
            ) from None

    def validation_steps(self, iterations: int) -> int | None:
        """Steps between validations of a stage; None for no validation."""
        if self.validate_every is None and self.select == "best":
            return max(1, iterations // _VALIDATIONS)
        return self.validate_every

    def result_keys(self) -> dict[str, Any]:
        """What changes weights, as plain values; keys at their defaults are left out.

        So a key that a later release adds does not make trained models seem to belong to another configuration.

        Raises:
            UserError: the file of ``start_weights`` does not exist.
        """
        normal, free = to_plain(TrainerSettings()), set(MACHINE_KEYS)
        if self.select == "best":
            free.remove("validate_every")
        kept = {k: v for k, v in to_plain(self).items() if k not in free and v != normal[k]}
        if self.start_weights is not None:  # what the file holds counts, not where it lies
            kept["start_weights"] = _file_hash(self.start_weights)
        return kept


def _file_hash(file: str) -> str:
    if not Path(file).is_file():
        raise UserError("weights file does not exist", file=file, remedy="Correct trainer_cfg.start_weights")
    return hash_files([Path(file)])


def adjusted_stage(stage: Stage, settings: TrainerSettings) -> Stage:
    """The stage with the settings' iterations and learning rate."""
    iterations = stage.iterations if settings.iterations is None else settings.iterations
    share = iterations / stage.iterations if stage.iterations else 0.0
    return replace(
        stage,
        iterations=iterations,
        learning_rate=stage.learning_rate if settings.learning_rate is None else settings.learning_rate,
        milestones=[round(m * share) for m in stage.milestones],
        warmup=round(stage.warmup * share),
    )


def stages_for(plan: StagedPlan, voter: str | None) -> list[Stage]:
    """Stages to train in order: all, or one and its ancestors; UserError lists the stages on a miss."""
    if voter is None:
        return plan.stages
    wanted: list[Stage] = []
    name: str | None = voter
    while name is not None:
        try:
            stage = plan.stage(name)
        except ValueError as error:
            raise UserError(str(error), remedy="Correct the name of the stage") from None
        wanted.insert(0, stage)
        name = stage.start_from
    return wanted
