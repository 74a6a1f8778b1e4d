"""A small plan of a classifier, and a case with objects for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.classifier_plan import ClassifierNetwork, ClassifierPlan, CropAugmentation, CropPlan
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import Volume

SIDE = 8
CROP = CropPlan((SIDE,) * 3, (2, 4, 4), "2.5d", 0, "ct+mask", None)


def stage(name="member0", windows=("wide",), iterations=4, voter=True) -> Stage:
    return Stage(name, "body", list(windows), None, voter, iterations, 1e-2, [], 0)


def crop_plan(crop: CropPlan = CROP, **changes) -> ClassifierPlan:
    """One window -100..100, crops of 8 voxels of 1 mm with a margin."""
    values = {
        "plan_id": "TEST",
        "planner": "p",
        "trainer": "t",
        "task": "Task001_Test",
        "made_from": "",
        "target": Target("cpu", 0.0),
        "modalities": {"0": "CT"},
        "classes": {"0": "negative", "1": "positive"},
        "ct_modality": 0,
        "ctv_modality": None,
        "spacing": (1.0, 1.0, 1.0),
        "batch_size": 4,
        "folds": [FoldPlan(["a"], ["b"])],
        "seed": 1,
        "crop": crop,
        "windows": [Window("wide", -100.0, 100.0)],
        "network": ClassifierNetwork("resnet", [4, 4, 4, 4], 0.0, 0.0),
        "stages": [stage()],
        "optimizer": "adamw",
        "augmentation": CropAugmentation(180.0, 1.0, "zx", 0.1),
        "sampling": "natural",
        "prevalence": 0.25,
        "equal_short_mm": 4.0,
        "features": ["volume_mm3"],
    }
    return ClassifierPlan(**(values | changes))


def volumes(shape=(20, 24, 24), spacing=(1.0, 1.0, 1.0), boxes=((8, 9, 10, 12, 13, 14),), seed=0):
    """CT of noise and a mask of cuboids (z0, y0, x0, z1, y1, x1) in voxels, numbered from 1."""
    grid = Geometry(shape, spacing)
    ct = np.random.default_rng(seed).integers(-90, 90, shape).astype(np.int16)
    mask = np.zeros(shape, np.uint8)
    for number, (z0, y0, x0, z1, y1, x1) in enumerate(boxes, start=1):
        mask[z0:z1, y0:y1, x0:x1] = number
    return Volume(ct, grid), Volume(mask, grid)


def flat(plan: ClassifierPlan, **changes) -> ClassifierPlan:
    """The plan with another crop."""
    return replace(plan, crop=replace(plan.crop, **changes))
