"""Stage candidates: what a detector has found of patients it had not seen, as a task for a second stage.

Every candidate is an object: the ellipsoid in its box, as prediction draws it. It is a lesion when its box meets one of
its class (IoU in 3D of at least 0.1, as in the scores), else a false alarm; these are no nodes, and the class says so.
Candidates of a training case come from the fold that was not trained on its patient, those of a test case from the
consolidated model; the folds of the new task are those of the detector, so that no network of either stage has seen
the patients that the two are fused on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.model_folder import CONSOLIDATED, TEST_PREDICTIONS, VAL_PREDICTIONS, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.ellipsoids import ellipsoid_mask
from nndet_psma.boxes.geometry import map_boxes
from nndet_psma.core.atomic import atomic_folder, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.progress import progress_bar
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.evaluation.detection.matching import class_overlaps
from nndet_psma.evaluation.detection.record import ACCEPTED_IOUS
from nndet_psma.inference.records import read_truth
from nndet_psma.postproc.fusion import DETECTOR_SCORE
from nndet_psma.stages.scored_cases import box_type, labelled_cases

FALSE_ALARM = "false_alarm"
_HIT_IOU = ACCEPTED_IOUS[0]


@dataclass(frozen=True)
class CandidateTask:
    """What was made: cases and objects by split ("Tr", "Ts"), and how many objects are lesions."""

    paths: TaskPaths
    cases: dict[str, int]
    objects: dict[str, int]
    lesions: dict[str, int]


def write_candidate_task(
    paths: TaskPaths, folder: ModelFolder, target: TaskPaths, say: Callable[[str], None]
) -> CandidateTask:
    """Write the raw task; images are linked where the file system can, else copied.

    Args:
        paths: the detector's task.
        folder: a trained detector, its folds swept; its test cases predicted where there are any.
        target: the new task; it must not exist.
        say: takes one line per split.

    Raises:
        UserError: the target exists, several classes of lesions, or a fold lacks predictions.
    """
    if target.root.exists():
        raise UserError("the task exists already", file=target.root, remedy="Choose another number or name")
    description = read_description(paths.root)
    if len(description.labels) != 1:
        raise UserError(
            "candidates become a task of lesions and false alarms, so there must be one class of lesions",
            file=paths.root,
            found=", ".join(description.labels.values()),
            expected="one class",
        )
    found = {"Tr": out_of_fold(folder), "Ts": _test_predictions(folder)}
    done = CandidateTask(target, {}, {}, {})
    with atomic_folder(target.root) as temporary:
        _write_task(paths, folder, TaskPaths(temporary), found, done, say)
        _describe(description, target.name, temporary)
    return done


def _write_task(
    paths: TaskPaths,
    folder: ModelFolder,
    target: TaskPaths,
    found: Mapping[str, Mapping[str, Prediction]],
    done: CandidateTask,
    say: Callable[[str], None],
) -> None:
    description = read_description(paths.root)
    for split, predictions in found.items():
        cases = labelled_cases(paths, description, split) if predictions else {}
        rows = [(cases[c], each) for c, each in sorted(predictions.items()) if c in cases]
        counts = [0, 0]
        with progress_bar(f"candidates of images{split}", len(rows)) as advance:
            for number, (case, prediction) in enumerate(rows, start=1):
                objects, lesions = _write_case(case, prediction, description, target, split)
                counts = [counts[0] + objects, counts[1] + lesions]
                advance(number, case.case_id)
        done.cases[split], done.objects[split], done.lesions[split] = len(rows), *counts
        say(f"images{split}: {len(rows)} cases, {counts[0]} candidates, {counts[1]} of them on a lesion")
    _write_tables(paths, folder, target, set(found["Tr"]))


def out_of_fold(folder: ModelFolder) -> dict[str, Prediction]:
    """Predictions of validation cases by case, each of the fold that was not trained on it.

    Raises:
        UserError: no fold is trained, one has no predictions, or predicted a case that it was trained on.
    """
    found: dict[str, Prediction] = {}
    folds = folder.trained_folds()
    if not folds:
        raise UserError("no fold is trained", file=folder.root, remedy="Run nndet_train first")
    for fold in folds:
        place, plan = folder.fold(fold) / VAL_PREDICTIONS, folder.plan(fold)
        files = sorted(place.glob(f"*{Prediction.suffix}")) if box_type(folder, fold) is Prediction else []
        if not files:
            raise UserError(
                "holds no predictions of validation cases", file=place, remedy="Run nndet_sweep first"
            )
        for file in files:
            prediction = Prediction.read(file)
            if prediction.case_id not in plan.folds[fold].val:
                raise UserError(
                    f"case {prediction.case_id} is no validation case of fold {fold}: the detector has seen it",
                    file=file,
                    remedy="Run nndet_sweep again",
                )
            found[prediction.case_id] = prediction
    return found


def _test_predictions(folder: ModelFolder) -> dict[str, Prediction]:
    place = folder.fold(CONSOLIDATED) / TEST_PREDICTIONS
    return {each.case_id: each for each in map(Prediction.read, sorted(place.glob(f"*{Prediction.suffix}")))}


def candidate_labels(
    prediction: Prediction, case: RawCase, description: DatasetDescription
) -> NDArray[np.bool_]:
    """Whether each candidate meets a lesion ``[N]``."""
    truth, grid = read_truth(case, description)
    boxes = np.array([each.box for each in prediction.candidates]).reshape(-1, 6)
    labels = np.array([each.label for each in prediction.candidates], dtype=np.int64)
    overlaps = class_overlaps(map_boxes(boxes, prediction.image, grid), labels, truth.boxes, truth.labels)
    hit: NDArray[np.bool_] = overlaps.max(axis=1, initial=0.0) >= _HIT_IOU
    return hit


def _write_case(
    case: RawCase, prediction: Prediction, description: DatasetDescription, target: TaskPaths, split: str
) -> tuple[int, int]:
    mask = ellipsoid_mask([each.box for each in prediction.candidates], prediction.image.shape)
    hits = candidate_labels(prediction, case, description)
    shown = [int(number) - 1 for number in np.unique(mask) if number]  # others lie wholly under better ones
    mask = np.searchsorted([0, *(number + 1 for number in shown)], mask).astype(np.uint16)  # consecutive
    for index, file in enumerate(case.images):
        suffix = "".join(file.suffixes[-2:]) if file.name.endswith(".gz") else file.suffix
        _link(file, target.images(split) / f"{case.case_id}_{index:04d}{suffix}")
    label = target.labels(split) / f"{case.case_id}.nii.gz"
    label.parent.mkdir(parents=True, exist_ok=True)
    write_volume(label, mask, prediction.image)
    scores = [prediction.candidates[number].score for number in shown]
    content = {
        "instances": {str(n): int(hits[number]) for n, number in enumerate(shown, start=1)},
        "measured": {DETECTOR_SCORE: {str(n): score for n, score in enumerate(scores, start=1)}},
    }
    write_json(label.with_name(f"{case.case_id}.json"), content)
    return len(shown), int(hits[shown].sum())


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # another file system, or one without hard links
        os.link(source, target)
        return
    shutil.copyfile(source, target)


def _write_tables(paths: TaskPaths, folder: ModelFolder, target: TaskPaths, cases: set[str]) -> None:
    if paths.clinical.is_file():
        shutil.copyfile(paths.clinical, target.clinical)
    plan = folder.plan(folder.trained_folds()[0])
    folds: list[Mapping[str, list[str]]] = [
        {"train": [c for c in fold.train if c in cases], "val": [c for c in fold.val if c in cases]}
        for fold in plan.folds
    ]
    write_json(target.splits, folds)


def _describe(description: DatasetDescription, name: str, root: Path) -> None:
    content = description.to_json()
    content |= {"task": name, "name": name.partition("_")[2], "target_class": 1}
    content["labels"] = {"0": FALSE_ALARM, "1": next(iter(description.labels.values()))}
    content["psma"] = {"target": "node_status"}
    write_json(root / "dataset.json", content)
