"""A good raw task, small enough to be copied and spoilt by every test, and ways to spoil it."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.paths import TaskPaths

SHAPE = (8, 32, 36)
GRID = Geometry(SHAPE, (4.0, 2.0, 2.0), (-35.0, -31.0, 200.0))
MODALITIES = {"0": "CT", "1": "CTV", "2": "PET", "3": "ADC", "4": "T2"}
CT, CTV, PET, ADC, T2 = range(5)
DESCRIPTION = {
    "task": "Task100_Good",
    "dim": 3,
    "labels": {"0": "node"},
    "modalities": MODALITIES,
    "test_labels": True,
}
# (z, y, x) of the lower corners of lesions of 2 x 3 x 3 voxels
LESIONS = {
    "case_a": [(2, 12, 12), (5, 18, 20)],
    "case_b": [(3, 14, 18)],
    "case_c": [(4, 15, 13)],
    "case_t": [(2, 17, 17)],
}
SPLITS = [
    {"train": ["case_b", "case_c"], "val": ["case_a"]},
    {"train": ["case_a", "case_c"], "val": ["case_b"]},
    {"train": ["case_a", "case_b"], "val": ["case_c"]},
]


@dataclass(frozen=True)
class GoodTask:
    """A raw task on disk that a test may spoil."""

    paths: TaskPaths

    def image(self, case: str, index: int = 0) -> Path:
        return self.paths.images(_split(case)) / f"{case}_{index:04d}.nii.gz"

    def label(self, case: str) -> Path:
        return self.paths.labels(_split(case)) / f"{case}.nii.gz"

    def table(self, case: str) -> Path:
        return self.paths.labels(_split(case)) / f"{case}.json"

    def files(self, case: str) -> list[Path]:
        return [*(self.image(case, index) for index in range(len(MODALITIES))), self.label(case)]

    def describe(self, **changes) -> None:
        content = {key: value for key, value in {**DESCRIPTION, **changes}.items() if value is not ...}
        (self.paths.root / "dataset.json").write_text(json.dumps(content))

    def classes(self, case: str, classes: dict[str, int]) -> None:
        self.table(case).write_text(json.dumps({"instances": classes}))

    def fold(self, splits: object) -> None:
        self.paths.splits.write_text(json.dumps(splits))

    def edit(self, file: Path, change, geometry: Geometry = GRID) -> None:
        """Write ``change(array)`` in the place of an image."""
        write_volume(file, change(read_volume(file).array.copy()), geometry)

    def regrid(self, geometry: Geometry, case: str = "case_b") -> None:
        """Give all files of a case another grid, with the same voxels."""
        for file in self.files(case):
            self.edit(file, lambda array: array[: geometry.shape[0]], geometry)

    def header(self, file: Path, change) -> None:
        """Change the bytes of a NIfTI-1 file before compression."""
        content = bytearray(gzip.decompress(file.read_bytes()))
        change(content)
        file.write_bytes(gzip.compress(bytes(content)))

    def rename(self, case: str, new: str) -> None:
        for file in [*self.files(case), self.table(case)]:
            file.rename(file.with_name(file.name.replace(case, new)))

    def without_tables(self) -> None:
        self.paths.clinical.unlink()
        self.paths.splits.unlink()

    def copy(self, folder: Path) -> GoodTask:
        shutil.copytree(self.paths.root, folder / self.paths.name, copy_function=shutil.copyfile)
        return GoodTask(TaskPaths(folder / self.paths.name))


def write_good_task(folder: Path) -> GoodTask:
    """Three training cases and a test case: a body in air, nodes in a CTV, PET in SUV, ADC, T2."""
    task = GoodTask(TaskPaths(folder / DESCRIPTION["task"]))
    for seed, (case, corners) in enumerate(LESIONS.items()):
        _write_case(task, case, corners, np.random.default_rng(seed))
    task.describe()
    rows = ["case_id,patient_id", *(f"{case},{case[-1].upper()}" for case in LESIONS)]
    task.paths.clinical.write_text("\n".join(rows) + "\n")
    task.fold(SPLITS)
    return task


def _write_case(task: GoodTask, case: str, corners, rng) -> None:
    y, x = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[2]), indexing="ij")
    body = np.broadcast_to(((y - 15.5) / 14) ** 2 + ((x - 17.5) / 16) ** 2 <= 1, SHAPE)
    ctv, label = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    ctv[1:7, 10:23, 10:25] = 1
    for number, (z, row, column) in enumerate(corners, start=1):
        label[z : z + 2, row : row + 3, column : column + 3] = number
    noise = rng.normal(0, 1, SHAPE)
    ct = np.where(body, 40, -1000) + 8 * noise + 100 * (label > 0)
    pet = body * (1 + 0.1 * noise) + 7 * (label > 0)
    write_volume(task.image(case, CT), np.rint(ct).astype(np.int16), GRID)
    write_volume(task.image(case, CTV), ctv, GRID)
    write_volume(task.image(case, PET), np.abs(pet).astype(np.float32), GRID)
    write_volume(task.image(case, ADC), np.rint(body * (1200 + 50 * noise)).astype(np.int16), GRID)
    write_volume(task.image(case, T2), np.rint(body * (300 + 20 * noise)).astype(np.int16), GRID)
    write_volume(task.label(case), label, GRID)
    task.classes(case, {str(number): 0 for number in range(1, len(corners) + 1)})


def _split(case: str) -> str:
    return "Ts" if case == "case_t" else "Tr"
