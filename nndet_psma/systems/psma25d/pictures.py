"""Pictures of training slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nndet_psma.trainers.watch.pictures import BatchPictures, draw_slice, grey

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


class SlicePictures(BatchPictures):
    """Slices ``[C, H, W]`` of a batch; the channel shown is best that of :func:`centre_channel`."""

    def tile(self, image: Tensor, target: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Image:
        """The slice, its lesions and what is found in it."""
        return draw_slice(grey(image[self.channel], self.shade), target["boxes"], found)


def centre_channel(neighbours: int, source: int = 0) -> int:
    """Channel of the centre slice of a channel group (windows first): order as in ``preprocess.slice_channels``."""
    return source * (2 * neighbours + 1) + neighbours
