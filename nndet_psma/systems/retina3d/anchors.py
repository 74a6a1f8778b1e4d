"""Anchors of a 3D detector, which of them are lesions, and which of them a training step learns from.

MONAI writes the corners of a 3D box in the order of the tensor's axes, lower corner first, with the upper one
exclusive. Its axes are called x, y, z, ours are z, y, x, but as both mean first, second, third axis of the image
tensor, the numbers are the same: this module is the only border, and nothing is permuted at it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher
from monai.apps.detection.utils.box_coder import BoxCoder
from monai.data.box_utils import box_iou
from monai.losses.giou_loss import BoxGIoULoss
from torch import Tensor

from nndet_psma.systems.retina3d.plan import Detector3D
from nndet_psma.trainers.networks.sampling import BoxSampler

_CODER = BoxCoder(weights=(1.0,) * 6)
_GIOU = BoxGIoULoss(reduction="sum")


class AnchorGrid:
    """Anchors of every cell of every level, cell by cell, a cell's shapes in their order.

    MONAI's generator rounds half extents to whole voxels, which leaves nothing of an anchor one slice thick, puts
    the anchors of an unstrided axis on voxel edges, and computes in the type of the features, whose 16 bits do not hold
    a coordinate. Here anchors are exact, in 32 bits, and lie in the centres of the cells.

    Args:
        detector: levels, strides and anchor shapes.
    """

    def __init__(self, detector: Detector3D) -> None:
        self.strides = [detector.level_stride(level) for level in detector.levels]
        self.shapes = [torch.tensor(shapes, dtype=torch.float32) for shapes in detector.anchor_shapes]
        self._kept: tuple[object, list[Tensor]] | None = None

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return len(self.shapes[0])

    def __call__(self, grids: Sequence[Sequence[int]], device: torch.device) -> list[Tensor]:
        """Anchors ``[cells * per_cell, 6]`` of every level, in voxels of the patch.

        Args:
            grids: cells (z, y, x) of every level.
            device: where they are wanted.
        """
        key = (tuple(tuple(grid) for grid in grids), device)
        if self._kept is None or self._kept[0] != key:
            levels = [
                self._level(*level).to(device) for level in zip(grids, self.strides, self.shapes, strict=True)
            ]
            self._kept = (key, levels)
        return self._kept[1]

    @staticmethod
    def _level(grid: Sequence[int], stride: Sequence[int], shapes: Tensor) -> Tensor:
        axes = [(torch.arange(cells) + 0.5) * step for cells, step in zip(grid, stride, strict=True)]
        centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 1, 3)
        return torch.cat([centres - shapes / 2, centres + shapes / 2], dim=-1).reshape(-1, 6)


class AnchorMatcher(ATSSMatcher):
    """Adaptive training sample selection (Zhang et al. 2020) as nnDetection uses it: centres may lie outside.

    Args:
        candidates: per level and lesion, the closest ones.
    """

    def __init__(self, candidates: int) -> None:
        # not ATSSMatcher's own, whose message through the root logger installs a handler there
        super(ATSSMatcher, self).__init__(similarity_fn=box_iou)  # type: ignore[arg-type]
        self.num_candidates, self.center_in_gt, self.min_dist, self.debug = candidates, False, 0.01, False

    @torch.no_grad()
    def lesions(self, boxes: Tensor, anchors: Sequence[Tensor], per_cell: int) -> Tensor:
        """Row of the lesion of every anchor ``[N]`` over all levels, -1 for background.

        Args:
            boxes: ``[M, 6]`` of a patch.
            anchors: of every level.
            per_cell: anchors of a cell.
        """
        every = torch.cat(list(anchors))
        if len(boxes) == 0:
            return torch.full((len(every),), -1, dtype=torch.int64, device=every.device)
        cells = [len(level) // per_cell for level in anchors]
        matched: Tensor = self(boxes.float(), every, cells, per_cell)[1]
        return matched


class HardNegativeSampler(BoxSampler):
    """Draws positives, and negatives among the anchors that look most like a lesion.

    The rule of nnDetection and MONAI: positives up to their share, negatives in proportion to the positives (as if
    there was one where there is none), drawn from the worst ``pool`` times as many. The draws are those of
    :class:`~nndet_psma.trainers.networks.sampling.BoxSampler`: every image has a stream of its own.

    Args:
        size: anchors drawn per image.
        positive_fraction: share of positives among them.
        pool: how many times more negatives than drawn are candidates.
        stream: tells two samplers of one model apart.
    """

    def __init__(self, size: int, positive_fraction: float, pool: int, stream: int = 0) -> None:
        super().__init__(size, positive_fraction, stream)
        self.pool = pool

    def draw(self, labels: Sequence[Tensor], hardness: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Rows of the positive and of the negative anchors drawn, one pair per image.

        Args:
            labels: per image ``[N]``: at least 0 for positives, negative for background.
            hardness: per image ``[N]``, such as logits.

        Raises:
            ValueError: :meth:`begin` was told another number of images.
        """
        seeds, self._seeds = self._seeds, None
        if seeds is not None and len(seeds) != len(labels):
            raise ValueError(f"{len(labels)} images, but seeds for {len(seeds)}")
        drawn = []
        for number, (of_image, hard) in enumerate(zip(labels, hardness, strict=True)):
            generator = None
            if seeds is not None:
                generator = torch.Generator(of_image.device).manual_seed(seeds[number])
            drawn.append(self._draw_image(of_image, hard, generator))
        self.positives = sum(len(positive) for positive, _ in drawn)
        self.drawn = self.positives + sum(len(negative) for _, negative in drawn)
        return drawn

    def _draw_image(
        self, labels: Tensor, hardness: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        positive, negative = torch.where(labels >= 0)[0], torch.where(labels < 0)[0]
        wanted = min(len(positive), max(1, int(self.size * self.positive_fraction)))
        fill = max(1, round(max(1, wanted) * (1 - self.positive_fraction) / self.positive_fraction))
        pool = min(len(negative), fill * self.pool)
        hardest = negative[hardness[negative].float().topk(pool).indices]
        return _some(positive, wanted, generator), _some(hardest, fill, generator)


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Boxes ``[N, 6]`` that the regression's ``deltas`` ``[N, 6]`` make of ``anchors``, in 32 bits."""
    boxes: Tensor = _CODER.decode_single(deltas.float(), anchors)
    return boxes


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - GIoU over pairs of boxes ``[N, 6]``; zero, with zero gradients, without any.

    NaN where a box is not finite: MONAI raises there, but the training loop can name the patches.
    """
    if len(boxes) == 0:
        return boxes.sum()
    try:
        total: Tensor = _GIOU(boxes, targets.to(boxes.dtype))
    except ValueError:
        return boxes.sum() * float("nan")
    return total / len(boxes)


def _some(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator, device=rows.device)[:count]]
