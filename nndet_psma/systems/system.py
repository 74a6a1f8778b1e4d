"""``System``: the one place where a system is put together; commands, reports and workflows ask it and know no
other.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import (
    CONSOLIDATED,
    INFERENCE_PLAN,
    VAL_PREDICTIONS,
    WEIGHTS,
    ModelFolder,
)
from nndet_psma.artifacts.plan import Decision, Plan, Target
from nndet_psma.artifacts.plan_file import SYSTEMS as PLAN_OWNERS
from nndet_psma.artifacts.results import Result
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.errors import UserError
from nndet_psma.core.registry import Registry
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.case_truth import read_case_truth
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.inference.model_archive import is_weights_name
from nndet_psma.jobs.graph import Step
from nndet_psma.planners.folds import FoldChoice
from nndet_psma.planners.options import PlannerOptions

if TYPE_CHECKING:
    from nndet_psma.inference.case_predictor import CasePredictor

P = TypeVar("P", bound=Plan)
O = TypeVar("O", bound=PlannerOptions)  # noqa: E741
S = TypeVar("S")

EMBEDDED = "embedded"
"""The engine of this package."""


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
    """

    device: str = "auto"
    batch_size: int | None = None
    tta: bool = False
    without_ctv: bool = False
    folds: Sequence[int] | None = None


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


