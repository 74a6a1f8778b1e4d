"""The configuration of a command, typed: keys and groups follow nnDetection's; every default stands here or in a
system.

``plan_cfg`` and ``trainer_cfg`` are of the system's own types (:class:`nndet_psma.systems.system.System`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

O_co = TypeVar("O_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)


@dataclass(frozen=True)
class ExperimentConfig:
    """Which training is meant.

    Attributes:
        tag: appended to the name of the model folder.
        fold: to train; "all" trains every fold.
        voter: train one stage (and what it starts from) only.
        id: name of the model folder.
    """

    tag: str = ""
    fold: int | Literal["all"] = 0
    voter: str | None = None
    id: str = "${module}_${plan}${exp.tag}"


@dataclass(frozen=True)
class PrepConfig:
    """Parts of the preparation.

    Attributes:
        check: check the raw data first.
        fingerprint: measure the data; false reads what an earlier run measured.
        plan: plan; false keeps the plan that is there.
        process: preprocess the cases.
        overwrite: plan again although the user edited the plan.
    """

    check: bool = True
    fingerprint: bool = True
    plan: bool = True
    process: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """How a training begins.

    Attributes:
        mode: go on where there is something to go on with, demand that there is, or forget what is there.
    """

    mode: Literal["auto", "resume", "overwrite"] = "auto"


@dataclass(frozen=True)
class SweepConfig:
    """How thresholds are searched on validation predictions.

    Attributes:
        criterion: what is maximised: f1, ap, froc, auc (of slices), patient_auc, sensitivity@precision=P,
            sensitivity@fp=N, precision@sensitivity=S, and for 3D boxes map (mean AP over IoU 0.1 to 0.5,
            nnDetection's). ``auto``: f1 of the paper's protocol for boxes on slices, map for boxes in 3D.
        search: ``joint``: every combination; ``two_phase``: filters, then votes (boxes on slices only); ``coarse`` and
            ``optuna``: large spaces.
        tune_hit_iou: let tau3, the IoU of a hit, be chosen, too; every tau3 is scored anyway.
        nested: also tune on all groups of patients but one, and score that one.
        trials: settings that ``optuna`` tries.
    """

    criterion: str = "auto"
    search: str = "joint"
    tune_hit_iou: bool = False
    nested: bool = True
    trials: int = 300

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"sweep.trials must be at least 1, found {self.trials}")


@dataclass(frozen=True)
class InferenceConfig:
    """How cases are predicted.

    Attributes:
        device: auto, cpu, cuda, cuda:1 ...
        batch_size: images predicted together; null: the training batch.
    """

    device: str = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(
                f"inference_kwargs.batch_size must be null or at least 1, found {self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig(Generic[O_co, S_co]):
    """Everything a command can be told.

    Attributes:
        task: folder name of the task.
        system: name of the system.
        host: engine that trains and predicts.
        module: registered name of the trainer.
        planner: registered name of the planner.
        plan: name of the plan and of its file.
        exp: which training.
        prep: parts of the preparation.
        train: how a training begins.
        plan_cfg: what the planner is told.
        trainer_cfg: what changes a training without changing the plan.
        sweep: how thresholds are searched.
        inference_kwargs: how cases are predicted.
        plan_overwrites: values put into the plan, such as ``+plan_overwrites.detector.scale=2.0``.
        additional_imports: modules imported first, to register own planners and trainers.
    """

    task: str
    system: str
    host: str
    module: str
    planner: str
    plan: str
    plan_cfg: O_co
    trainer_cfg: S_co
    exp: ExperimentConfig = field(default_factory=ExperimentConfig)
    prep: PrepConfig = field(default_factory=PrepConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    inference_kwargs: InferenceConfig = field(default_factory=InferenceConfig)
    plan_overwrites: dict[str, Any] = field(default_factory=dict)
    additional_imports: list[str] = field(default_factory=list)
