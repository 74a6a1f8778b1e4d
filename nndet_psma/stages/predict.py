"""Stage predict: test cases of a task, any folder of images, or one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.core.atomic import remove_leftovers, write_text
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.progress import progress_bar
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.inference.input_cases import (
    description_from_plan,
    input_cases,
    part_of,
    without_ctv_modality,
)
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predict_result import PredictResult
from nndet_psma.inference.predictor import CasePredictor, choose_device
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.preprocess.build import load_case
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

__all__ = [
    "RAW_FOLDER",
    "PredictJob",
    "PredictResult",
    "description_from_plan",
    "folder_cases",
    "predict_cases",
    "predict_job",
    "read_inference_plan",
    "without_ctv_modality",
    "write_index",
]

RAW_FOLDER = "raw"
INDEX = "predictions.json"


@dataclass(frozen=True)
class PredictJob:
    """What to predict.

    Attributes:
        folder: the model.
        fold: which fold, -1 for the consolidated ensemble.
        cases: image files.
        description: modalities and classes.
        target: folder of the results.
        whole_slices: search whole slices: for images without CTV.
        tta: mirror images, too.
        device: name of the device.
        batch_size: slices at once.
        num_parts: jobs that share the cases.
        part_id: which of them this is, from 0.
        overwrite: predict finished cases again.
    """

    folder: ModelFolder
    fold: int
    cases: list[RawCase]
    description: DatasetDescription
    target: Path
    whole_slices: bool
    tta: bool
    device: str
    batch_size: int | None
    num_parts: int = 1
    part_id: int = 0
    overwrite: bool = False


def predict_job(job: PredictJob, say: Callable[[str], None]) -> PredictResult:
    """Predict the cases of the job's part. Writes ``<case>_boxes.json`` and the raw predictions of each.

    A case is kept when it was predicted from the same image bytes, weights, plan and views; its thresholds are
    applied again. A case that cannot be read or prepared does not stop the others. A segmentation model leaves
    ``<case>_seg.nii.gz`` and ``<case>_instances.nii.gz``, too.

    Raises:
        UserError: the model is missing or damaged, there is no such part, or the disk is full.
    """
    inference = job.folder.inference_plan(job.fold)
    if isinstance(job.folder.plan(job.fold), NodeSegPlan):
        return _segment(job, say)
    cases = part_of(job.cases, job.num_parts, job.part_id)
    predictor = CasePredictor(
        job.folder,
        job.fold,
        source_folds=inference.folds,
        device=choose_device(job.device),
        batch_size=job.batch_size,
        tta=job.tta,
        whole_slices=job.whole_slices,
    )
    settings = PostprocSettings(**inference.settings)
    if job.num_parts == 1 and job.target.is_dir():
        for folder in (job.target, job.target / RAW_FOLDER):
            remove_leftovers(folder)  # not beside other parts: they may be writing
    result = PredictResult()
    with progress_bar("predict", len(cases)) as advance:
        for done, case in enumerate(cases, start=1):
            say(_predict_case(job, case, predictor, settings, result))
            advance(done, case.case_id)
    return result


def _segment(job: PredictJob, say: Callable[[str], None]) -> PredictResult:
    """The job done by nnU-Net; ``batch_size`` has no meaning there."""
    from nndet_psma.systems.nodeseg.nnunet import predict as nnunet

    part = nnunet.SegmentationJob(
        folder=job.folder,
        fold=job.fold,
        cases=job.cases,
        description=job.description,
        target=job.target,
        device=choose_device(job.device),
        mirrored=job.tta,
        num_parts=job.num_parts,
        part_id=job.part_id,
        overwrite=job.overwrite,
    )
    return nnunet.predict_cases(part, say)


def predict_cases(job: PredictJob, say: Callable[[str], None]) -> list[Prediction]:
    """As :func:`predict_job`, but the first case that fails is an error in the end.

    Raises:
        UserError: a case could not be predicted; the others are finished.
    """
    result = predict_job(job, say)
    for error in result.failed.values():
        raise error
    return result.predictions


def read_inference_plan(folder: ModelFolder, fold: int) -> InferencePlan:
    """Tuned thresholds of a fold or of the consolidated model."""
    return folder.inference_plan(fold)


def folder_cases(folder: Path, plan: Plan | NodeSegPlan, *, without_ctv: bool) -> list[RawCase]:
    """Cases of a folder, or of one file, given with ``-i``.

    Raises:
        UserError: no cases, or files are missing; without CTV files the remedy names ``--region body``.
    """
    return input_cases(folder, description_from_plan(cast(Plan, plan)), without_ctv=without_ctv)


def write_index(
    job: PredictJob, result: PredictResult, inference: InferencePlan, command: dict[str, Any]
) -> Path:
    """``predictions.json``: one line per case, thresholds and their source, what failed.

    The cases of other parts are listed, too, as far as they are finished: whichever part ends last lists all.
    """
    found = {prediction.case_id: _index_row(prediction) for prediction in result.predictions}
    if job.num_parts > 1:
        for case in job.cases:
            file = _boxes_file(job, case)
            if case.case_id not in found and case.case_id not in result.failed and file.is_file():
                found[case.case_id] = _index_row(Prediction.read(file))
    content = {
        "thresholds": inference.settings,
        "thresholds_source": inference.source,
        "options": command,
        "cases": [found[case.case_id] for case in job.cases if case.case_id in found],
        "failed": [{"case_id": case_id, "error": str(error)} for case_id, error in result.failed.items()],
    }
    write_text(job.target / INDEX, json.dumps(content, indent=2) + "\n")
    return job.target / INDEX


def _index_row(prediction: Prediction) -> dict[str, Any]:
    return {
        "case_id": prediction.case_id,
        "search_region": prediction.search_region,
        "lesions": len(prediction.lesions),
        "best_score": max((c.score for c in prediction.candidates), default=0.0),
    }


def _boxes_file(job: PredictJob, case: RawCase) -> Path:
    return job.target / f"{case.case_id}_boxes.json"


def _predict_case(
    job: PredictJob,
    case: RawCase,
    predictor: CasePredictor,
    settings: PostprocSettings,
    result: PredictResult,
) -> str:
    """Predict one case unless it is current; returns the line to say."""
    raw_file = job.target / RAW_FOLDER / f"{case.case_id}.npz"
    try:
        made_from = hash_json([predictor.weights_hash, _hash_images(case)])
        current = not job.overwrite and is_current(raw_file, made_from)
        found = None if current else _detect(job, case, predictor, made_from)
    except UserError as error:
        result.failed[case.case_id] = error
        return f"{case.case_id}: FAILED: {error}"
    if found is not None:
        write_raw(raw_file, found)
    # read back, so that a case predicted now and one kept give the same bytes
    prediction = make_prediction(read_raw(raw_file), settings, predictor.plan.classes)
    _write_if_new(prediction, _boxes_file(job, case))
    result.predictions.append(prediction)
    if current:
        result.kept.append(case.case_id)
    counts = f"{len(prediction.lesions)} lesions, {len(prediction.candidates)} candidates"
    return f"{case.case_id}: {counts}" + (" (finished before)" if current else "")


def _hash_images(case: RawCase) -> str:
    try:
        return hash_files(list(case.images))
    except OSError as error:
        raise UserError("cannot be read", file=error.filename, found=str(error.strerror)) from None


def _detect(job: PredictJob, case: RawCase, predictor: CasePredictor, made_from: str) -> Any:
    prepared = load_case(case, job.description, predictor.plan, with_labels=False)
    return predictor.predict(prepared, original_geometry(case.images[0]), made_from)


def _write_if_new(prediction: Prediction, file: Path) -> None:
    """Leave a file alone that says the same, so that its time tells when the prediction was made."""
    with suppress(UserError):  # of another version, or damaged: written anew
        if file.is_file() and Prediction.read(file) == prediction:
            return
    prediction.write(file)
