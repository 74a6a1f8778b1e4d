"""Our predictions as a model folder that nnDetection's own ``nndet_eval`` scores.

nnDetection's evaluation reads ``<case>_boxes.pkl`` from the model folder and ``<case>_boxes_gt.npz`` from the task's
preprocessed folder. Of validation cases it wants both twice, restored and in its preprocessed space; the second is
given as a copy in the image's space, under the data identifier :data:`RAW_SPACE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.box import boxes_from_instances, to_nndetection
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import map_boxes
from nndet_psma.core.atomic import atomic_file
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import original_geometry
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.hosts.boxes_pkl.files import BOXES_SUFFIX, write_nndetection_boxes
from nndet_psma.hosts.boxes_pkl.write import dump_plain

RAW_SPACE = "raw_space"
"""Data identifier of exported validation results: the space of the image files."""

PLAN_FILE = "plan.pkl"
TRUTH_SUFFIX = "_boxes_gt.npz"


def export_results(
    paths: TaskPaths, predictions: Sequence[Prediction], target: ModelFolder, fold: int, *, test: bool
) -> Path:
    """Write predictions of one fold in nnDetection's layout; then ``nndet_eval TASK MODEL FOLD [--test] --boxes``.

    All ranked candidates are written, as nnDetection's own files hold all boxes. Truth that is there already, made by
    nnDetection's preparation, is left alone.

    Args:
        paths: the task, with labels of the predicted cases.
        predictions: one per case.
        target: model folder of nnDetection, ``det_models/<task>/<name>``.
        fold: its number, -1 for the consolidated model.
        test: whether they are of test cases.

    Returns:
        The folder of the written ``<case>_boxes.pkl``.

    Raises:
        UserError: no predictions, a case without labels, or a target that is a model of ours.
    """
    if not predictions:
        raise UserError("there are no predictions to export", remedy="Run nndet_predict or nndet_sweep first")
    folder = target.fold(fold)
    if (folder / "plan.json").is_file():
        raise UserError("holds a model of this package", file=folder, remedy="Choose another name")
    split = "Ts" if test else "Tr"
    description = read_description(paths.root)
    cases = {case.case_id: case for case in list_cases(paths, description, split)}
    _write_truth(paths, predictions, cases, description, split)
    written = folder / ("test_predictions" if test else "val_predictions")
    _write_boxes(written, predictions)
    if not test:
        _write_boxes(folder / "val_predictions_preprocessed", predictions)
        with atomic_file(folder / PLAN_FILE) as temporary:
            temporary.write_bytes(dump_plain({"data_identifier": RAW_SPACE, "network_dim": 3}))
    return written


def _write_boxes(folder: Path, predictions: Sequence[Prediction]) -> None:
    """Write all, and drop those of an earlier export: ``nndet_eval`` scores every file it finds."""
    names = {f"{prediction.case_id}{BOXES_SUFFIX}": prediction for prediction in predictions}
    for old in folder.glob(f"*{BOXES_SUFFIX}"):
        if old.name not in names:
            old.unlink()
    for name, prediction in names.items():
        found = Detections.build(
            np.array([lesion.box for lesion in prediction.candidates]),
            [lesion.score for lesion in prediction.candidates],
            [lesion.label for lesion in prediction.candidates],
        )
        write_nndetection_boxes(folder / name, found, prediction.image)


def _write_truth(
    paths: TaskPaths,
    predictions: Sequence[Prediction],
    cases: Mapping[str, RawCase],
    description: DatasetDescription,
    split: str,
) -> None:
    folders = [paths.preprocessed / f"labels{split}"]
    if split == "Tr":
        folders.append(paths.preprocessed / RAW_SPACE / "labelsTr")
    for prediction in predictions:
        case = cases.get(prediction.case_id)
        if case is None or case.label is None:
            raise UserError(
                f"case {prediction.case_id} has no label",
                file=paths.labels(split),
                remedy="Restore the label, or the predictions of the present cases",
            )
        files = [folder / f"{case.case_id}{TRUTH_SUFFIX}" for folder in folders]
        missing = [file for file in files if not file.is_file()]
        arrays = truth_arrays(case, description) if missing else {}
        for file in missing:
            with atomic_file(file) as temporary, temporary.open("wb") as handle:
                np.savez_compressed(handle, **arrays)  # type: ignore[arg-type]


def truth_arrays(case: RawCase, description: DatasetDescription) -> dict[str, np.ndarray]:
    """``boxes`` [N, 6] in nnDetection's convention, in voxels of the label file's own array order, and ``classes`` [N].

    A case without lesions has boxes of shape [1, 0] and classes of type float64, as nnDetection writes them.

    Raises:
        UserError: the labels cannot be read.
    """
    labels, classes = read_labels(case, description)
    ids, boxes = boxes_from_instances(labels.array)
    if len(ids) == 0 or case.label is None:
        return {"boxes": np.zeros((1, 0)), "classes": np.zeros(0)}
    own = map_boxes(boxes, labels.geometry, original_geometry(case.label))
    found = np.rint(to_nndetection(own)).astype(np.int64)
    return {"boxes": found, "classes": np.array([classes[number] for number in ids.tolist()], dtype=np.int64)}
