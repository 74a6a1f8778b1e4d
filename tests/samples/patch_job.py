"""The tiny task as one for patches: a plan with a small 3D detector, and a job for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from patch_plan import on_patches
from tiny_place import Workplace

from nndet_psma.artifacts.detector_plan import Augmentation, Stage
from nndet_psma.systems.retina3d.plan import Detector3D, Retina3DPlan
from nndet_psma.trainers.registry import FoldJob
from nndet_psma.trainers.settings import TrainerSettings

STILL = Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
# lesions of the tiny task are 3 slices high and 5 pixels wide
SMALL = Detector3D(
    patch_size=(6, 24, 24),
    strides=[(1, 1, 1), (1, 2, 2), (2, 2, 2)],
    kernels=[(1, 3, 3), (3, 3, 3), (3, 3, 3)],
    channels=[6, 8, 12],
    levels=[1, 2],
    fpn_channels=8,
    head_channels=8,
    anchor_shapes=[[(2.0, 4.0, 4.0)], [(3.0, 6.0, 6.0)]],
    samples_per_patch=12,
    detections_per_patch=10,
)
SETTINGS = TrainerSettings(
    iterations=4, batch_size=3, num_workers=0, save_every=2, log_every=2, pictures_every=0, ema_decay=0.5
)


def patch_plan(place: Workplace, *, iterations: int = 4, region: str = "search") -> Retina3DPlan:
    """Two voters on patches: one trained from scratch, one that starts from it."""
    plan = place.plan
    windows = [window.name for window in plan.windows]
    first = Stage("first", region, windows, None, True, iterations, 0.01, [], 0)  # type: ignore[arg-type]
    second = replace(first, name="second", start_from="first")
    return on_patches(
        plan, SMALL, stages=[first, second], batch_size=3, augmentation=STILL, optimizer="adamw", postproc_grid={},
        postproc_defaults={}, decisions={},
    )  # fmt: skip


def patch_job(
    place: Workplace,
    folder: Path,
    plan: Retina3DPlan | None = None,
    settings: TrainerSettings = SETTINGS,
    **kwargs: object,
) -> FoldJob[Retina3DPlan]:
    """Of fold 0; trains the first stage unless told otherwise."""
    job = FoldJob(plan or patch_plan(place), 0, place.store, folder, settings, voter="first")
    return replace(job, **kwargs)  # type: ignore[arg-type]
