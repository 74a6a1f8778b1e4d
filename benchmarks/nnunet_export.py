"""Time and bytes of exporting a task to nnU-Net: links against copies.

Run: python benchmarks/nnunet_export.py [CASES]. Cases are 96 x 384 x 384 voxels of int16 noise with two HU windows.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths
from nndet_psma.systems.nodeseg.nnunet.export import export_dataset
from nndet_psma.systems.nodeseg.plan import Candidates, Channel, SegmentationTraining
from nndet_psma.systems.nodeseg.planner import NetworkBudget, NodeSegChoices

SHAPE = (96, 384, 384)
GRID = Geometry(SHAPE, (3.0, 0.8, 0.8))


def write_cases(root: Path, number: int) -> TaskPaths:
    paths = TaskPaths(root / "Task901_Export")
    noise = np.random.default_rng(0).integers(-200, 300, SHAPE, dtype=np.int16)
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[40:44, 100:110, 100:110] = 1
    for index in range(number):
        write_volume(paths.images("Tr") / f"case_{index}_0000.nii.gz", noise, GRID)
        write_volume(paths.labels("Tr") / f"case_{index}.nii.gz", label, GRID)
        (paths.labels("Tr") / f"case_{index}.json").write_text('{"instances": {"1": 0}}')
    description = {"task": paths.name, "dim": 3, "labels": {"0": "node"}, "modalities": {"0": "CT"}}
    (paths.root / "dataset.json").write_text(json.dumps(description))
    return paths


def choices() -> NodeSegChoices:
    own = Channel(0, "CT", "CTNormalization")
    return NodeSegChoices(
        "Dataset901_Export",
        0,
        None,
        "image",
        0.0,
        0.0,
        [own, replace(own, lower=-125.0, upper=225.0)],
        "3d_fullres",
        NetworkBudget("plain", 0.3),
        None,
        None,
        None,
        SegmentationTraining(),
        Candidates(),
        {},
        {},
        {},
    )


def size_of(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with tempfile.TemporaryDirectory() as folder:
        paths = write_cases(Path(folder), number)
        description = read_description(paths.root)
        cases = list_cases(paths, description)
        nnunet = NnunetPaths.of(paths, "Dataset901_Export")
        for name in ("export", "export again"):
            start = time.perf_counter()
            result = export_dataset(nnunet, cases, [], description, choices(), extra={})
            seconds = time.perf_counter() - start
            images, labels = (size_of(nnunet.raw / part) / 1e6 for part in ("imagesTr", "labelsTr"))
            print(
                f"{name}: {seconds / number:.3f} s per case, {result.linked} links, {result.written} images "
                f"written, {images:.3f} MB of images, {labels:.3f} MB of labels"
            )
        start = time.perf_counter()
        for channel in range(2):
            for case in cases:
                shutil.copyfile(case.images[0], Path(folder) / f"{case.case_id}_{channel:04d}.nii.gz")
        copied = 2 * sum(case.images[0].stat().st_size for case in cases) / 1e6
        print(
            f"copying both channels: {(time.perf_counter() - start) / number:.3f} s per case, {copied:.1f} MB"
        )


if __name__ == "__main__":
    main()
