"""Controls: what a network still says of a crop from which something was taken away."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.evaluation.judgements.shortcuts import EQUAL_SIZE, ONLY, SURROUND
from nndet_psma.preprocess.crops import INSIDE, VALID
from nndet_psma.preprocess.object_features import SHORT
from nndet_psma.trainers.classifier.views import STILL, CropDraw

BLIND = "network without its image (mask only)"
"""What networks that were trained without an image say."""

Crop = NDArray[np.int16]
Codes = NDArray[np.uint8]
Control = Callable[[Crop, Codes, dict[str, float | None], ClassifierPlan], tuple[Crop, CropDraw]]


def surround(
    ct: Crop, codes: Codes, features: dict[str, float | None], plan: ClassifierPlan
) -> tuple[Crop, CropDraw]:
    """The object's voxels replaced by the median of the crop; its outline stays visible in a mask that is a channel."""
    return np.where(codes & INSIDE, _median(ct, codes), ct).astype(np.int16), STILL


def only(
    ct: Crop, codes: Codes, features: dict[str, float | None], plan: ClassifierPlan
) -> tuple[Crop, CropDraw]:
    """All other voxels replaced by that median."""
    return np.where(codes & INSIDE, ct, _median(ct, codes)).astype(np.int16), STILL


def equal_size(
    ct: Crop, codes: Codes, features: dict[str, float | None], plan: ClassifierPlan
) -> tuple[Crop, CropDraw]:
    """The object with its surroundings magnified or reduced until its short axis is the plan's."""
    return ct, CropDraw(zoom=(features.get(SHORT) or plan.equal_short_mm) / plan.equal_short_mm)


CONTROLS: dict[str, Control] = {SURROUND: surround, ONLY: only, EQUAL_SIZE: equal_size}


def _median(ct: Crop, codes: Codes) -> float:
    """Of the voxels that lie in the image."""
    return float(np.median(ct[(codes & VALID) > 0]))
