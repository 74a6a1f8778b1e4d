"""One small case with a body, a CTV and a lesion of known voxels, and a plan for it."""

from __future__ import annotations

import numpy as np

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.detector_plan import Augmentation, Stage
from nndet_psma.artifacts.plan import FoldPlan, Target
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import Volume
from nndet_psma.preprocess.prepare import prepare_case
from nndet_psma.systems.psma25d.plan import Detector, PSMA25DPlan

SHAPE = (10, 44, 56)
SPACING = (4.0, 1.5, 1.5)
LESION = (slice(3, 6), slice(16, 24), slice(20, 31))
CTV = (slice(2, 8), slice(12, 30), slice(14, 40))


def plan_of(spacing=SPACING) -> PSMA25DPlan:
    stage = Stage("hu", "search", ["hu"], None, True, 1, 0.1, [], 0)
    detector = Detector(
        "resnet18", "none", "batch", [1], 8, 8, 1.0, 1.0, (32, 32), (32, 32), [[4.0]], [1.0], 0.0, 1.0,
        8, 8, 8, 8, 8, 0.0, 0.5, False,
    )  # fmt: skip
    return PSMA25DPlan(
        plan_id="P",
        planner="Pl",
        trainer="T",
        task="Task",
        made_from="0",
        target=Target("cpu", 0.0),
        modalities={"0": "CT", "1": "CTV"},
        classes={"0": "node"},
        ct_modality=0,
        ctv_modality=1,
        spacing=spacing,
        margin_mm=6.0,
        body_margin_mm=5.0,
        windows=[Window("hu", -100.0, 200.0)],
        scalings=[],
        neighbours=1,
        stages=[stage],
        batch_size=1,
        positive_fraction=0.5,
        hard_negative_fraction=0.0,
        detector=detector,
        augmentation=Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        folds=[FoldPlan(["a"], ["b"])],
        seed=1,
        postproc_defaults={},
        postproc_grid={},
    )


def volumes(grid: Geometry) -> tuple[Volume, Volume, Volume]:
    ct = np.full(SHAPE, -1000, np.int16)
    ct[:, 8:36, 9:47] = 0
    ct[LESION] = 150
    ctv, labels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int32)
    ctv[CTV] = 1
    labels[LESION] = 1
    return Volume(ct, grid), Volume(ctv, grid), Volume(labels, grid)


def prepared(grid: Geometry, spacing=SPACING):
    ct, ctv, labels = volumes(grid)
    return prepare_case("a", {"CT": ct}, plan_of(spacing), ctv=ctv, labels=labels, classes={1: 0})
