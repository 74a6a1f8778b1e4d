"""Peak memory of every stage of the preparation on one CT of 512 x 512 x 400 voxels.

    python benchmarks/large_ct.py

An anatomy-like int16 CT of 0.8 x 0.8 x 1.5 mm with table, CTV and lesions is made once; check, fingerprint and
preprocessing (planned spacing: the file's own, then twice as coarse in-plane) each run on it in a process of their own,
with one thread. Target: below 1.5 GB each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from measure import ONE_THREAD, Cost, measure, median_cost, table, write_result

SPACING = (1.5, 0.8, 0.8)
TARGET_GB = 1.5
TASK = "Task300_Large"


def main() -> int:
    """Make the task, run the stages and print the table."""
    args = _arguments()
    if args.stage is not None:
        STAGES[args.stage](args.root)
        return 0
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        root = Path(folder) / TASK
        measured = [name for name in STAGES if name not in ("make", "plan")]
        costs: dict[str, list[Cost]] = {name: [] for name in measured}
        _run("make", root, tuple(args.shape))
        for number in range(args.runs):
            for name in STAGES if number == 0 else measured:
                cost = _run(name, root, tuple(args.shape)) if name != "make" else None
                if cost is not None and name in costs:
                    costs[name].append(cost)
    medians = {name: median_cost(series) for name, series in costs.items()}
    rows = [[n, c.peak_gb, c.peak_gb / TARGET_GB, c.cpu_seconds, c.seconds] for n, c in medians.items()]
    print(table(["stage", "peak GB", "of the 1.5 GB allowed", "CPU s", "wall s"], rows))
    runs = {name: [asdict(cost) for cost in series] for name, series in costs.items()}
    write_result(args.json, {"shape": args.shape, "spacing": SPACING, "runs": runs})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(400, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="where temporary files go")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(stage: str, root: Path, shape: tuple[int, ...]) -> Cost:
    size = ["--shape", *map(str, shape)]
    command = [sys.executable, __file__, "--stage", stage, "--root", str(root), *size]
    return measure(
        command, {**os.environ, **ONE_THREAD, "LARGE_SHAPE": json.dumps(shape)}, root.parent / "log"
    )


def make(root: Path) -> None:
    """One case: body, bones, vessels of noise in air on a table; CTV along the vessels; six lesions."""
    import numpy as np

    from nndet_psma.boxes.geometry import Geometry
    from nndet_psma.dataset.images.images import write_volume
    from nndet_psma.dataset.task.paths import TaskPaths

    shape = tuple(json.loads(os.environ["LARGE_SHAPE"]))
    paths, grid = TaskPaths(root), Geometry(shape, SPACING)
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.linspace(-1, 1, shape[1]), np.linspace(-1, 1, shape[2]), indexing="ij")
    plane = np.full(shape[1:], -1000, np.int16)
    plane[(np.abs(y - 0.72) < 0.015) & (np.abs(x) < 0.8)] = 200
    plane[(y / 0.55) ** 2 + (x / 0.8) ** 2 <= 1] = -90
    plane[(y / 0.5) ** 2 + (x / 0.72) ** 2 <= 1] = 45
    plane[(y - 0.25) ** 2 + x**2 <= 0.01] = 500
    noise = rng.normal(0, 12, (16, *shape[1:])).astype(np.int16)
    ct = np.stack([plane + np.roll(noise[z % 16], 7 * z, axis=1) for z in range(shape[0])])
    ctv, lesions = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    parts = [slice(int(0.3 * shape[0]), int(0.65 * shape[0])), (np.abs(y) < 0.25) & (np.abs(x) < 0.4)]
    ctv[parts[0], parts[1]] = 1
    for number in range(1, 7):
        z, y0, x0 = (int(n * (0.4 + 0.03 * number)) for n in shape)
        lesions[z : z + 4, y0 : y0 + 8, x0 : x0 + 7] = number
    ct[lesions > 0] += 80
    write_volume(paths.images("Tr") / "large_0000.nii.gz", ct, grid)
    write_volume(paths.images("Tr") / "large_0001.nii.gz", ctv, grid)
    write_volume(paths.labels("Tr") / "large.nii.gz", lesions, grid)
    classes = {str(number): 0 for number in range(1, 7)}
    (paths.labels("Tr") / "large.json").write_text(json.dumps({"instances": classes}))
    description = {"dim": 3, "labels": {"0": "node"}, "modalities": {"0": "CT", "1": "CTV"}}
    (root / "dataset.json").write_text(json.dumps({"task": TASK, **description}))


def check(root: Path) -> None:
    """Every voxel checked."""
    from nndet_psma.dataset.checks.checks import check_task, raise_if_errors
    from nndet_psma.dataset.task.paths import TaskPaths

    raise_if_errors(check_task(TaskPaths(root), full=True))


def fingerprint(root: Path) -> None:
    """The fingerprint measured."""
    import shutil

    from nndet_psma.dataset.task.cases import list_cases
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.planners.fingerprint.measure import measure_fingerprint

    paths, description = TaskPaths(root), read_description(root)
    cache = paths.preprocessed / "fingerprints"
    shutil.rmtree(cache, ignore_errors=True)
    measured = measure_fingerprint(
        list_cases(paths, description), description, {}, stratify_by="", cache=cache, processes=1
    )
    measured.write(paths.fingerprint)


def plan(root: Path) -> None:
    """A plan as for five such patients, so that there can be folds."""
    from nndet_psma.artifacts.fingerprint import Fingerprint
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.planners.detector_options import DetectorOptions
    from nndet_psma.planners.machine import make_plan

    paths = TaskPaths(root)
    found = Fingerprint.read(paths.fingerprint)
    cases = [replace(found.cases[0], case_id=f"large_{i}", patient_id=f"large_{i}") for i in range(5)]
    options = DetectorOptions(target="cpu", spacing=SPACING)
    made = make_plan(
        replace(found, cases=cases),
        paths,
        options,
        planner="PSMA25DPlanner",
        plan_id="P",
        trainer="MaskRCNN25D",
    )
    made.write(paths.plan("P"))


def preprocess(root: Path) -> None:
    """Stored on the grid of the file."""
    _preprocess(root, SPACING)


def resample(root: Path) -> None:
    """Stored on a grid of twice the in-plane spacing and of 3 mm slices."""
    _preprocess(root, (3.0, 1.6, 1.6))


def _preprocess(root: Path, spacing: tuple[float, float, float]) -> None:
    import shutil

    from nndet_psma.artifacts.plan_file import read_plan
    from nndet_psma.dataset.task.cases import list_cases
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.preprocess.build import build_store

    paths, description = TaskPaths(root), read_description(root)
    made = replace(read_plan(paths.plan("P")), spacing=spacing)
    shutil.rmtree(root / "store", ignore_errors=True)
    build_store(root / "store", list_cases(paths, description), description, made, 1)


STAGES: dict[str, Callable[[Path], None]] = {
    "make": make,
    "check": check,
    "fingerprint": fingerprint,
    "plan": plan,
    "preprocess": preprocess,
    "resample": resample,
}


if __name__ == "__main__":
    sys.exit(main())
