"""Speed of ``nodestatus``: cutting crops, drawing batches, judging the nodes of a patient.

    python benchmarks/node_status.py

Made-up CTs of 200 x 512 x 512 voxels with five nodes each (2616 nodes of 549 patients in Hartenstein et al. 2020).
Crops: the time of ``build_crops`` beside that of reading and unpacking the same two files of every case, which nothing
can do without. Batches: 256 augmented crops of 48 voxels from the store, beside MONAI's LoadImage, Spacing and
SpatialCrop, which read the image for every item (a few items are timed). A patient: 50 nodes cut from a CT in memory
and judged, with controls, by five networks of the default size.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measure import table, write_result

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "samples"))

import numpy as np
import torch
from crop_plan import crop_plan, stage

from nndet_psma.artifacts.classifier_plan import ClassifierNetwork, ClassifierPlan, CropPlan
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import Volume, read_volume, write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.inference.classifying import CropEnsemble
from nndet_psma.planners.classifier_rules import crop_margin
from nndet_psma.preprocess.crop_store import build_crops
from nndet_psma.preprocess.crops import cut_objects
from nndet_psma.trainers.classifier.batches import CropBatches
from nndet_psma.trainers.classifier.network import CropClassifier
from nndet_psma.trainers.networks.weights import write_model

SPACING = (2.0, 0.8, 0.8)
SIZE = (48, 48, 48)
FOLDS, NODES, BATCH = 5, 50, 256


def main() -> int:
    """Time all three and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--items", type=int, default=3, help="timed with MONAI")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    crop = CropPlan(SIZE, crop_margin(SIZE, 180.0, 2.0), "2.5d", 0, "ct+mask", None)
    plan = crop_plan(
        crop,
        batch_size=32,
        sampling="status",
        network=ClassifierNetwork("resnet", [16, 32, 64, 128], 0.2, 0.02),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [_case(folder, f"case_{k}", tuple(args.shape), k) for k in range(args.cases)]
        found = {
            **_crops(folder / "store", cases, plan),
            **_batches(folder / "store", cases, plan, args.items),
        }
    found |= _patient(tuple(args.shape), plan)
    print(table(["", "s"], [[key, round(value, 3)] for key, value in found.items()]))
    write_result(args.json, found)
    return 0


def _volumes(shape: tuple[int, int, int], nodes: int, seed: int) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(seed)
    ct, mask = rng.normal(-20, 30, shape).astype(np.int16), np.zeros(shape, np.uint8)
    for number in range(1, nodes + 1):
        z, y, x = (int(v) for v in rng.integers((5, 60, 60), (shape[0] - 10, shape[1] - 80, shape[2] - 80)))
        mask[z : z + 5, y : y + 12, x : x + 12] = number
    grid = Geometry(shape, SPACING)
    return Volume(ct, grid), Volume(mask, grid)


def _case(folder: Path, name: str, shape: tuple[int, int, int], seed: int) -> RawCase:
    ct, mask = _volumes(shape, 5, seed)
    image, label, classes = (folder / f"{name}{end}" for end in ("_0000.nii.gz", ".nii.gz", ".json"))
    write_volume(image, ct.array, ct.geometry)
    write_volume(label, mask.array, mask.geometry)
    numbers = [int(n) for n in np.unique(mask.array) if n]
    classes.write_text(json.dumps({"instances": {str(n): n % 2 for n in numbers}}))
    return RawCase(name, (image,), label, classes)


def _crops(store: Path, cases: list[RawCase], plan: ClassifierPlan) -> dict[str, float]:
    start = time.perf_counter()
    for case in cases:
        for file in (*case.images, case.label):
            read_volume(file)
    read = time.perf_counter()
    build_crops(store, cases, plan, patients=str, tracers=lambda case: "", processes=1)
    built = time.perf_counter() - read
    count = len(cases)
    return {
        "read a case": (read - start) / count,
        "read and cut a case": built / count,
        "ratio": built / (read - start),
    }


def _batches(store: Path, cases: list[RawCase], plan: ClassifierPlan, items: int) -> dict[str, float]:
    batches = CropBatches(store, plan, stage(iterations=4), [case.case_id for case in cases], BATCH, 0)
    batches[0]
    start = time.perf_counter()
    for number in (1, 2, 3):
        batches[number]
    ours = (time.perf_counter() - start) / 3
    theirs = _monai(cases, items) * BATCH
    return {f"{BATCH} crops, ours": ours, f"{BATCH} crops, MONAI": theirs, "MONAI / ours": theirs / ours}


def _monai(cases: list[RawCase], items: int) -> float:
    from monai.transforms import Compose, LoadImage, Spacing, SpatialCrop

    load = Compose([LoadImage(image_only=True, ensure_channel_first=True), Spacing((1.0, 1.0, 1.0))])
    start = time.perf_counter()
    for number in range(items):
        SpatialCrop(roi_center=(100, 100, 100), roi_size=SIZE)(load(cases[number % len(cases)].images[0]))
    return (time.perf_counter() - start) / items


def _patient(shape: tuple[int, int, int], plan: ClassifierPlan) -> dict[str, float]:
    plan = replace(plan, stages=[stage()])
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"{fold}.safetensors" for fold in range(FOLDS)]
        for file in files:
            write_model(CropClassifier(plan, plan.stages[0]), file)
        ensemble = CropEnsemble(plan, {plan.stages[0].name: files}, torch.device("cpu"), 32)
    ct, mask = _volumes(shape, NODES, 99)
    start = time.perf_counter()
    cut = cut_objects(ct, mask, plan, image=ct.geometry)
    middle = time.perf_counter()
    ensemble.logits(cut)
    return {
        f"cut {len(cut.objects)} nodes": middle - start,
        f"judge {len(cut.objects)} nodes, {FOLDS} networks, with controls": time.perf_counter() - middle,
    }


if __name__ == "__main__":
    raise SystemExit(main())
