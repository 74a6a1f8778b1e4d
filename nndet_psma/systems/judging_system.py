"""What systems share that judge: the decision tuned on out-of-fold probabilities, and taken again where it changes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, Generic, TypeVar

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import to_plain
from nndet_psma.inference.case_predictor import CaseJob, CasePredictor
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.postproc.cutoff import Cutoff, youden_cutoff
from nndet_psma.systems.judged_rows import judged_rows
from nndet_psma.systems.out_of_fold import read_out_of_fold, write_tuned
from nndet_psma.systems.system import AnySystem, OpenOptions, System, TuneJob

P = TypeVar("P", bound=Plan)
O = TypeVar("O", bound=PlannerOptions)  # noqa: E741
S = TypeVar("S")

_CRITERIA = ("auto", "youden")


class JudgingSystem(System[P, O, S], Generic[P, O, S]):
    """Gives every object (``Judged``) or every case (``Call``) calibrated probabilities of the classes."""

    result_type: ClassVar[type[Judged] | type[Call]] = Judged

    def positive(self, plan: P) -> str:
        """The class that is called from a probability on: the last one."""
        return list(plan.classes.values())[-1]

    def tune(self, job: TuneJob[O, S], fold: int, folds: list[int]) -> InferencePlan:
        """The cut-off with the best Youden index of the validation cases.

        Raises:
            UserError: another criterion is asked for, or a validation case has no result or no truth.
        """
        criterion = job.config.sweep.criterion
        if criterion not in _CRITERIA:
            raise UserError(
                f"decisions cannot be tuned for {criterion}",
                expected=f"sweep.criterion={' or '.join(_CRITERIA)}",
            )
        results = read_out_of_fold(job.model, self.result_type, folds)
        rows, _ = judged_rows(self, job.paths, results)
        cutoff, value = youden_cutoff(rows, self.positive(job.model.plan(fold, self.plan_type)))
        tuned = InferencePlan(
            made_from=hash_json([[result.case_id, result.made_from] for result in results]),
            folds=folds,
            settings=to_plain(cutoff),
            criterion="" if value is None else "Youden's index",
            value=value,
            source=f"the cut-off tuned on {len(results)} validation cases of folds {folds}",
            cases=[result.case_id for result in results],
        )
        decided = [result.decided_by(cutoff) for result in results]
        write_tuned(job.model, fold, tuned, self.result_type, decided)
        return tuned

    def untuned(self, plan: P, folds: list[int]) -> InferencePlan:
        """One half."""
        return replace(super().untuned(plan, folds), settings=to_plain(Cutoff(self.positive(plan))))

    def check_inference(self, plan: P, inference: InferencePlan) -> None:
        """TypeError or ValueError where the cut-off makes no sense."""
        Cutoff(**inference.settings)


class JudgingPredictor(CasePredictor):
    """What predictors of judging systems begin with.

    Attributes:
        system: of the model.
        plan: the model was trained with.
        files: weights of every fold, or of every part of every fold, in order.
        cutoff: the tuned decision.

    Raises:
        UserError: weights are missing.
    """

    def __init__(self, system: AnySystem, model: ModelFolder, fold: int, options: OpenOptions) -> None:
        self.system = system
        self.plan = model.plan(fold)
        self.result_type = system.result_type
        inference = system.inference(model, self.plan, fold)
        folds = inference.folds if options.folds is None else options.folds
        self.files = list(system.trained(model, self.plan, fold, folds).values())
        missing = [file for file in self.files if not file.is_file()]
        if missing:
            raise UserError("weights are missing", file=missing[0], remedy="Run nndet_train first")
        self.weights_hash = hash_json([self.plan.content_hash(), hash_files(self.files)])
        self.cutoff = Cutoff(**inference.settings)

    @abstractmethod
    def predict(self, job: CaseJob) -> Judged | Call:
        """Probabilities, and the decisions of the cut-off."""

    def decided(self, result: Result) -> Result:
        """The decisions of the cut-off that is tuned now."""
        return result.decided_by(self.cutoff) if isinstance(result, Judged | Call) else result
