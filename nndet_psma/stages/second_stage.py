"""Second stage: a classifier judges what a detector or a segmentation has found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.results import Judged, Result
from nndet_psma.boxes.ellipsoids import ellipsoid_mask
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.stages.predict import PredictJob, PredictResult
from nndet_psma.systems.api import Predictor

MASK = "_instances.nii.gz"
"""Numbered objects that a segmentation leaves beside its result."""


def judge_found(
    job: PredictJob, done: PredictResult, classifier: Predictor, say: Callable[[str], None]
) -> list[Judged]:
    """Judge the accepted lesions of every predicted case; results are written beside those of the first stage.

    The objects are those of the first stage's mask where it has left one, else ellipsoids in the boxes of its lesions,
    numbered from the best. Their scores stay as they are.

    Args:
        job: of the first stage.
        done: by it.
        classifier: a model that judges given objects.
        say: takes one line per case.

    Raises:
        UserError: the classifier judges no given objects, needs a mask where there are only boxes, or asks for
            modalities that the cases do not have.
    """
    plan = classifier.plan
    if not isinstance(plan, ClassifierPlan):
        raise UserError(
            "the model of the second stage judges no given objects",
            found=type(plan).__name__,
            expected="a model of nodestatus",
        )
    cases = {case.case_id: case for case in job.cases}
    found = []
    for result in done.results:
        case = cases[result.case_id]
        image = read_volume(_ct_file(case, job, plan), canonical=False)
        objects = _objects(job.target, result, image, plan)
        judged = classifier.predict_objects(image, objects, case_id=case.case_id)
        judged.write(judged.file(job.target, case.case_id))
        say(f"{case.case_id}: {judged.told()}")
        found.append(judged)
    return found


def _ct_file(case: RawCase, job: PredictJob, plan: ClassifierPlan) -> Path:
    named = {name: index for index, name in job.description.modalities.items()}
    if plan.ct_name not in named:
        raise UserError(
            "the second stage needs an image that the first does not have",
            expected=plan.ct_name,
            found=", ".join(named),
        )
    return case.images[named[plan.ct_name]]


def _objects(target: Path, result: Result, image: Volume, plan: ClassifierPlan) -> Volume:
    mask = target / f"{result.case_id}{MASK}"
    if mask.is_file():
        return read_volume(mask, canonical=False)
    if not isinstance(result, Prediction):
        raise UserError(
            f"results of the type {type(result).__name__} hold no lesions to judge",
            expected="a detector or node segmentation as the first stage",
        )
    if plan.crop.input == "ct*mask":
        raise UserError(
            "the second stage sees the CT inside a mask only, and the first finds boxes",
            remedy="Use a classifier with plan_cfg.input=ct+mask or ct, or a segmentation as first stage",
        )
    boxes = [lesion.box for lesion in result.lesions]
    return Volume(ellipsoid_mask(boxes, image.geometry.shape), image.geometry)
