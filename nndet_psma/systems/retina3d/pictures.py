"""Pictures of training patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nndet_psma.trainers.watch.pictures import BatchPictures, draw_slice, grey

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class PatchPictures(BatchPictures):
    """Patches ``[C, z, y, x]``: the slice in the middle of the first target, of the patch where there is none.

    Only boxes that this slice runs through are drawn.
    """

    def tile(self, image: Tensor, target: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Image:
        """One slice of the patch, the lesions and findings in it."""
        z = middle_slice(target["boxes"], image.shape[1])
        through = _runs_through(found["boxes"], z)
        shown = {"boxes": _in_slice(found["boxes"][through]), "scores": found["scores"][through]}
        wanted = target["boxes"][_runs_through(target["boxes"], z)]
        return draw_slice(grey(image[self.channel, z], self.shade), _in_slice(wanted), shown)


def middle_slice(boxes: Tensor, depth: int) -> int:
    """Slice in the middle of the first of the 3D boxes ``[N, 6]`` of a patch; of the patch, when there are none."""
    middle = depth / 2 if len(boxes) == 0 else float(boxes[0, 0] + boxes[0, 3]) / 2
    return min(max(int(middle), 0), depth - 1)


def _runs_through(boxes: Tensor, z: int) -> Tensor:
    return (boxes[:, 0] < z + 1) & (boxes[:, 3] > z)


def _in_slice(boxes: Tensor) -> Tensor:
    """``(x0, y0, x1, y1)`` of 3D boxes."""
    return boxes[:, [2, 1, 5, 4]]
