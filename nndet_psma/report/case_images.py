"""Images and labels of one raw case on its canonical grid, for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, Role
from nndet_psma.dataset.task.instances import read_labels
from nndet_psma.evaluation.detection.record import Truth
from nndet_psma.inference.records import read_truth

SOFT_TISSUE = (-125.0, 225.0)  # HU


@dataclass(frozen=True)
class CaseLabels:
    """Lesions of a case and the grid they are given on."""

    truth: Truth
    grid: Geometry


@dataclass(frozen=True)
class CaseImages:
    """One case.

    Attributes:
        image: (z, y, x) HU, or the first modality where none is CT.
        window: (lower, upper) shown as black and white.
        is_ct: whether ``image`` is in HU.
        region: (z, y, x) search region (CTV), or None.
        pet: (z, y, x) SUV where ``image`` is another modality and the task has PET, or None.
        instances: (z, y, x) instance ids, 0 = background.
        grid: of all arrays.
    """

    image: NDArray[Any]
    window: tuple[float, float]
    is_ct: bool
    region: NDArray[np.bool_] | None
    instances: NDArray[np.integer[Any]]
    grid: Geometry
    pet: NDArray[Any] | None = None


def load_labels(case: RawCase, description: DatasetDescription) -> CaseLabels:
    """Lesions of a labelled case; UserError as of ``read_labels``."""
    return CaseLabels(*read_truth(case, description))


def load_images(case: RawCase, description: DatasetDescription) -> CaseImages:
    """Images of a labelled case.

    Raises:
        UserError: a file cannot be read, or image, search region and label have different grids.
    """
    labels, _ = read_labels(case, description)
    ct, pet = (
        next((i for i in description.image_modalities if description.role(i) is role), None)
        for role in (Role.CT, Role.PET)
    )
    shown = description.image_modalities[0] if ct is None else ct
    image = read_volume(case.images[shown])
    region = None
    if description.ctv_modality is not None:
        region = read_volume(case.images[description.ctv_modality]).array > 0
    uptake = None if pet in (None, shown) else read_volume(case.images[pet]).array
    shapes = {each.shape for each in (image.array, labels.array, region, uptake) if each is not None}
    if len(shapes) > 1:
        raise UserError(
            "images, search region and label have different grids",
            file=case.images[shown],
            found=", ".join(str(shape) for shape in sorted(shapes)),
            remedy="nndet_psma check names the file; bring all to one grid",
        )
    window = SOFT_TISSUE if ct is not None else _contrast(image.array)
    return CaseImages(image.array, window, ct is not None, region, labels.array, labels.geometry, uptake)


def _contrast(image: NDArray[Any]) -> tuple[float, float]:
    lower, upper = np.percentile(image, [1, 99.5])
    return float(lower), float(max(upper, lower + 1e-3))
