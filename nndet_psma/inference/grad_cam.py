"""Which parts of what a classifier sees speak for the positive class, by the gradients of its last maps that still tell
places apart.

Source: Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization";
MONAI's implementation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from nndet_psma.artifacts.classifier_plan import ClassifierPlan, CropPlan
from nndet_psma.inference.classifying import CropEnsemble
from nndet_psma.trainers.classifier.stage import stacked
from nndet_psma.trainers.classifier.views import STILL

POSITIVE = 1
_FEWEST = 4
"""Places along an axis that a map must have to be of use: deeper ones say little but that it is somewhere."""

_MODES = {2: "bilinear", 3: "trilinear"}


def grad_cam(ensemble: CropEnsemble, ct: NDArray[np.int16], codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean over the networks that vote; 0 where nothing speaks for the positive class.

    Args:
        ensemble: of the model.
        ct: ``[z, y, x]`` stored crop, HU.
        codes: ``[z, y, x]`` of the same.

    Returns:
        ``[z, y, x]`` of the stored crop. Networks on slices have one map for all of them: it lies on the central axial
        slice, and of three orthogonal slices it is a mixture.
    """
    plan, maps = ensemble.plan, []
    layer = map_layer(plan)
    for stage, models in ensemble.members:
        if stage.voter:
            images = torch.from_numpy(stacked([ct], codes[None], plan, stage, [STILL])).to(ensemble.device)
            maps += [class_map(model, images, layer) for model in models]
    return _in_crop(np.mean(maps, axis=0), plan.crop, ct.shape)


def class_map(model: nn.Module, images: torch.Tensor, layer: str) -> NDArray[np.float32]:
    """The map of one image ``[1, C, *size]`` at a layer by name, brought to the size of the image."""
    from monai.visualize.class_activation_maps import GradCAM

    mapped: Any = GradCAM(model, layer)
    with torch.enable_grad():
        coarse = mapped.compute_map(images, class_idx=POSITIVE).detach()
    size = images.shape[2:]
    fine = functional.interpolate(coarse, size=size, mode=_MODES[len(size)], align_corners=False)
    found: NDArray[np.float32] = fine[0, 0].cpu().numpy().astype(np.float32)
    return found


def map_layer(plan: ClassifierPlan) -> str:
    """Name of the deepest layer whose map has at least four places along every axis (the first, where none has)."""
    from nndet_psma.trainers.classifier.network import VGG_BLOCKS

    side, blocks = min(plan.crop.image_size), len(plan.network.widths)
    # a residual network halves before its first block and at every later one; the other after every block
    first = 2 if plan.network.kind == "resnet" else 1
    fine = [number for number in range(blocks) if side / (first * 2**number) >= _FEWEST]
    deepest = max(fine, default=0)
    if plan.network.kind == "resnet":
        return f"trunk.layer{deepest + 1}"
    return (
        f"trunk.{sum(VGG_BLOCKS[: deepest + 1]) + deepest - 1}"  # convolutions so far, and poolings between
    )


def _in_crop(found: NDArray[np.float32], crop: CropPlan, stored: tuple[int, ...]) -> NDArray[np.float32]:
    whole = np.zeros(stored, dtype=np.float32)
    z, y, x = (slice(margin, margin + size) for margin, size in zip(crop.margin, crop.size, strict=True))
    if found.ndim == 3:
        whole[z, y, x] = found
    else:
        whole[stored[0] // 2, y, x] = found
    return whole
