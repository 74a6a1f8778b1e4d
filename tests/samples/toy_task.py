"""A tiny raw task of numbered objects, some bright, some dim; and entry points made for a test."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.paths import TaskPaths

TASK = "Task910_Toy"
SHAPE = (6, 24, 28)
GRID = Geometry(SHAPE, (3.0, 2.0, 2.0), (-27.0, -23.0, 100.0))
CLASSES = {"0": "benign", "1": "malignant"}
CORNERS = [(1, 8, 8), (2, 8, 16), (3, 14, 12)]  # (z, y, x) of objects of 2 x 3 x 3 voxels
# (class, HU) of every object; cases 0 and 1 are of one patient. Benign objects have a mean of 50, malignant ones of 100
OBJECTS: dict[str, list[tuple[int, int]]] = {
    "case_0": [(0, 40), (1, 110)],
    "case_1": [(0, 60)],
    "case_2": [(0, 50), (1, 90), (0, 45)],
    "case_3": [(1, 70), (0, 55)],
    "case_4": [(1, 120), (0, 80)],
    "case_5": [(0, 35), (1, 100)],
    "case_6": [(0, 42), (0, 58)],
    "case_7": [(0, 52)],
    "test_0": [(0, 50), (1, 105), (1, 60)],
    "test_1": [(0, 65)],
    "test_2": [(1, 95), (0, 90)],
}
TRAINING = [name for name in OBJECTS if name.startswith("case")]
TEST = [name for name in OBJECTS if name.startswith("test")]
FOLDS = [["case_0", "case_1", "case_2", "case_6"], ["case_3", "case_4", "case_5", "case_7"]]  # validated
ENTRY_POINTS = {"toy": "toy_system.system:Toy", "toycall": "toy_system.call:ToyCall"}
OBJECT_BLOCK = {"target": "objects"}
CASE_BLOCK = {"target": "case", "column": "recurrence", "positive": ["1"]}


def malignant(case: str) -> bool:
    """Whether a case has any malignant object: its class as a whole."""
    return any(label for label, _ in OBJECTS[case])


def write_case(paths: TaskPaths, case: str) -> None:
    split = "Tr" if case in TRAINING else "Ts"
    y, x = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[2]), indexing="ij")
    body = ((y - 11.5) / 11) ** 2 + ((x - 13.5) / 13) ** 2 <= 1
    ct = np.broadcast_to(np.where(body, 20, -1000), SHAPE).astype(np.int16)
    objects = np.zeros(SHAPE, np.uint8)
    for number, ((z, row, column), (_, hu)) in enumerate(zip(CORNERS, OBJECTS[case], strict=False), start=1):
        inside = (slice(z, z + 2), slice(row, row + 3), slice(column, column + 3))
        objects[inside], ct[inside] = number, hu
    write_volume(paths.images(split) / f"{case}_0000.nii.gz", ct, GRID)
    write_volume(paths.images(split) / f"{case}_0001.nii.gz", objects, GRID)
    write_volume(paths.labels(split) / f"{case}.nii.gz", objects, GRID)
    classes = {str(number): label for number, (label, _) in enumerate(OBJECTS[case], start=1)}
    (paths.labels(split) / f"{case}.json").write_text(json.dumps({"instances": classes}))


def write_toy_task(data: Path, block: dict[str, object]) -> TaskPaths:
    """Eight training cases, three test cases with labels, two folds, a class of every case in clinical.csv."""
    paths = TaskPaths(data / TASK)
    for case in OBJECTS:
        write_case(paths, case)
    description = {
        "task": TASK,
        "dim": 3,
        "labels": CLASSES,
        "modalities": {"0": "CT", "1": "OBJECTS"},
        "test_labels": True,
        "psma": block,
    }
    (paths.root / "dataset.json").write_text(json.dumps(description))
    rows = ["case_id,patient_id,recurrence"]
    rows += [
        f"{case},{'patient_a' if case in ('case_0', 'case_1') else case},{int(malignant(case))}"
        for case in OBJECTS
    ]
    paths.clinical.write_text("\n".join(rows) + "\n")
    splits = [{"train": sorted(set(TRAINING) - set(val)), "val": val} for val in FOLDS]
    paths.splits.write_text(json.dumps(splits))
    return paths


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, str], group: str = "nndet_psma.systems"
) -> None:
    """Entry points as a package brings them, also for processes started from here; unloaded after the test."""
    from nndet_psma.systems.system import SYSTEMS

    info = folder / "toy_system-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy_system\nVersion: 0.1\n")
    lines = "\n".join(f"{name} = {target}" for name, target in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
    monkeypatch.syspath_prepend(str(folder))
    samples = str(Path(__file__).parent)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), samples, os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setattr(SYSTEMS, "_classes", dict(SYSTEMS._classes))
    assert sys.path[0] == str(folder)
