"""The one-stage 3D detector: RetinaNet with nnDetection's choices, put together from MONAI's parts.

MONAI's own ``RetinaNetDetector`` is not used as a whole: it computes anchors in the type of the features, keeps those
of the last image whatever the device, waits for the GPU to look for NaN on every level, draws from one random stream
for all processes, and its heads have the width of the pyramid. Matching (ATSS), box coding and the GIoU loss are
MONAI's; see :mod:`nndet_psma.systems.retina3d.anchors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nndet_psma.boxes.clustering import nms
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.systems.retina3d.anchors import (
    AnchorGrid,
    AnchorMatcher,
    HardNegativeSampler,
    decode_boxes,
    giou_loss,
)
from nndet_psma.systems.retina3d.plan import Detector3D
from nndet_psma.systems.retina3d.pyramid import BoxHeads, Encoder3D, Pyramid3D, segmentation_layer

_CANDIDATES = 1000  # best anchors of a level that become boxes
_MIN_SIDE_VOXELS = 0.5
_DICE_SMOOTHING = 1.0
LOSSES = ("loss_classifier", "loss_box_reg", "loss_segmentation_ce", "loss_segmentation_dice")


def build_retinanet3d(detector: Detector3D, channels: int, classes: int) -> PatchDetector:
    """Detector for patches ``[channels, z, y, x]`` and ``classes`` foreground classes (labels from 0).

    Raises:
        UserError: the patch shrinks to a single cell, which instance normalisation cannot train on.
    """
    cells = [size // step for size, step in zip(detector.patch_size, _coarsest(detector), strict=True)]
    if prod(cells) < 2:
        raise UserError(
            f"patch_size {detector.patch_size} leaves a single cell of the coarsest stage",
            remedy="Plan a larger patch, or fewer stages",
        )
    return PatchDetector(detector, channels, classes)


class PatchDetector(nn.Module):
    """Finds boxes in patches.

    In training mode ``model(images, targets)`` gives the losses by name, in evaluation mode ``model(images)`` one
    dictionary per patch: "boxes" ``[N, 6]`` (voxels of the patch), "scores" and "labels" ``[N]``, best first, on the
    CPU.

    Attributes:
        counts: by loss, how many anchors (patches, for the segmentation) of the last batch it is a mean over.
    """

    def __init__(self, detector: Detector3D, channels: int, classes: int) -> None:
        super().__init__()
        self.detector = detector
        self.encoder = Encoder3D(detector, channels)
        self.pyramid = Pyramid3D(detector)
        self.heads = BoxHeads(detector, classes)
        self.segmentation = segmentation_layer(detector) if detector.segmentation_head else None
        self.anchors = AnchorGrid(detector)
        self.matcher = AnchorMatcher(detector.atss_candidates)
        self.sampler = HardNegativeSampler(
            detector.samples_per_patch, detector.sample_positive_fraction, detector.hard_negative_pool
        )
        self.counts: dict[str, int] = {}

    def forward(
        self, images: Tensor | Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> Any:
        """Losses or detections, see the class.

        Args:
            images: ``[B, C, z, y, x]``, or as many ``[C, z, y, x]``; sides are multiples of the coarsest stride.
            targets: per patch "boxes" ``[M, 6]``, "labels" ``[M]`` from 0, and with a segmentation head "mask"
                ``[z, y, x]``, 1 in lesions.

        Raises:
            ValueError: training mode without targets.
        """
        batch = images if isinstance(images, Tensor) else torch.stack(list(images))
        maps = self.pyramid(self.encoder(batch))
        logits, deltas = self.heads(maps)
        anchors = self.anchors([features.shape[2:] for features in maps], batch.device)
        if not self.training:
            return self._detections(logits, deltas, anchors, tuple(batch.shape[2:]))
        if targets is None:
            raise ValueError("targets are needed in training mode")
        with torch.autocast(batch.device.type, enabled=False):
            losses = self._box_losses(
                torch.cat(logits, 1).float(), torch.cat(deltas, 1).float(), anchors, targets
            )
        if self.segmentation is not None:
            losses |= self._segmentation_losses(self.segmentation(maps[0]).float(), targets)
        return losses

    def _box_losses(
        self, logits: Tensor, deltas: Tensor, anchors: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Binary cross-entropy of the drawn anchors, 1 - GIoU of the positive ones among them."""
        every = torch.cat(anchors)
        matched = [self.matcher.lesions(t["boxes"], anchors, self.anchors.per_cell) for t in targets]
        drawn = self.sampler.draw(matched, list(logits.detach().amax(dim=2)))
        chosen, wanted, boxes, lesions = [], [], [], []
        for image, (positive, negative) in enumerate(drawn):
            lesion = matched[image][positive]
            chosen.append(logits[image, torch.cat([positive, negative])])
            hot = torch.zeros_like(chosen[-1])
            hot[torch.arange(len(positive), device=hot.device), targets[image]["labels"][lesion]] = 1.0
            wanted.append(hot)
            boxes.append(decode_boxes(deltas[image, positive], every[positive]))
            lesions.append(targets[image]["boxes"][lesion])
        self.counts = {"loss_classifier": self.sampler.drawn, "loss_box_reg": self.sampler.positives}
        return {
            "loss_classifier": functional.binary_cross_entropy_with_logits(
                torch.cat(chosen), torch.cat(wanted)
            ),
            "loss_box_reg": giou_loss(torch.cat(boxes), torch.cat(lesions)),
        }

    def _segmentation_losses(self, logits: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Half cross-entropy and half soft Dice, the latter over patches that show a lesion: others have none.

        A cell of the finest level is foreground when any of its voxels is: small lesions must not vanish.
        """
        masks = torch.stack([target["mask"] for target in targets])[:, None].float()
        wanted = functional.adaptive_max_pool3d(masks, logits.shape[2:])
        shown = wanted.flatten(1).any(dim=1)
        probability = torch.sigmoid(logits[shown]).flatten(1)
        truth = wanted[shown].flatten(1)
        overlap = 2 * (probability * truth).sum(1) + _DICE_SMOOTHING
        dice = 1 - overlap / (probability.sum(1) + truth.sum(1) + _DICE_SMOOTHING)
        self.counts |= {"loss_segmentation_ce": len(masks), "loss_segmentation_dice": len(dice)}
        return {
            "loss_segmentation_ce": functional.binary_cross_entropy_with_logits(logits, wanted) / 2,
            "loss_segmentation_dice": dice.sum() / max(1, len(dice)) / 2,
        }

    def _detections(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], shape: tuple[int, ...]
    ) -> list[dict[str, Tensor]]:
        levels = [_best(*level) for level in zip(logits, deltas, anchors, strict=True)]
        boxes, scores, labels = (torch.cat(parts, dim=1).cpu() for parts in zip(*levels, strict=True))
        limit = torch.tensor([*shape, *shape], dtype=boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        return [self._suppressed(*image) for image in zip(boxes, scores, labels, strict=True)]

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Boxes of one patch that are thick, good enough and no double, best first."""
        thick = ((boxes[:, 3:] - boxes[:, :3]) >= _MIN_SIDE_VOXELS).all(dim=1)
        keep = (thick & (scores >= self.detector.min_score)).numpy()
        found = Detections.build(boxes.numpy()[keep], scores.numpy()[keep], labels.numpy()[keep])
        found = nms(found, self.detector.nms_iou)
        found = found.select(np.arange(min(len(found), self.detector.detections_per_patch)))
        return {
            "boxes": torch.from_numpy(found.boxes.astype(np.float32)),
            "scores": torch.from_numpy(found.scores.astype(np.float32)),
            "labels": torch.from_numpy(found.labels),
        }


def _best(logits: Tensor, deltas: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes ``[B, k, 6]``, scores and labels ``[B, k]`` of the best anchors of a level."""
    classes = logits.shape[2]
    scores, places = torch.sigmoid(logits.float()).flatten(1).topk(min(_CANDIDATES, logits[0].numel()), dim=1)
    rows, labels = places // classes, places % classes
    chosen = deltas.gather(1, rows[..., None].expand(-1, -1, 6)).reshape(-1, 6)
    return decode_boxes(chosen, anchors[rows.flatten()]).reshape(*rows.shape, 6), scores, labels


def _coarsest(detector: Detector3D) -> tuple[int, int, int]:
    return detector.level_stride(len(detector.strides) - 1)
