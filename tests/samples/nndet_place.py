"""A raw task of four cases with labels, and a model folder as nnDetection leaves it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.hosts.boxes_pkl.files import write_nndetection_boxes

TASK = "Task901_Boxes"
GRID = Geometry((12, 20, 24), (3.0, 1.5, 1.0), origin=(-11.0, 7.0, 40.0))
# (z0, y0, x0, z1, y1, x1) and class of every lesion
TRUTH = {
    "a": [((2, 3, 4, 5, 8, 9), 0)],
    "b": [((6, 10, 12, 9, 14, 16), 1)],
    "c": [],
    "t": [((0, 0, 0, 3, 4, 5), 0)],
}
# boxes (ours), score and class as two folds would have predicted them: 0.9 and 0.7 are right, 0.6 is a false alarm
PREDICTED = {
    "a": [((2, 3, 4, 5, 8, 9), 0.9, 0), ((8, 15, 18, 11, 19, 22), 0.6, 0)],
    "b": [((6, 10, 12, 9, 14, 16), 0.7, 1)],
    "c": [],
    "t": [((0, 0, 0, 3, 4, 5), 0.8, 0)],
}
FOLDS = {0: ["a", "c"], 1: ["b"]}
PLAN_DEBUG = {
    "mode": "3d",
    "planner_id": "D3V001",
    "target_spacing": "[3.  1.5 1. ]",
    "transpose_backward": ["0", "1", "2"],
    "patch_size": "[ 8 16 16]",
    "batch_size": "4",
    "architecture": {
        "arch_name": "RetinaUNetV001",
        "start_channels": "32",
        "max_channels": "48",
        "fpn_channels": "128",
        "head_channels": "96",
        "conv_kernels": [["1", "3", "3"], ["3", "3", "3"], ["3", "3", "3"]],
        "strides": [["1", "2", "2"], ["2", "2", "2"]],
        "decoder_levels": ["1", "2"],
    },
    "anchors": {
        "width": [["2.0", "3.0"], ["4.0", "6.0"]],
        "height": [["5.0"], ["10.0"]],
        "depth": [["7.0"], ["14.0"]],
        "stride": "1",
    },
}
CONFIG = """
augment_cfg:
  oversample_foreground_percent: 0.5
trainer_cfg:
  max_num_epochs: 50
  swa_epochs: 10
  num_train_batches_per_epoch: 2500
  initial_lr: 0.01
  warm_iterations: 4000
"""


@dataclass(frozen=True)
class BoxTask:
    """A raw task with labels and folders for models."""

    paths: TaskPaths
    models: Path

    def source(self, name: str = "RetinaUNetV001_D3V001_3d") -> Path:
        return self.models / TASK / name


def write_raw_task(paths: TaskPaths) -> None:
    description = {
        "task": TASK,
        "name": "boxes",
        "dim": 3,
        "target_class": 0,
        "test_labels": True,
        "labels": {"0": "node", "1": "bone"},
        "modalities": {"0": "CT"},
    }
    paths.root.mkdir(parents=True)
    (paths.root / "dataset.json").write_text(json.dumps(description))
    for case_id, lesions in TRUTH.items():
        split = "Ts" if case_id == "t" else "Tr"
        label = np.zeros(GRID.shape, dtype=np.uint8)
        for number, (box, _) in enumerate(lesions, start=1):
            label[box[0] : box[3], box[1] : box[4], box[2] : box[5]] = number
        image = label.astype(np.int16) * 100 + 50  # nnDetection crops to what is not zero
        for folder, array, suffix in (
            (paths.images(split), image, "_0000"),
            (paths.labels(split), label, ""),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            write_volume(folder / f"{case_id}{suffix}.nii.gz", array, GRID)
        instances = {str(number): label for number, (_, label) in enumerate(lesions, start=1)}
        (paths.labels(split) / f"{case_id}.json").write_text(json.dumps({"instances": instances}))


def write_genuine_model(root: Path, predicted: dict) -> None:
    for fold, val in FOLDS.items():
        folder = root / f"fold{fold}"
        write_boxes(folder / "val_predictions", {case_id: predicted[case_id] for case_id in val})
        (folder / "plan_debug.json").write_text(json.dumps(PLAN_DEBUG))
        (folder / "config_resolved.yaml").write_text(CONFIG)
    val = {case_id: found for case_id, found in predicted.items() if case_id != "t"}
    write_boxes(root / "consolidated" / "val_predictions", val)
    write_boxes(root / "consolidated" / "test_predictions", {"t": predicted["t"]})


def write_boxes(folder: Path, predicted: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for case_id, found in predicted.items():
        boxes, scores, labels = zip(*found, strict=True) if found else ([], [], [])
        detections = Detections.build(np.array(boxes), scores, labels)
        write_nndetection_boxes(folder / f"{case_id}_boxes.pkl", detections, GRID)
