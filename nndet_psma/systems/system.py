"""``System``: the one place where a system is put together; commands, reports and workflows ask it and know no
other.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import (
    CONSOLIDATED,
    INFERENCE_PLAN,
    VAL_PREDICTIONS,
    WEIGHTS,
    ModelFolder,
)
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.plan_file import SYSTEMS as PLAN_OWNERS
from nndet_psma.artifacts.results import Result
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.errors import UserError
from nndet_psma.core.registry import Registry
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.case_truth import read_case_truth
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.inference.model_archive import is_weights_name
from nndet_psma.jobs.graph import Step
from nndet_psma.systems.work import Facts, MetricRows, O, OpenOptions, P, PlanJob, S, TrainJob, TuneJob

if TYPE_CHECKING:
    from nndet_psma.inference.case_predictor import CasePredictor

__all__ = [
    "SYSTEMS",
    "AnySystem",
    "Facts",
    "MetricRows",
    "OpenOptions",
    "PlanJob",
    "System",
    "TrainJob",
    "TuneJob",
    "model_system",
    "system_of",
]

EMBEDDED = "embedded"
"""The engine of this package."""


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
        given_objects: whether a case to predict comes with a mask of the objects to judge, in its label's place.
        texts: names of the JSON files that a model of its own needs beside plan and thresholds when it is passed on.
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
    given_objects: ClassVar[bool] = False
    texts: ClassVar[tuple[str, ...]] = ()

    def suits(self, description: DatasetDescription) -> str | None:
        """The reason why this system is the one for a data set when the user names none; None where it is not."""
        return None

    def require(self) -> None:
        """Say how to get the packages that the engine needs where they are not installed.

        Raises:
            UserError: one is not.
        """

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

    def to_train(self, plan: P, config: RunConfig[O, S]) -> P:
        """The prepared plan as it is trained: with ``plan_overwrites`` put in.

        Raises:
            UserError: the configuration asks for what a training cannot do any more, or names a wrong key.
        """
        return self.overwrite(plan, config.plan_overwrites)

    def hand_over(self, job: PlanJob[P, O, S], plan: P) -> None:
        """Tell the engine what was planned; engines that read our plan need not be told."""

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

        :mod:`nndet_psma.systems.out_of_fold` reads and writes them.

        Args:
            job: the model.
            fold: whose folder is written to; -1 is the consolidated model.
            folds: whose validation cases are tuned on.
        """

    def check_inference(self, plan: P, inference: InferencePlan) -> None:
        """UserError, TypeError or ValueError where tuned settings make no sense."""

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

    def simpler_rows(
        self,
        paths: TaskPaths,
        model: ModelFolder,
        fold: int,
        results: Sequence[Any],
        rows: Sequence[JudgedRow],
        test: bool,
    ) -> tuple[dict[str, list[JudgedRow]], dict[str, list[JudgedRow]]]:
        """The same judged objects, judged by simple models, by their names, and by the model itself under controls.

        Both are empty where the system has none.

        Args:
            paths: of the task.
            model: folder of the model.
            fold: whose results are looked at; -1 is the consolidated model.
            results: of the model.
            rows: of these results.
            test: whether they are of test cases.
        """
        return {}, {}

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

    def exported(
        self, model: ModelFolder, plan: P, source: int, folds: Sequence[int], scratch: Path
    ) -> dict[str, Path]:
        """Weights (safetensors) by their place in a model that is passed on.

        Args:
            model: folder of the model.
            plan: of the model.
            source: -1 for the consolidated model, or a fold.
            folds: to pass on.
            scratch: empty folder for weights that training keeps in another form.

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

    def exported_texts(
        self, model: ModelFolder, plan: P, source: int, folds: Sequence[int]
    ) -> dict[str, dict[str, Any]]:
        """Contents of :attr:`texts`, without names of cases, patients and files.

        Raises:
            UserError: they cannot be read, or the folds do not agree.
        """
        return {}

    def check_texts(self, folder: Path, plan: P) -> None:
        """Judge :attr:`texts` of a model that somebody passed on, before anything else is done with them.

        Args:
            folder: with these files.
            plan: of the model, checked.

        Raises:
            UserError: says what is wrong.
        """

    def take_in(self, folder: Path, plan: P, folds: Sequence[int]) -> None:
        """Bring a checked model that was passed on into the form of a consolidated one.

        Args:
            folder: with plan, thresholds, :attr:`texts` and the files of :meth:`places`.
            plan: in it.
            folds: in it.

        Raises:
            UserError: weights do not fit the plan.
        """

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
            raise UserError(
                f"weights do not fit the plan of {self.name}",
                found=str(error),
                remedy="The plan was changed after training: restore it, or train again",
            ) from None

    @abstractmethod
    def facts(self, plan: P, precision: str = "no") -> Facts:
        """What the plan means, in words and figures; the cost is that of training in mixed ``precision``."""

    def curves(self, model: ModelFolder, fold: int, plan: P) -> tuple[dict[str, MetricRows], list[str]]:
        """Rows of the training's metrics by step, and the steps that have left none; neither where none are kept."""
        return {}, []

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
    raise UserError(
        f"no installed system has plans of the type {type(plan).__name__}",
        remedy="Install the package that brings the system",
    )


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
