"""torchvision's input transform with resizing and normalisation switched off."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class PassThroughTransform(GeneralizedRCNNTransform):
    """Only pads images to a batch.

    torchvision would normalise with ImageNet statistics and resize to 800 pixels; its ``_skip_resize`` argument is
    honoured in training only, so prediction would silently run at another scale. Here both are no-ops: slices
    arrive in the planned scale and range.
    """

    def __init__(self, channels: int, size_divisible: int = 32) -> None:
        super().__init__(
            min_size=1,
            max_size=1,
            image_mean=[0.0] * channels,
            image_std=[1.0] * channels,
            size_divisible=size_divisible,
        )

    def normalize(self, image: Tensor) -> Tensor:
        """The image unchanged."""
        return image

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Image and target unchanged."""
        return image, target
