"""Second stage: a classifier judges what a detector or a segmentation has found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nndet_psma.artifacts.classified import Classified
from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.artifacts.prediction import FusedPrediction, PredictedLesion, Prediction
from nndet_psma.artifacts.results import Judged, Result
from nndet_psma.boxes.ellipsoids import ellipsoid_mask
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import from_plain
from nndet_psma.dataset.images.images import Volume, read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.postproc.fusion import DETECTOR_SCORE, Fusion
from nndet_psma.stages.predict import PredictJob, PredictResult
from nndet_psma.systems.api import Predictor

MASK = "_instances.nii.gz"
"""Numbered objects that a segmentation leaves beside its result."""


def judge_found(
    job: PredictJob, done: PredictResult, classifier: Predictor, say: Callable[[str], None]
) -> list[Judged]:
    """Judge what the first stage has found in every case; results are written beside its own.

    The objects are those of the first stage's mask where it has left one, else ellipsoids in the boxes of its lesions,
    numbered from the best. A classifier that was trained on the detector's candidates judges all of these, and
    ``CASE_fused.json`` holds them with the score of both stages; the first stage's own file stays as it is.

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
    given = classifier.settings.get("fusion")
    fusion = None if given is None else from_plain(Fusion, given, "settings.fusion")
    cases = {case.case_id: case for case in job.cases}
    found = []
    for result in done.results:
        case = cases[result.case_id]
        image = read_volume(_file(case, job, str(plan.ct_name)), canonical=False)
        judge_all = fusion is not None and isinstance(result, Prediction)
        boxes = result.candidates if judge_all and isinstance(result, Prediction) else None
        objects = _objects(job.target, result, image, plan, boxes)
        measured = {n: {DETECTOR_SCORE: each.score} for n, each in enumerate(boxes or (), start=1)}
        judged = classifier.predict_objects(
            image, objects, _ctv(case, job, plan), measured=measured, case_id=case.case_id
        )
        judged.write(judged.file(job.target, case.case_id))
        say(f"{case.case_id}: {judged.told()}")
        if fusion is not None and isinstance(result, Prediction) and isinstance(judged, Classified):
            fused = fused_prediction(result, judged, fusion)
            fused.write(fused.file(job.target, case.case_id))
            say(f"{case.case_id}: both stages: {fused.told()}")
        found.append(judged)
    return found


def fused_prediction(found: Prediction, judged: Classified, fusion: Fusion) -> FusedPrediction:
    """The candidates with the scores of both stages, best first.

    A candidate whose ellipsoid lies wholly under those of better ones was not judged and is left out, as in training.
    """
    fused = {each.object_id: each.fused for each in judged.objects}
    rows = [
        _rescored(each, score)
        for number, each in enumerate(found.candidates, start=1)
        if (score := fused.get(number)) is not None
    ]
    ranked = sorted(rows, key=lambda each: -each.score)
    return FusedPrediction(
        case_id=found.case_id,
        made_from=hash_json([found.made_from, judged.made_from]),
        detector=found.made_from,
        search_region=found.search_region,
        image=found.image,
        examined=found.examined,
        lesions=[each for each in ranked if each.score >= fusion.threshold],
        candidates=ranked,
    )


def _rescored(lesion: PredictedLesion, score: float) -> PredictedLesion:
    """With another score; its slices keep their order among each other."""
    best = max((part.score for part in lesion.slices), default=1.0) or 1.0
    slices = [replace(part, score=score * part.score / best) for part in lesion.slices]
    return replace(lesion, score=score, slices=slices)


def _file(case: RawCase, job: PredictJob, name: str) -> Path:
    named = {modality: index for index, modality in job.description.modalities.items()}
    if name not in named:
        raise UserError(
            "the second stage needs an image that the first does not have",
            expected=name,
            found=", ".join(named),
        )
    return case.images[named[name]]


def _ctv(case: RawCase, job: PredictJob, plan: ClassifierPlan) -> Volume | None:
    """The search region, where the second stage measures the distance to it and the case has one."""
    index = job.description.ctv_modality
    if plan.ctv_modality is None or index is None or index >= len(case.images):
        return None
    return read_volume(case.images[index], canonical=False)


def _objects(
    target: Path, result: Result, image: Volume, plan: ClassifierPlan, given: Sequence[PredictedLesion] | None
) -> Volume:
    mask = target / f"{result.case_id}{MASK}"
    if given is None and mask.is_file():
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
    boxes = [lesion.box for lesion in (result.lesions if given is None else given)]
    return Volume(ellipsoid_mask(boxes, image.geometry.shape), image.geometry)
