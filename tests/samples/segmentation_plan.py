"""A plan of segmentation for the tiny task, as nndet_prep would write it; nothing of nnU-Net lies behind it."""

from __future__ import annotations

from typing import Any

from tiny_place import TASK, TRAINING

from nndet_psma.artifacts.plan import Decision, FoldPlan, Target
from nndet_psma.systems.nodeseg.plan import Candidates, Channel, NodeSegPlan, SegmentationTraining
from nndet_psma.systems.nodeseg.planner import STEPS


def segmentation_plan(**changes: Any) -> NodeSegPlan:
    """The plan, with ``changes``."""
    content: dict[str, Any] = {
        "plan_id": "NodeSeg",
        "planner": "NodeSegPlanner",
        "trainer": "nnUNetTrainerNodeSeg",
        "task": TASK,
        "made_from": "0",
        "target": Target("cpu", 0.0, 1),
        "modalities": {"0": "CT", "1": "CTV"},
        "classes": {"0": "node"},
        "ct_modality": 0,
        "ctv_modality": 1,
        "crop": "ctv",
        "margin_mm": 10.0,
        "context_mm": 20.0,
        "channels": [Channel(0, "CT", "CTNormalization")],
        "dataset": "Dataset900_Tiny",
        "configuration": "3d_fullres",
        "file_ending": ".nii.gz",
        "network": "plain",
        "spacing": (4.0, 2.0, 2.0),
        "patch_size": (8, 32, 32),
        "batch_size": 2,
        "features": [8, 16],
        "training": SegmentationTraining(),
        "candidates": Candidates(),
        "folds": [FoldPlan(TRAINING[:4], TRAINING[4:]), FoldPlan(TRAINING[4:], TRAINING[:4])],
        "seed": 0,
        "postproc_defaults": {"steps": list(STEPS)},
        "postproc_grid": {},
        "decisions": {"network": Decision("small on CPU", "no GPU visible")},
    }
    return NodeSegPlan(**{**content, **changes})