class System(ABC, Generic[P, O, S]):
    """A planner, a trainer and what is done with what they make. Stateless; found by an entry point.

    Attributes:
        name: the only name: preset, folder, documentation page.
        host: engine it trains in.
        planner: registered name of its planner.
        trainer: registered name of its trainer.
        plan_id: name of its plan unless the user gives another.
        plan_type: of its plans.
        options_type: of ``plan_cfg``.
        settings_type: of ``trainer_cfg``.
        result_type: of what it says of a case.
        presets: folder of further presets (``NAME.yaml``) in the package of the system; "" for none.
        workers_key: key of ``trainer_cfg`` with the processes that load images; None without one.
        tta: whether mirror images are looked at unless the user says otherwise.
        searched_without_ctv: what is searched in images that come without their CTV.
    """

    name: ClassVar[str]
    host: ClassVar[str] = EMBEDDED
    planner: ClassVar[str]
    trainer: ClassVar[str]
    plan_id: ClassVar[str]
    plan_type: type[P]
    options_type: type[O]
    settings_type: type[S]
    result_type: ClassVar[type[Result]]
    presets: ClassVar[str] = ""
    workers_key: ClassVar[str | None] = None
    tta: ClassVar[bool] = False
    searched_without_ctv: ClassVar[str] = "the whole image is searched"

    def suits(self, description: DatasetDescription) -> str | None:
        """The reason why this system is the one for a data set when the user names none; None where it is not."""
        return None

    @abstractmethod
    def make_plan(self, job: PlanJob[P, O, S]) -> P:
        """The plan, made without a GPU.

        Raises:
            UserError: the data cannot be planned for.
        """

    def overwrite(self, plan: P, changes: Mapping[str, Any]) -> P:
        """The plan with ``plan_overwrites`` put in.

        Raises:
            UserError: names a wrong key or contradiction.
        """
        if not changes:
            return plan
        content = {k: v for k, v in plan.to_json().items() if k not in ("schema", "version")}
        return type(plan).parse(_merged(content, changes), "plan_overwrites")

    def check_plan(self, plan: P, file: Path) -> None:
        """Contradictions that only the system can see in a plan that was read from ``file``.

        Raises:
            UserError: names the key.
        """

    def prepare(self, job: PlanJob[P, O, S], plan: P) -> list[str]:
        """Prepare the cases for training; returns the ids of those that were prepared now."""
        return []

    def check_prepared(self, job: TrainJob[P, O, S], prepared: P) -> list[str]:
        """Case ids that are prepared for training with ``job.plan``.

        Args:
            job: with ``plan_overwrites`` put into its plan.
            prepared: the plan that the cases were prepared by.

        Raises:
            UserError: they are not, or not for this plan.
        """
        return job.plan.case_ids

    @abstractmethod
    def train(self, job: TrainJob[P, O, S]) -> None:
        """Train a fold; goes on where an earlier run stopped.

        Raises:
            UserError: what is there belongs to something else.
        """

    def steps(self, plan: P, settings: S, fold: int) -> list[Step]:
        """Trainings of a fold that can be jobs of their own, in order."""
        left = next(iter(self.weights(ModelFolder(Path()), plan, fold).values()))
        return [Step("", (), 0, str(left))]

    def inputs(self, job: TrainJob[P, O, S]) -> Any:
        """Hashes of the prepared cases of a fold: what else a training depends on."""
        return None

    def result_settings(self, settings: S) -> Any:
        """Keys of ``trainer_cfg`` that change results, as plain values."""
        return to_plain(settings)

    def jobs_per_gpu(self, plan: P, settings: S, memory_gb: float) -> int:
        """How many trainings fit side by side on a GPU of ``memory_gb``."""
        return 1

    @abstractmethod
    def open(self, model: ModelFolder, fold: int, options: OpenOptions) -> CasePredictor:
        """The trained model of a fold or of the consolidated model (-1).

        Raises:
            UserError: weights are missing or do not fit.
        """

    def validate(self, job: TuneJob[O, S], fold: int) -> None:
        """Predict the fold's validation cases with the fold that has not seen them; finished ones are kept."""
        from nndet_psma.dataset.task.cases import list_cases
        from nndet_psma.dataset.task.description import read_description
        from nndet_psma.inference.case_predictor import predict_case

        predictor = self.open(job.model, fold, OpenOptions(device=job.config.inference_kwargs.device))
        description = read_description(job.paths.root)
        known = {case.case_id: case for case in list_cases(job.paths, description)}
        target = job.model.fold(fold) / VAL_PREDICTIONS
        for case_id in predictor.plan.folds[fold].val:
            if case_id not in known:
                raise UserError(f"validation case {case_id} does not exist any more", remedy="Run nndet_prep")
            predict_case(predictor, known[case_id], description, target)
            job.say(f"fold {fold}: validation case {case_id}")

    @abstractmethod
    def tune(self, job: TuneJob[O, S], fold: int, folds: list[int]) -> InferencePlan:
        """Tune on the validation results of ``folds`` and write what was tuned, and the results, into ``fold``.

        :mod:`nndet_psma.systems.out_of_fold` reads and writes them. The decision of ``Judged`` and ``Call`` results is
        called as in :class:`nndet_psma.postproc.cutoff.Cutoff`.

        Args:
            job: the model.
            fold: whose folder is written to; -1 is the consolidated model.
            folds: whose validation cases are tuned on.
        """

    def check_inference(self, inference: InferencePlan) -> None:
        """TypeError or ValueError where tuned settings make no sense."""

    def untuned(self, plan: P, folds: list[int]) -> InferencePlan:
        """Starting values, before anything is tuned."""
        return InferencePlan("", folds, {}, "", None, "starting values of the plan, not tuned", [])

    def inference(self, model: ModelFolder, plan: P, fold: int) -> InferencePlan:
        """What was tuned; starting values of a fold whose validation cases are still to be predicted.

        Raises:
            UserError: its file cannot be read.
        """
        file = model.fold(fold) / INFERENCE_PLAN
        return InferencePlan.read(file) if file.is_file() else self.untuned(plan, [fold])

    def object_truth(self, case: RawCase, description: DatasetDescription) -> dict[int, str | None]:
        """True class by number of the object, None where it is not known: what ``Judged`` results are scored by.

        Raises:
            UserError: the case has no label, or it cannot be read.
        """
        return {
            number: description.labels[label] for number, label in read_labels(case, description)[1].items()
        }

    def case_truth(
        self, paths: TaskPaths, description: DatasetDescription, case_ids: Sequence[str]
    ) -> dict[str, str]:
        """True class by case id, without the cases whose class is not known: what ``Call`` results are scored by.

        Raises:
            UserError: it is not told where the truth stands, or it is not there.
        """
        return read_case_truth(paths, description, case_ids)

    def weights(self, model: ModelFolder, plan: P, fold: int) -> dict[str, Path]:
        """Files that a trained fold consists of, by their place in the consolidated model; one file unless told
        otherwise.
        """
        return {f"fold{fold}/{self.name}/{WEIGHTS}": model.weights(fold, self.name)}

    def trained(self, model: ModelFolder, plan: P, source: int, folds: Sequence[int]) -> dict[str, Path]:
        """The files of :meth:`weights` of several folds, where a model that is opened has them.

        Args:
            model: folder of the model.
            plan: of the model.
            source: -1 for the consolidated model, or the fold itself.
            folds: that predict together.
        """
        files = {place: file for fold in folds for place, file in self.weights(model, plan, fold).items()}
        if source != CONSOLIDATED:
            return files
        return {place: model.fold(CONSOLIDATED) / place for place in files}

    def exported(self, model: ModelFolder, plan: P, source: int, folds: Sequence[int]) -> dict[str, Path]:
        """Weights (safetensors) by their place in a model that is passed on.

        Args:
            model: folder of the model.
            plan: of the model.
            source: -1 for the consolidated model, or a fold.
            folds: to pass on.

        Raises:
            UserError: the system's models cannot be passed on as one file.
        """
        files = self.trained(model, plan, source, folds)
        wrong = [place for place in files if not is_weights_name(place)]
        if wrong:
            raise UserError(
                f"models of {self.name} cannot be exported",
                expected=f"weights called fold0/NAME/{WEIGHTS}",
                found=wrong[0],
                remedy="Pass on the folder 'consolidated'",
            )
        return files

    def places(self, plan: P, folds: Sequence[int]) -> set[str]:
        """Names that :meth:`exported` gives."""
        return set(self.trained(ModelFolder(Path()), plan, CONSOLIDATED, folds))

    def without_paths(self, plan: P) -> tuple[P, list[str]]:
        """The plan without values that name files, and these names."""
        return plan, []

    def copy_weights(self, source: Path, target: Path) -> None:
        """Copy one file of :meth:`weights` into the consolidated model."""
        shutil.copyfile(source, target)

    def check_weights(self, folder: Path, plan: P, folds: Sequence[int]) -> None:
        """Build every network of a consolidated model once with its weights; unless told otherwise it is opened.

        Args:
            folder: called ``consolidated``.
            plan: in it.
            folds: in it.

        Raises:
            UserError: names what does not fit.
        """
        try:
            self.open(ModelFolder(folder.parent), CONSOLIDATED, OpenOptions(device="cpu"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"weights do not fit the plan of {self.name}", found=str(error)) from None

    @abstractmethod
    def facts(self, plan: P, precision: str = "no") -> Facts:
        """What the plan means, in words and figures; the cost is that of training in mixed ``precision``."""

    def curves(self, model: ModelFolder, fold: int, plan: P) -> tuple[dict[str, MetricRows], list[str]]:
        """Rows of the training's metrics by step, and the steps that have left none."""
        return {}, [f"fold {fold} has left none"]

    def sections(self, plan: P) -> Sequence[Callable[[Any], Any]]:
        """Sections of the report of its own: functions from a report's source to a section."""
        return ()


AnySystem = System[Any, Any, Any]
SYSTEMS = cast("Registry[AnySystem]", PLAN_OWNERS)
"""The systems by name; see :data:`nndet_psma.artifacts.plan_file.SYSTEMS`."""


def system_of(plan: Plan) -> AnySystem:
    """The system that a plan belongs to."""
    for name in SYSTEMS:
        system = SYSTEMS[name]()
        if type(plan) is system.plan_type:
            return system
    raise UserError(f"no installed system has plans of the type {type(plan).__name__}")


def model_system(model: ModelFolder, fold: int = CONSOLIDATED) -> tuple[AnySystem, Plan]:
    """System and plan of a trained model."""
    plan = model.plan(fold)
    return system_of(plan), plan


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(content)
    for key, value in changes.items():
        inner = result.get(key)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            result[key] = _merged(inner, value)
        else:
            result[key] = value
    return result
