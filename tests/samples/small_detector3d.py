"""A small 3D detector with strides and kernels that differ by axis."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.systems.retina3d.plan import Detector3D, Retina3DPlan

SMALL = Detector3D(
    patch_size=(8, 32, 32),
    strides=[(1, 1, 1), (1, 2, 2), (2, 2, 2)],
    kernels=[(1, 3, 3), (3, 3, 3), (3, 3, 3)],
    channels=[6, 8, 12],
    levels=[1, 2],
    fpn_channels=8,
    head_channels=8,
    anchor_shapes=[[(2.0, 4.0, 4.0), (3.0, 6.0, 6.0)], [(4.0, 9.0, 9.0), (6.0, 12.0, 12.0)]],
    nms_iou=0.1,
    detections_per_patch=20,
)


def on_patches(plan: DetectorPlan, detector: Detector3D, **changes: Any) -> Retina3DPlan:
    """A plan of slices with a detector on patches in the place of its own, and ``changes``."""
    shared = {each.name: getattr(plan, each.name) for each in fields(DetectorPlan)}
    return Retina3DPlan(**{**shared, "detector": None, "detector3d": detector, **changes})
