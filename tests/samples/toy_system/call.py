"""``toycall``: the same means, one verdict per case by its brightest object; truth from clinical.csv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nndet_psma.artifacts.results import Call
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.inference.case_predictor import CaseJob
from toy_system.system import Toy, ToyPlan, ToyPredictor, measured


@dataclass(frozen=True, kw_only=True)
class ToyCallPlan(ToyPlan):
    schema: ClassVar[str] = "toycall.plan"


class ToyCall(Toy):
    name = "toycall"
    planner = "ToyCallPlanner"
    trainer = "ToyCallTrainer"
    plan_id = "TOYCALL"
    plan_type = ToyCallPlan
    result_type = Call

    def suits(self, description: DatasetDescription) -> str | None:
        return "dataset.json asks for cases" if description.target == "case" else None

    def samples(self, job) -> Iterator[tuple[float, str]]:
        description = read_description(job.paths.root)
        truth = self.case_truth(job.paths, description, job.plan.folds[job.fold].train)
        for case in list_cases(job.paths, description):
            if case.case_id in truth:
                yield brightest(case, job.plan), truth[case.case_id]

    def open(self, model, fold, options):
        return ToyCallPredictor(self, model, fold, options)


class ToyCallPredictor(ToyPredictor):
    def predict(self, job: CaseJob) -> Call:
        probabilities = self.probabilities(brightest(job.case, self.plan))
        return Call(job.case_id, job.made_from, probabilities, self.cutoff(probabilities))


def brightest(case: RawCase, plan: ToyPlan) -> float:
    return max(each.value for each in measured(case, plan))
