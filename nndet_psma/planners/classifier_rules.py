"""Rules of classifiers: pure functions from measurements to one value each, with their source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from nndet_psma.artifacts.classifier_plan import Dimension, Voxels
from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.splits import make_folds

COVERED = 0.99
MARGIN_MM = 12.0
SMALLEST_MM, LARGEST_MM = 32.0, 96.0
MULTIPLE = 16
MANY_OBJECTS = 1500
"""Objects from which on a network on volumes is planned."""

FEW_OF_A_CLASS = 10
"""Objects of a class in a fold's training below which only simple models can be trusted."""

_SPACING_MM = 1.0  # Hartenstein et al. 2020
_SLICES_PER_VOXEL = 5
_DROPS = (0.7, 0.9)  # where the rate falls to a tenth
_WARMUP = 0.05


def crop_spacing(in_plane_mm: float, slice_mm: float) -> float:
    """Isotropic spacing: 1 mm, or the median in-plane spacing where that is coarser; never below a fifth of the slices.

    Source: Hartenstein et al. 2020 take 1 mm; finer voxels than the data's would be made up.
    """
    return round(max(_SPACING_MM, in_plane_mm, slice_mm / _SLICES_PER_VOXEL), 4)


def crop_side(sizes_mm: Sequence[float], spacing: float) -> tuple[int, float]:
    """Voxels along a side that hold 99 % of the objects with 12 mm to spare, a multiple of 16, from 32 to 96 mm.

    Args:
        sizes_mm: largest extent of every training object.
        spacing: mm.

    Returns:
        voxels, and the extent in mm that 99 % stay below.
    """
    extent = float(np.quantile(np.asarray(sizes_mm), COVERED)) if len(sizes_mm) else 0.0
    side = min(max(extent + 2 * MARGIN_MM, SMALLEST_MM), LARGEST_MM)
    return MULTIPLE * max(1, math.ceil(side / spacing / MULTIPLE - 1e-9)), extent


def crop_shape(side: int, dimension: Dimension, neighbours: int) -> Voxels:
    """Voxels (z, y, x) that are seen."""
    return (2 * neighbours + 1 if dimension == "2d" else side), side, side


def crop_margin(size: Voxels, rotation_degrees: float, shift_voxels: float) -> Voxels:
    """Voxels stored beyond what is seen: the diagonal of a turned plane, and the shift."""
    angle = math.radians(min(abs(rotation_degrees), 45.0))
    reach = max(size[1:]) / 2 * (math.cos(angle) + math.sin(angle) - 1)
    along, across = math.ceil(shift_voxels), math.ceil(reach + shift_voxels)
    return along, across, across


def training_stage(
    name: str, windows: list[str], epochs: int, objects: int, batch: int, rate: float
) -> Stage:
    """A stage of so many passes over ``objects``; the rate falls at 70 % and at 90 %."""
    steps = max(1, epochs * math.ceil(objects / batch))
    drops = [round(share * steps) for share in _DROPS]
    return Stage(name, "body", windows, None, bool(windows), steps, rate, drops, round(_WARMUP * steps))


def class_folds(
    positives: Mapping[str, int], patients: Mapping[str, str], num_folds: int, seed: int
) -> tuple[list[FoldPlan], str]:
    """Folds with whole patients, spread by whether a patient has a positive object, and what they hold in words.

    Args:
        positives: positive objects by case.
        patients: patient by case.
        num_folds: as many as there are patients with positive objects, at most.
        seed: decides ties.

    Raises:
        UserError: fewer than two patients have positive objects.
    """
    names = {patients[case_id] for case_id, count in positives.items() if count}
    if len(names) < 2:
        raise UserError(
            "all positive objects are of one patient",
            expected="positive objects in at least two patients: one to train on, one to validate on",
            found=", ".join(sorted(names)),
        )
    strata = {case_id: "positive" if patients[case_id] in names else "negative" for case_id in positives}
    count = max(2, min(num_folds, len(names)))
    folds = make_folds(
        list(positives), patients=patients, strata=strata, lesion_counts=positives, num_folds=count, seed=seed
    )
    held = [f"{sum(positives[c] for c in fold.val)}" for fold in folds]
    plans = [FoldPlan(list(fold.train), list(fold.val)) for fold in folds]
    return (
        plans,
        f"{len(names)} patients with positive objects; positive objects validated: {', '.join(held)}",
    )


def refuse_lonely_stations(stations: Sequence[str]) -> None:
    """Raise UserError where a station is named once: most likely a slip of the pen."""
    counts = Counter(stations)
    lonely = sorted(name for name, count in counts.items() if count == 1)
    if lonely and len(counts) > 1:
        raise UserError(
            f"the station '{lonely[0]}' is named once",
            found=", ".join(f"{name} ({count})" for name, count in sorted(counts.items())),
            remedy="Correct its spelling in the JSON of the case, or name it as a neighbouring station",
        )
