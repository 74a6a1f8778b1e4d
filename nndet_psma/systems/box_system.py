"""What systems share whose results are boxes: raw boxes of validation cases, thresholds tuned on them by a sweep."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from nndet_psma.artifacts.box_plan import BoxPlan
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import VALIDATION_RAW, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Result
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.systems.out_of_fold import write_tuned
from nndet_psma.systems.system import System, TuneJob

if TYPE_CHECKING:
    from nndet_psma.postproc.sweep.case import SweepCase

BP = TypeVar("BP", bound=BoxPlan)
O = TypeVar("O", bound=PlannerOptions)  # noqa: E741
S = TypeVar("S")


class BoxSystem(System[BP, O, S], Generic[BP, O, S]):
    """A system that finds lesions: boxes with scores, filtered and voted on."""

    result_type: ClassVar[type[Result]] = Prediction

    def check_plan(self, plan: BP, file: Path) -> None:
        """Steps and values of the post-processing that cannot work."""
        from nndet_psma.postproc.steps.order import step_order
        from nndet_psma.postproc.sweep.candidates import sweep_grid

        try:
            step_order(PostprocSettings(**plan.postproc_defaults).steps, plan.box_dim)
        except (TypeError, ValueError, UserError) as error:
            raise UserError(f"postproc_defaults: {error}", file=file, remedy="Correct that key") from None
        try:
            sweep_grid(plan)
        except UserError as error:
            raise UserError(error.what, file=file, remedy="Correct that key") from None

    @abstractmethod
    def sweep_cases(self, job: TuneJob[O, S], plan: BP, files: Sequence[Path]) -> list[SweepCase]:
        """Raw boxes and true boxes of each of the ``files`` of raw validation predictions, on one grid."""

    def tune(self, job: TuneJob[O, S], fold: int, folds: list[int]) -> InferencePlan:
        """Search thresholds; see :func:`nndet_psma.inference.tuning.tune`."""
        from nndet_psma.artifacts.raw_predictions import read_raw
        from nndet_psma.inference.postprocessing import make_prediction
        from nndet_psma.inference.tuning import tune, write_sweep

        plan = job.model.plan(fold, self.plan_type)
        target = job.model.fold(fold)
        files = _raw_files(job.model, folds)
        groups = _held_out(job.paths, job.model, folds)
        clinical = read_clinical(job.paths)
        cases = [
            replace(case, patient=patient_of(case.case_id, clinical))
            for case in self.sweep_cases(job, plan, files)
        ]
        tuned, result = tune(cases, files, plan, job.config.sweep, folds=folds, groups=groups)
        write_sweep(target / "sweep.json", result)
        settings = PostprocSettings(**tuned.settings)
        predictions = (make_prediction(read_raw(file), settings, plan.classes) for file in files)
        write_tuned(job.model, fold, tuned, Prediction, predictions)
        return tuned

    def check_inference(self, plan: BP, inference: InferencePlan) -> None:
        """UserError where thresholds, or those that the plan starts from, make no sense."""
        from nndet_psma.inference.postprocessing import tuned_settings

        for settings in (inference.settings, plan.postproc_defaults):
            tuned_settings(plan, replace(inference, settings=settings))

    def untuned(self, plan: BP, folds: list[int]) -> InferencePlan:
        """The plan's starting thresholds."""
        settings = to_plain(PostprocSettings(**plan.postproc_defaults))
        return InferencePlan("", folds, settings, "", None, "starting values of the plan, not tuned", [])


def _held_out(paths: TaskPaths, model: ModelFolder, folds: list[int]) -> list[list[str]]:
    """Validation cases to be held out in turn: those of each fold, or groups of patients where folds share patients."""
    from nndet_psma.inference.tuning import patient_groups

    clinical = read_clinical(paths)
    by_fold = [sorted(model.plan(fold).folds[fold].val) for fold in folds]
    patients = {case_id: patient_of(case_id, clinical) for cases in by_fold for case_id in cases}
    of_fold = [{patients[case_id] for case_id in cases} for cases in by_fold]
    if len(folds) > 1 and sum(map(len, of_fold)) == len(set().union(*of_fold)):
        return by_fold
    return patient_groups(patients)


def _raw_files(model: ModelFolder, folds: list[int]) -> list[Path]:
    files = []
    for fold in folds:
        val = model.plan(fold).folds[fold].val
        files += [model.fold(fold) / VALIDATION_RAW / f"{case_id}.npz" for case_id in val]
    return sorted(files, key=lambda file: file.name)
