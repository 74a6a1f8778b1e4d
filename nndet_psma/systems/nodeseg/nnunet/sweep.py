"""Validation cases of a segmentation model: raw boxes and truth on the canonical grid of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nndet_psma.artifacts.model_folder import VALIDATION_RAW
from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_files, hash_json
from nndet_psma.core.progress import progress_bar
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.inference.predictor import choose_device
from nndet_psma.postproc.sweep.case import SweepCase
from nndet_psma.systems.nodeseg.nnunet.input_case import read_case
from nndet_psma.systems.nodeseg.nnunet.predict import open_networks
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.settings import NodeSegSettings
from nndet_psma.systems.system import TuneJob


def predict_validation(job: TuneJob[NodeSegOptions, NodeSegSettings], fold: int) -> list[str]:
    """Raw predictions of the fold's validation cases; finished ones are kept. Returns the case ids."""
    device = choose_device(job.config.inference_kwargs.device)
    networks = open_networks(job.model, fold, [fold], device, mirrored=True)
    description = read_description(job.paths.root)
    known = _known_cases(job.paths, description)
    names = networks.plan.folds[fold].val
    with progress_bar(f"fold {fold}: validation cases", len(names)) as advance:
        for done, name in enumerate(names, start=1):
            case = _known(known, name)
            made_from = hash_json([networks.weights_hash, hash_files(list(case.images))])
            file = job.model.fold(fold) / VALIDATION_RAW / f"{name}.npz"
            if not is_current(file, made_from):
                found = networks.predict(read_case(case, description, networks.plan), made_from)
                write_raw(file, found.raw)
            advance(done, name)
    return list(names)


def sweep_cases(paths: TaskPaths, files: Sequence[Path]) -> list[SweepCase]:
    """Found and true boxes of each file of raw predictions."""
    description = read_description(paths.root)
    known = _known_cases(paths, description)
    return [sweep_case(file, _known(known, file.stem), description) for file in files]


def sweep_case(file: Path, case: RawCase, description: DatasetDescription) -> SweepCase:
    """Raw prediction and truth (one 3D box per lesion) of a case, both on the canonical grid of its files."""
    raw = read_raw(file)
    labels, classes = read_labels(case, description)
    ids, boxes = boxes_from_instances(labels.array)
    of_class = [classes[instance] for instance in ids.tolist()]
    truth = Detections.build(boxes, np.ones(len(boxes)), of_class, dim=3)
    shape, spacing = labels.geometry.shape, labels.geometry.spacing
    return SweepCase(raw.meta.case_id, raw.voters, truth, len(ids), shape[0], spacing)


def _known_cases(paths: TaskPaths, description: DatasetDescription) -> dict[str, RawCase]:
    return {case.case_id: case for case in list_cases(paths, description)}


def _known(cases: dict[str, RawCase], name: str) -> RawCase:
    if name not in cases:
        raise UserError(f"validation case {name} does not exist any more", remedy="Run nndet_prep")
    return cases[name]
