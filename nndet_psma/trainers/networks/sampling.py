"""Which anchors and proposals a training step learns from: drawn per image, whoever computes that image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_MULTIPLIERS = (
    1_000_003,
    8_191,
    2,
)  # primes apart, so that small numbers of step, image and stream do not meet


class BoxSampler(nn.Module):
    """Draws boxes of an image for the loss, a share of them positive.

    It follows the rule of torchvision's sampler (all positives up to the share, negatives fill up), but every image
    has a stream of random numbers of its own, named by (seed, image number). torchvision draws from one stream for all
    images of a process, so that several processes would not train what one process trains.

    Args:
        size: boxes drawn per image.
        positive_fraction: largest share of positives among them.
        stream: tells two samplers of one model apart.

    Attributes:
        drawn: boxes drawn by the last call, over its images.
        positives: the positives among them.
        chosen: their masks, one per image.
    """

    def __init__(self, size: int, positive_fraction: float, stream: int) -> None:
        super().__init__()
        self.size = size
        self.positive_fraction = positive_fraction
        self.stream = stream
        self.drawn = 0
        self.positives = 0
        self.chosen: list[Tensor] = []
        self._seeds: list[int] | None = None

    def begin(self, seed: int, images: Sequence[int]) -> None:
        """Fix the draws of the next call: ``images`` are the numbers of its images within the whole batch."""
        a, b, c = _MULTIPLIERS
        self._seeds = [(seed * a + image * b + self.stream * c) % 2**63 for image in images]

    def forward(self, matched: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks ``[N]`` (uint8) of the positive and of the negative boxes drawn, one pair per image.

        Args:
            matched: per image ``[N]``: at least 1 for positives, 0 for negatives, below for boxes that do not count.

        Raises:
            ValueError: :meth:`begin` was told another number of images.
        """
        seeds, self._seeds = self._seeds, None
        if seeds is not None and len(seeds) != len(matched):
            raise ValueError(f"{len(matched)} images, but seeds for {len(seeds)}")
        self.drawn = self.positives = 0
        positive_masks, negative_masks = [], []
        for number, labels in enumerate(matched):
            generator = None
            if seeds is not None:
                generator = torch.Generator(labels.device)
                generator.manual_seed(seeds[number])
            positive, negative = self._draw(labels, generator)
            positive_masks.append(_mask(labels, positive))
            negative_masks.append(_mask(labels, negative))
            self.positives += len(positive)
            self.drawn += len(positive) + len(negative)
        self.chosen = positive_masks
        return positive_masks, negative_masks

    def _draw(self, labels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        positive = torch.where(labels >= 1)[0]
        negative = torch.where(labels == 0)[0]
        wanted = min(len(positive), int(self.size * self.positive_fraction))
        return _some(positive, wanted, generator), _some(negative, self.size - wanted, generator)


def seed_samplers(model: nn.Module, seed: int, images: Sequence[int]) -> None:
    """:meth:`BoxSampler.begin` for every sampler of ``model``."""
    for module in model.modules():
        if isinstance(module, BoxSampler):
            module.begin(seed, images)


def _some(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    order = torch.randperm(len(indices), generator=generator, device=indices.device)
    return indices[order[:count]]


def _mask(labels: Tensor, chosen: Tensor) -> Tensor:
    mask = torch.zeros_like(labels, dtype=torch.uint8)
    mask[chosen] = 1
    return mask
