"""Predict cases with a segmentation model: boxes in our form, the segmentation, and the nodes as instances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import CONSOLIDATED, INFERENCE_PLAN, ModelFolder
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.dataset.images.images import Volume, canonical_geometry, resample_volume, write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.inference.input_cases import part_of
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.inference.predict_result import PredictResult
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.systems.nodeseg.nnunet.input_case import read_case
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.predictor import SegmentationPredictor, SegmentedCase
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

RAW_FOLDER = "raw"


@dataclass(frozen=True)
class SegmentationJob:
    """What to predict; fields as in the job of the detectors.

    Attributes:
        folder: the model.
        fold: which fold, -1 for the consolidated ensemble.
        cases: image files.
        description: modalities and classes.
        target: folder of the results.
        device: where to run.
        mirrored: also look at mirror images, as ``nnUNetv2_predict`` does unless told otherwise.
        num_parts: jobs that share the cases.
        part_id: which of them this is, from 0.
        overwrite: predict finished cases again.
    """

    folder: ModelFolder
    fold: int
    cases: Sequence[RawCase]
    description: DatasetDescription
    target: Path
    device: torch.device
    mirrored: bool = True
    num_parts: int = 1
    part_id: int = 0
    overwrite: bool = False


def predict_cases(job: SegmentationJob, say: Callable[[str], None]) -> PredictResult:
    """Predict the cases of the job's part.

    Writes for each ``raw/CASE.npz``, ``CASE_boxes.json``, ``CASE_seg.nii.gz`` (class + 1, as ``nnUNetv2_predict``
    writes it), ``CASE_instances.nii.gz`` (a number per node, best first) and ``CASE_instances.json`` (class and score
    of each number), all on the grid of the image file. A case is kept when it was predicted from the same images,
    weights and plan; its thresholds are applied again. A case that cannot be read does not stop the others.

    Raises:
        UserError: the model is missing or damaged, or there is no such part.
    """
    predictor, inference = open_predictor(job.folder, job.fold, job.device, job.mirrored)
    settings = PostprocSettings(**inference.settings)
    result = PredictResult()
    for case in part_of(list(job.cases), job.num_parts, job.part_id):
        try:
            current = _segment(job, case, predictor)
        except UserError as error:
            result.failed[case.case_id] = error
            say(f"{case.case_id}: FAILED: {error}")
            continue
        # read back, so that a case predicted now and one kept give the same bytes
        raw = read_raw(job.target / RAW_FOLDER / f"{case.case_id}.npz")
        prediction = make_prediction(raw, settings, predictor.plan.classes)
        prediction.write(job.target / f"{case.case_id}_boxes.json")
        result.predictions.append(prediction)
        result.kept += [case.case_id] if current else []
        counts = f"{len(prediction.lesions)} lesions, {len(prediction.candidates)} candidates"
        say(f"{case.case_id}: {counts}" + (" (finished before)" if current else ""))
    return result


def open_predictor(
    folder: ModelFolder, fold: int, device: torch.device, mirrored: bool = True
) -> tuple[SegmentationPredictor, InferencePlan]:
    """The networks of a fold or of the consolidated model, and its thresholds (the plan's, untuned ones, of a fold).

    Raises:
        UserError: the model is missing or damaged.
    """
    model = SegmentationModel(folder)
    plan = model.plan(fold)
    file = folder.fold(fold) / INFERENCE_PLAN
    inference = InferencePlan.read(file) if file.is_file() else untuned(plan, [fold])
    sources = inference.folds if fold == CONSOLIDATED else [fold]
    files = [model.checkpoint(plan, fold, source) for source in sources]
    trained = model.trained(plan, fold)
    return SegmentationPredictor(plan, trained, files, device=device, mirrored=mirrored), inference


def untuned(plan: NodeSegPlan, folds: list[int]) -> InferencePlan:
    """The plan's starting thresholds."""
    settings = dict(plan.postproc_defaults)
    return InferencePlan("", folds, settings, "", None, "starting values of the plan, not tuned", [])


def _segment(job: SegmentationJob, case: RawCase, predictor: SegmentationPredictor) -> bool:
    """Predict one case unless it is current; whether it was."""
    raw_file = job.target / RAW_FOLDER / f"{case.case_id}.npz"
    try:
        made_from = hash_json([predictor.weights_hash, hash_files(list(case.images))])
    except OSError as error:
        raise UserError("cannot be read", file=error.filename, found=str(error.strerror)) from None
    written = [job.target / f"{case.case_id}{ending}" for ending in ("_seg.nii.gz", "_instances.nii.gz")]
    if not job.overwrite and is_current(raw_file, made_from) and all(file.is_file() for file in written):
        return True
    found = predictor.predict(read_case(case, job.description, predictor.plan), made_from)
    write_masks(job.target, found)
    write_raw(raw_file, found.raw)  # last: it says that the case is finished
    return False


def write_masks(target: Path, found: SegmentedCase) -> None:
    """Segmentation, and its nodes as instances, on the grid of the image file; weak candidates are boxes only."""
    meta, nodes = found.raw.meta, found.nodes
    count = int(nodes.certain.sum())  # weak candidates rank behind; a mask of them would be measured as nodes
    smallest = np.min_scalar_type(max(1, count))
    write_volume(target / f"{meta.case_id}_seg.nii.gz", on_file_grid(found.labels, meta.image), meta.image)
    accepted = np.where(nodes.ids <= count, nodes.ids, 0).astype(smallest)
    ids = on_file_grid(accepted, meta.image)
    write_volume(target / f"{meta.case_id}_instances.nii.gz", ids, meta.image)
    content = {
        "instances": {str(i): int(label) for i, label in enumerate(nodes.labels[:count], start=1)},
        "scores": {str(i): round(float(score), 6) for i, score in enumerate(nodes.scores[:count], start=1)},
    }
    write_json(target / f"{meta.case_id}_instances.json", content)


def on_file_grid(array: NDArray, image: Geometry) -> NDArray:
    """An array on the canonical grid with the axes of the file again; no voxel is interpolated."""
    canonical = canonical_geometry(image)
    if canonical.same_grid(image) and canonical.direction == image.direction:
        return array
    return resample_volume(Volume(array, canonical), image, order=0, fill=0.0).array
