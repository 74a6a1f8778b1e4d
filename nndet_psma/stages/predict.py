"""Stage predict: test cases of a task, or any folder of images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.plan import Plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.progress import progress_bar
from nndet_psma.dataset.cases import RawCase, list_folder_cases
from nndet_psma.dataset.description import DatasetDescription
from nndet_psma.dataset.images import original_geometry
from nndet_psma.inference.model_folder import ModelFolder
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predictor import CasePredictor, choose_device
from nndet_psma.inference.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.postproc.settings import PostprocSettings
from nndet_psma.preprocess.build import load_case
from nndet_psma.stages.sweep import INFERENCE_PLAN

RAW_FOLDER = "raw"


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


def predict_cases(job: PredictJob, say: Callable[[str], None]) -> list[Prediction]:
    """Predict every case; finished cases are kept. Writes ``<case>_boxes.json`` and the raw predictions."""
    inference = read_inference_plan(job.folder, job.fold)
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
    results = []
    with progress_bar("predict", len(job.cases)) as advance:
        for done, case in enumerate(job.cases, start=1):
            results.append(_predict_case(job, case, predictor, settings))
            say(
                f"{case.case_id}: {len(results[-1].lesions)} lesions, {len(results[-1].candidates)} candidates"
            )
            advance(done, case.case_id)
    return results


def read_inference_plan(folder: ModelFolder, fold: int) -> InferencePlan:
    """Tuned thresholds of a fold or of the consolidated model."""
    folder.plan(fold)
    file = folder.fold(fold) / INFERENCE_PLAN
    if not file.is_file():
        raise UserError(
            "thresholds are not tuned yet", file=file, remedy="Run nndet_sweep (or nndet_train --sweep)"
        )
    return InferencePlan.read(file)


def description_from_plan(plan: Plan) -> DatasetDescription:
    """Modalities and classes as the model knows them; no task folder is needed."""
    return DatasetDescription(
        task=plan.task,
        name=plan.task,
        dim=3,
        labels={int(i): name for i, name in plan.classes.items()},
        modalities={int(i): name for i, name in plan.modalities.items()},
        target_class=None,
        test_labels=False,
        psma={},
    )


def folder_cases(folder: Path, plan: Plan, *, without_ctv: bool) -> list[RawCase]:
    """Cases of a folder given with ``-i``.

    Raises:
        UserError: no cases, or files are missing; without CTV files the remedy names ``--region body``.
    """
    description = description_from_plan(plan)
    if not without_ctv:
        try:
            return list_folder_cases(folder, description)
        except UserError as error:
            ctv = description.ctv_modality
            if ctv is None or not error.what.startswith(f"the {description.modalities[ctv]} of case"):
                raise
            raise UserError(
                error.what,
                file=error.file,
                found=error.found,
                remedy="Add it, or search whole slices instead with --region body",
            ) from None
    try:
        return list_folder_cases(folder, without_ctv_modality(description))
    except UserError as error:
        try:
            return list_folder_cases(folder, description)  # CTV files are there and stay unused
        except UserError:
            raise error from None


def without_ctv_modality(description: DatasetDescription) -> DatasetDescription:
    """The same without the CTV modality, which must be the last one."""
    from dataclasses import replace

    index = description.ctv_modality
    if index is None:
        return description
    if index != max(description.modalities):
        raise UserError(
            "the CTV is not the last modality, so images without it cannot be numbered",
            remedy="Provide a CTV file for every case",
        )
    return replace(description, modalities={i: n for i, n in description.modalities.items() if i != index})


def write_index(
    target: Path, predictions: list[Prediction], inference: InferencePlan, command: dict[str, Any]
) -> None:
    """``predictions.json``: one line per case, thresholds and their source."""
    from nndet_psma.core.atomic import write_text

    content = {
        "thresholds": inference.settings,
        "thresholds_source": inference.source,
        "options": command,
        "cases": [
            {
                "case_id": p.case_id,
                "search_region": p.search_region,
                "lesions": len(p.lesions),
                "best_score": max((c.score for c in p.candidates), default=0.0),
            }
            for p in predictions
        ],
    }
    write_text(target / "predictions.json", json.dumps(content, indent=2) + "\n")


def _predict_case(
    job: PredictJob, case: RawCase, predictor: CasePredictor, settings: PostprocSettings
) -> Prediction:
    made_from = hash_json([predictor.weights_hash, hash_files(list(case.images))])
    file = job.target / RAW_FOLDER / f"{case.case_id}.npz"
    if not is_current(file, made_from):
        prepared = load_case(case, job.description, predictor.plan, with_labels=False)
        write_raw(file, predictor.predict(prepared, original_geometry(case.images[0]), made_from))
    prediction = make_prediction(read_raw(file), settings, predictor.plan.classes)
    prediction.write(job.target / f"{case.case_id}_boxes.json")
    return prediction
