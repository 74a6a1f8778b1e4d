"""A raw task of three tiny cases, made in code; every test may spoil its own copy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.paths import TaskPaths

GEOMETRY = Geometry(shape=(8, 12, 12), spacing=(3.0, 1.0, 1.0), origin=(-6.0, -6.0, 100.0))
DESCRIPTION = {
    "task": "Task100_Tiny",
    "dim": 3,
    "labels": {"0": "node"},
    "modalities": {"0": "CT", "1": "CTV"},
    "licence": "a key of nnDetection's own files",
}


@dataclass(frozen=True)
class RawTask:
    """A raw task on disk, and how to spoil it."""

    paths: TaskPaths

    def image(self, case: str, index: int = 0, split: str = "Tr") -> Path:
        return self.paths.images(split) / f"{case}_{index:04d}.nii.gz"

    def label(self, case: str, split: str = "Tr") -> Path:
        return self.paths.labels(split) / f"{case}.nii.gz"

    def table(self, case: str, split: str = "Tr") -> Path:
        return self.paths.labels(split) / f"{case}.json"

    def describe(self, **changes) -> None:
        (self.paths.root / "dataset.json").write_text(json.dumps({**DESCRIPTION, **changes}))

    def add_case(self, case: str, seed: int, split: str = "Tr") -> None:
        """CT of noise in [-900, 300] HU, a CTV box, and two lesions of one and eight voxels inside it."""
        rng = np.random.default_rng(seed)
        ctv = np.zeros(GEOMETRY.shape, dtype=np.uint8)
        ctv[1:7, 2:10, 2:10] = 1
        lesions = np.zeros(GEOMETRY.shape, dtype=np.uint8)
        lesions[2, 3, 3] = 1
        lesions[4:6, 5:7, 5:7] = 2
        ct = rng.integers(-900, 300, GEOMETRY.shape).astype(np.int16)
        write_volume(self.image(case, 0, split), ct, GEOMETRY)
        write_volume(self.image(case, 1, split), ctv, GEOMETRY)
        write_volume(self.label(case, split), lesions, GEOMETRY)
        self.table(case, split).write_text(json.dumps({"instances": {"1": 0, "2": 0}}))


@pytest.fixture
def raw_task(tmp_path: Path) -> RawTask:
    task = RawTask(TaskPaths(tmp_path / "Task100_Tiny"))
    for seed, case in enumerate(("case_a", "case_b", "case_c")):
        task.add_case(case, seed)
    task.describe()
    return task


@pytest.fixture
def tiny_geometry() -> Geometry:
    return GEOMETRY
