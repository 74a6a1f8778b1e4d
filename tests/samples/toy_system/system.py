"""``toy``: judges every object of the mask OBJECTS by its mean CT value, with one mean per class and fold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Decision, Plan
from nndet_psma.artifacts.results import Judged, Judgement
from nndet_psma.boxes.box import box_centres, boxes_from_instances
from nndet_psma.boxes.geometry import map_boxes
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import original_geometry, read_volume
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.inference.case_predictor import CaseJob, CasePredictor
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.systems.judging_system import JudgingPredictor, JudgingSystem
from nndet_psma.systems.system import Facts, OpenOptions, PlanJob, TrainJob
from nndet_psma.trainers.networks.weights import read_state, write_state


@dataclass(frozen=True, kw_only=True)
class ToyPlan(Plan):
    schema: ClassVar[str] = "toy.plan"  # a plan's file tells by it which system it belongs to

    objects_modality: int


@dataclass(frozen=True)
class ToySettings:
    least_spread: float = 10.0  # HU within a class, whatever the training objects say


class Toy(JudgingSystem[ToyPlan, PlannerOptions, ToySettings]):
    name = "toy"
    planner = "ToyPlanner"
    trainer = "ToyTrainer"
    plan_id = "TOY"
    plan_type = ToyPlan
    options_type = PlannerOptions
    settings_type = ToySettings

    def suits(self, description: DatasetDescription) -> str | None:
        return "dataset.json asks for objects" if description.target == "objects" else None

    def make_plan(self, job: PlanJob) -> ToyPlan:
        objects = [i for i, name in job.description.modalities.items() if name == "OBJECTS"]
        fields = job.fields()
        if not objects or fields["ct_modality"] is None:
            raise UserError(f"{self.name} needs the modalities CT and OBJECTS", file=job.paths.root)
        fields["decisions"]["objects_modality"] = Decision("toy.objects", "the modality of that name")
        return self.plan_type(**fields, objects_modality=objects[0])

    def facts(self, plan: ToyPlan, precision: str = "no") -> Facts:
        return Facts("The mean CT value of an object is compared with that of each class.")

    def train(self, job: TrainJob) -> None:
        file = job.model.weights(job.fold, self.name)
        if job.finished(file):
            return
        samples = list(self.samples(job))
        values = [[value for value, truth in samples if truth == name] for name in job.plan.classes.values()]
        if not all(values):
            raise UserError("a class has no training object", file=job.folder, found=str(job.plan.classes))
        spread = float(np.mean([np.std(found) for found in values]))
        spread = max(spread, job.config.trainer_cfg.least_spread)
        means = torch.tensor([float(np.mean(found)) for found in values])
        write_state({"means": means, "spread": torch.tensor([spread])}, file)

    def samples(self, job: TrainJob) -> Iterator[tuple[float, str]]:
        """Mean CT value and class of every training object of the fold."""
        description = read_description(job.paths.root)
        for case in list_cases(job.paths, description):
            if case.case_id in job.plan.folds[job.fold].train:
                truth = self.object_truth(case, description)
                for each in measured(case, job.plan):
                    if truth.get(each.object_id) is not None:
                        yield each.value, truth[each.object_id]

    def open(self, model: ModelFolder, fold: int, options: OpenOptions) -> CasePredictor:
        return ToyPredictor(self, model, fold, options)


class ToyPredictor(JudgingPredictor):
    def __init__(self, system: Toy, model: ModelFolder, fold: int, options: OpenOptions) -> None:
        super().__init__(system, model, fold, options)
        self.states = [read_state(file) for file in self.files]
        for file, state in zip(self.files, self.states, strict=True):
            if set(state) != {"means", "spread"} or len(state["means"]) != len(self.plan.classes):
                raise UserError("weights do not fit the plan", file=file, remedy="Train again")

    def predict(self, job: CaseJob) -> Judged:
        objects = []
        for each in measured(job.case, self.plan):
            probabilities = self.probabilities(each.value)
            decision = self.cutoff(probabilities)
            objects.append(Judgement(each.object_id, each.box, each.centre_mm, probabilities, decision))
        return Judged(job.case_id, job.made_from, objects)

    def probabilities(self, value: float) -> dict[str, float]:
        """Of normal distributions of one spread and equally frequent classes; the mean over the folds."""
        votes = [torch.softmax(-((value - s["means"]) ** 2) / (2 * s["spread"] ** 2), 0) for s in self.states]
        return dict(zip(self.plan.classes.values(), torch.stack(votes).mean(0).tolist(), strict=True))


@dataclass(frozen=True)
class Measured:
    object_id: int
    value: float  # mean HU
    box: tuple[float, ...]  # voxels of the image file
    centre_mm: tuple[float, float, float]  # LPS


def measured(case: RawCase, plan: ToyPlan) -> list[Measured]:
    """Every object of the mask."""
    ct, mask = (read_volume(case.images[index]) for index in (plan.ct_modality, plan.objects_modality))
    if not ct.geometry.same_grid(mask.geometry):
        raise UserError("CT and OBJECTS lie on different grids", file=case.images[plan.objects_modality])
    numbers, boxes = boxes_from_instances(mask.array)
    image = original_geometry(case.images[plan.ct_modality])
    placed = map_boxes(boxes, ct.geometry, image).tolist()
    centres = ct.geometry.to_patient(box_centres(boxes)).tolist()
    return [
        Measured(int(number), float(ct.array[mask.array == number].mean()), tuple(box), tuple(centre))
        for number, box, centre in zip(numbers, placed, centres, strict=True)
    ]
