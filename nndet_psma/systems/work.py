"""What systems are asked to do, and what they tell of a plan: the arguments and answers of ``System``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Generic, TypeVar

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Decision, Plan, Target
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.options import PlannerOptions

P = TypeVar("P", bound=Plan)
O = TypeVar("O", bound=PlannerOptions)  # noqa: E741
S = TypeVar("S")


@dataclass(frozen=True)
class PlanJob(Generic[P, O, S]):
    """What a plan is made from.

    Attributes:
        paths: of the task.
        config: of the command.
        description: of the data set.
        cases: training cases.
        fingerprint: measured.
        target: machine to plan for.
        folds: chosen by the rules that all systems share.
        there: plan of this name that an earlier run made; it must come out the same or be overwritten.
        processes: at once.
        say: takes one line of progress.
    """

    paths: TaskPaths
    config: RunConfig[O, S]
    description: DatasetDescription
    cases: Sequence[RawCase]
    fingerprint: Fingerprint
    target: Target
    folds: FoldChoice
    there: P | None
    processes: int
    say: Callable[[str], None]

    def fields(self) -> dict[str, Any]:
        """The fields that every plan has, as the job tells them: ``MyPlan(**job.fields(), own=...)``.

        The spacing is the median of the cases, the batch one image; a system that chooses them replaces them.
        """
        spacings = zip(*(case.spacing for case in self.fingerprint.cases), strict=True)
        seed = self.config.plan_cfg.seed
        return {
            "plan_id": self.config.plan,
            "planner": self.config.planner,
            "trainer": self.config.module,
            "task": self.fingerprint.task,
            "made_from": self.fingerprint.content_hash(),
            "training_images": self.fingerprint.training_images,
            "target": self.target,
            "modalities": self.fingerprint.modalities,
            "classes": self.fingerprint.labels,
            "ct_modality": self._modality(Role.CT),
            "ctv_modality": self._modality(Role.CTV),
            "spacing": tuple(float(median(axis)) for axis in spacings),
            "batch_size": 1,
            "folds": self.folds.folds,
            "seed": seed,
            "decisions": {
                "folds": Decision(self.folds.rule, self.folds.evidence),
                "seed": Decision("plan_cfg.seed", "the same seed, the same folds and bootstrap"),
            },
        }

    def _modality(self, role: Role) -> int | None:
        named = (index for index in self.description.modalities if self.description.role(index) is role)
        return next(named, None)


@dataclass(frozen=True)
class TrainJob(Generic[P, O, S]):
    """One fold to train.

    Attributes:
        paths: of the task.
        config: of the command.
        plan: with ``plan_overwrites`` put in.
        fold: index into ``plan.folds``.
        model: folder of the model.
        say: takes one line of progress.
    """

    paths: TaskPaths
    config: RunConfig[O, S]
    plan: P
    fold: int
    model: ModelFolder
    say: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """Of the fold."""
        return self.model.fold(self.fold)

    @property
    def overwrite(self) -> bool:
        """Forget what is there instead of going on."""
        return self.config.train.mode == "overwrite"

    def finished(self, file: Path) -> bool:
        """Whether an earlier run with this plan has left ``file`` and is to be kept.

        Raises:
            UserError: it was left by a run with another plan.
        """
        if self.overwrite or not file.is_file():
            return False
        if self.model.plan(self.fold).content_hash() != self.plan.content_hash():
            raise UserError(
                "was trained with another plan",
                file=self.folder,
                remedy="Train it again with -o train.mode=overwrite, or beside it with -o exp.tag=_NAME",
            )
        return True


@dataclass(frozen=True)
class OpenOptions:
    """How a trained model is opened.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: images at once; None takes the training batch.
        tta: look at mirror images, too.
        without_ctv: search images that come without their CTV.
        folds: of a consolidated model; None takes all.
        explain: write where the model looks beside its results (models that judge given objects).
        from_memory: images are given from Python, with their CTV or without, and the model's folder may be gone by
            then: whatever is needed for either is loaded at once.
    """

    device: str = "auto"
    batch_size: int | None = None
    tta: bool = False
    without_ctv: bool = False
    folds: Sequence[int] | None = None
    explain: bool = False
    from_memory: bool = False


@dataclass(frozen=True)
class TuneJob(Generic[O, S]):
    """A model whose thresholds, decision or calibration are tuned on out-of-fold results.

    Attributes:
        paths: of the task.
        model: folder of the model.
        config: of the command.
        say: takes one line of progress.
    """

    paths: TaskPaths
    model: ModelFolder
    config: RunConfig[O, S]
    say: Callable[[str], None]


MetricRows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Facts:
    """What a plan means, for figures, ``plan show`` and the report.

    Attributes:
        summary: one sentence on what looks at the images.
        spacing: mm (z, y, x) that the network sees; None where every case has its own.
        margin_mm: growth of the CTV that is searched; None without CTV.
        slices_seen: slices that are looked at together; None for volumes.
        windows: HU windows of the input.
        voters: name for people by name of a voter.
        trainings: of a fold.
        cost: rows (key, value, rule, evidence) of the estimated cost; empty where nothing is known before training.
        cost_note: why, where the cost is not estimated.
        trained_note: the same once it is trained; "" for the cost note.
    """

    summary: str
    spacing: tuple[float, float, float] | None = None
    margin_mm: float | None = None
    slices_seen: int | None = None
    windows: Sequence[Window] = ()
    voters: Mapping[str, str] = field(default_factory=dict)
    trainings: int = 1
    cost: Sequence[tuple[str, str, str, str]] = ()
    cost_note: str = ""
    trained_note: str = ""
