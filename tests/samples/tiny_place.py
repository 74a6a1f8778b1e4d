"""A tiny raw task of eight cases, and a place on disk for it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from places import DATA

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.psma25d.plan import PSMA25DPlan

TASK = "Task900_Tiny"
MODEL = "MaskRCNN25D_PSMA25D"
SHAPE = (10, 40, 48)
SPACING = (4.0, 2.0, 2.0)
GRID = Geometry(SHAPE, SPACING, origin=(-47.0, -39.0, 300.0))
# (z, y, x, radius in voxels) of lesions; case_5 has none, and cases 0 and 1 are of one patient
LESIONS: dict[str, list[tuple[float, float, float, float]]] = {
    "case_0": [(4, 18, 20, 2.3), (6, 24, 30, 2.0)],
    "case_1": [(5, 20, 26, 2.4)],
    "case_2": [(3, 17, 30, 2.2), (7, 24, 20, 2.1)],
    "case_3": [(5, 22, 18, 2.4)],
    "case_4": [(6, 18, 24, 2.2), (3, 25, 31, 2.0)],
    "case_5": [],
    "test_0": [(5, 19, 22, 2.3)],
    "test_1": [(4, 24, 28, 2.2)],
}
TRAINING = [name for name in LESIONS if name.startswith("case")]
TEST = [name for name in LESIONS if name.startswith("test")]

# everything small: two ResNet layers, 16 channels, slices of 48 x 64 pixels
DETECTOR = (
    "{levels:[1,2],anchor_sizes:[[4.0,6.0],[8.0,11.0]],aspect_ratios:[1.0],fpn_channels:16,head_channels:32,"
    "scale:1.5,body_scale:1.0,input_size:[48,64],body_input_size:[48,56],rpn_samples:16,roi_samples:8,"
    "proposals_train:20,proposals_test:20,detections_per_slice:5}"
)
PREP_OPTIONS = [
    "plan_cfg.target=cpu",
    "plan_cfg.num_folds=2",
    "plan_cfg.windows=[[110.0,190.0],[-125.0,225.0]]",
    "plan_cfg.iterations_factor=0.034",  # 5 and 4 steps
    f"+plan_overwrites.detector={DETECTOR}",
    "+plan_overwrites.batch_size=2",
]
TRAIN_OPTIONS = ["trainer_cfg.num_workers=0", "trainer_cfg.save_every=2", "trainer_cfg.log_every=2"]


@dataclass(frozen=True)
class Workplace:
    """A folder of tasks and a folder of models."""

    data: Path
    models: Path

    @property
    def paths(self) -> TaskPaths:
        return TaskPaths(self.data / TASK)

    @property
    def plan(self) -> PSMA25DPlan:
        return PSMA25DPlan.read(self.paths.plan("PSMA25D"))

    @property
    def store(self) -> Path:
        return self.paths.store(self.plan.data_identifier)

    @property
    def model(self) -> Path:
        return self.models / TASK / MODEL

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("det_data", str(self.data))
        monkeypatch.setenv("det_models", str(self.models))

    def copy(self, target: Path) -> Workplace:
        shutil.copytree(self.data, target / "data", copy_function=shutil.copy2)
        if self.models.is_dir():
            shutil.copytree(self.models, target / "models", copy_function=shutil.copy2)
        return Workplace(target / "data", target / "models")


def blob(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Ball in millimetres: ``radius`` in in-plane voxels, half as many slices."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    return ((z - centre[0]) * 2) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def tiny_case(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CT (int16 HU), CTV and instance mask of a case."""
    rng = np.random.default_rng(sorted(LESIONS).index(case))
    y, x = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[2]), indexing="ij")
    body = ((y - 19.5) / 17) ** 2 + ((x - 23.5) / 21) ** 2 <= 1
    ct = np.where(body, 30, -1000)[None] + rng.normal(0, 8, SHAPE)
    ctv = np.zeros(SHAPE, np.uint8)
    ctv[1:9, 12:30, 12:36] = 1
    for centre in ((2, 14, 15), (7, 27, 33)):  # benign and dim
        ct[blob(centre, 2.2)] += 40
    instances = np.zeros(SHAPE, np.uint8)
    for number, (*centre, radius) in enumerate(LESIONS[case], start=1):
        inside = blob(tuple(centre), radius)
        instances[inside] = number
        ct[inside] += 120
    return np.rint(ct).astype(np.int16), ctv, instances


def write_case(paths: TaskPaths, case: str, grid: Geometry = GRID) -> None:
    split = "Tr" if case in TRAINING else "Ts"
    ct, ctv, instances = tiny_case(case)
    write_volume(paths.images(split) / f"{case}_0000.nii.gz", ct, grid)
    write_volume(paths.images(split) / f"{case}_0001.nii.gz", ctv, grid)
    write_volume(paths.labels(split) / f"{case}.nii.gz", instances, grid)
    classes = {str(i): 0 for i in range(1, len(LESIONS[case]) + 1)}
    (paths.labels(split) / f"{case}.json").write_text(json.dumps({"instances": classes}))


def write_task(data: Path) -> TaskPaths:
    """The raw tiny task: 6 training cases (two of one patient, one without lesion), 2 test cases."""
    paths = TaskPaths(data / TASK)
    for case in LESIONS:
        write_case(paths, case)
    description = {
        "task": TASK,
        "dim": 3,
        "target_class": None,
        "test_labels": True,
        "labels": {"0": "node"},
        "modalities": {"0": "CT", "1": "CTV"},
    }
    (paths.root / "dataset.json").write_text(json.dumps(description))
    rows = ["case_id,patient_id,nccn_risk"]
    rows += [
        f"{case},{'patient_a' if case in ('case_0', 'case_1') else case},{'high' if i % 2 else 'low'}"
        for i, case in enumerate(LESIONS)
    ]
    (paths.root / "clinical.csv").write_text("\n".join(rows) + "\n")
    return paths


def snapshot(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder but logs."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix != ".log"
    }


def environment(place: Workplace) -> dict[str, str]:
    """For a command in its own process."""
    return {
        **os.environ,
        "det_data": str(place.data),
        "det_models": str(place.models),
        "OMP_NUM_THREADS": "1",
    }


def real_data(name: str) -> Path:
    """Folder of a public data set, or the test is skipped."""
    root = DATA
    if not (root / name).is_dir():
        pytest.skip(f"public data set {name} found neither through NNDET_PSMA_DATA nor in ../shared/data")
    return root / name
