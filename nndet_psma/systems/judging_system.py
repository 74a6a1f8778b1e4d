"""What systems share that judge: the decision tuned on out-of-fold probabilities, and taken again where it changes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.results import Call, Judged, Result
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.evaluation.judgements.row import scored_rows
from nndet_psma.inference.case_predictor import CaseJob, CasePredictor
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.postproc.cutoff import CutCriterion, Cutoff, tuned_cutoff
from nndet_psma.systems.judged_rows import judged_rows
from nndet_psma.systems.out_of_fold import read_out_of_fold, write_tuned
from nndet_psma.systems.system import OpenOptions, System, TuneJob

P = TypeVar("P", bound=Plan)
O = TypeVar("O", bound=PlannerOptions)  # noqa: E741
S = TypeVar("S")

_NAMES = {"youden": "Youden's index"}


@dataclass(frozen=True)
class Tuned:
    """A decision tuned on judgements.

    Attributes:
        cutoff: the decision.
        results: the same judgements, with calibrated probabilities where the system calibrates, decided anew.
        value: of the criterion, None where the truth is all alike.
        note: a sentence on the calibration; "" for none.
    """

    cutoff: Cutoff
    results: list[Judged | Call]
    value: float | None
    note: str = ""


class JudgingSystem(System[P, O, S], Generic[P, O, S]):
    """Gives every object (``Judged``) or every case (``Call``) calibrated probabilities of the classes."""

    result_type: ClassVar[type[Judged] | type[Call]] = Judged
    cutoff_type: ClassVar[type[Cutoff]] = Cutoff

    def positive(self, plan: P) -> str:
        """The class that is called from a probability on: the last one."""
        return list(plan.classes.values())[-1]

    def tune(self, job: TuneJob[O, S], fold: int, folds: list[int]) -> InferencePlan:
        """The cut-off that is best by ``sweep.criterion`` on the validation cases (Youden's index unless asked).

        With several folds (and ``sweep.nested``) it is also tuned on all folds but one, in turn, and decides that one.

        Raises:
            UserError: an unknown criterion is asked for, or a validation case has no result or no truth.
        """
        criterion = CutCriterion.parse(job.config.sweep.criterion)
        results = read_out_of_fold(job.model, self.result_type, folds)
        plan = job.model.plan(fold, self.plan_type)
        found = self.fit(job, plan, results, criterion)
        notes = [f"the cut-off tuned on {len(results)} validation cases of folds {folds}"]
        notes += [found.note] if found.note else []
        if len(folds) > 1 and job.config.sweep.nested:
            notes.append(self._nested(job, plan, results, folds, criterion))
        tuned = InferencePlan(
            made_from=hash_json([[result.case_id, result.made_from] for result in results]),
            folds=folds,
            settings=to_plain(found.cutoff),
            criterion="" if found.value is None else _NAMES.get(criterion.name, criterion.name),
            value=found.value,
            source="; ".join(notes),
            cases=[result.case_id for result in results],
        )
        write_tuned(job.model, fold, tuned, self.result_type, found.results)
        return tuned

    def fit(
        self, job: TuneJob[O, S], plan: P, results: Sequence[Judged | Call], criterion: CutCriterion
    ) -> Tuned:
        """Tune the decision on out-of-fold results."""
        rows, _ = judged_rows(self, job.paths, results)
        cutoff, value = tuned_cutoff(rows, self.positive(plan), criterion)
        return Tuned(cutoff, [self.decided(result, cutoff) for result in results], value)

    def decided(self, result: Judged | Call, cutoff: Cutoff) -> Judged | Call:
        """The result with the probabilities and decisions that a tuned decision gives it."""
        return result.decided_by(cutoff)

    def _nested(
        self,
        job: TuneJob[O, S],
        plan: P,
        results: Sequence[Judged | Call],
        folds: list[int],
        criterion: CutCriterion,
    ) -> str:
        """Sensitivity and specificity of decisions that were tuned without the fold they are about."""
        decided: list[Judged | Call] = []
        for held in folds:
            cases = set(job.model.plan(held).folds[held].val)
            others = [result for result in results if result.case_id not in cases]
            cutoff = self.fit(job, plan, others, criterion).cutoff
            decided += [self.decided(result, cutoff) for result in results if result.case_id in cases]
        rows = scored_rows(judged_rows(self, job.paths, decided)[0])
        positive = self.positive(plan)
        hits = [row.decision == positive for row in rows if row.truth == positive]
        passed = [row.decision != positive for row in rows if row.truth != positive]
        return (
            f"tuned without the fold that is decided: sensitivity {sum(hits)} of {len(hits)}, "
            f"specificity {sum(passed)} of {len(passed)}"
        )

    def untuned(self, plan: P, folds: list[int]) -> InferencePlan:
        """One half."""
        return replace(super().untuned(plan, folds), settings=to_plain(self.cutoff_type(self.positive(plan))))

    def check_inference(self, plan: P, inference: InferencePlan) -> None:
        """UserError where the cut-off makes no sense."""
        self.cutoff(plan, inference)

    def cutoff(self, plan: P, inference: InferencePlan) -> Cutoff:
        """The tuned decision, checked.

        Raises:
            UserError: a value is of the wrong type or out of range, or the class is none of the plan.
        """
        try:
            found = from_plain(self.cutoff_type, inference.settings, "settings")
            if found.positive not in plan.classes.values():
                raise ValueError(f"settings.positive: expected one of {', '.join(plan.classes.values())}")
        except ValueError as error:
            raise UserError(
                f"the thresholds make no sense: {error}", remedy="Tune them again with nndet_sweep"
            ) from None
        return found


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

    def __init__(
        self, system: JudgingSystem[Any, Any, Any], model: ModelFolder, fold: int, options: OpenOptions
    ) -> None:
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
        self.cutoff = system.cutoff(self.plan, inference)

    @abstractmethod
    def predict(self, job: CaseJob) -> Judged | Call:
        """Probabilities, and the decisions of the cut-off."""

    def decided(self, result: Result) -> Result:
        """The decisions of the cut-off that is tuned now."""
        return self.system.decided(result, self.cutoff) if isinstance(result, Judged | Call) else result
