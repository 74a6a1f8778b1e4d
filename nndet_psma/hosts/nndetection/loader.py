"""Training batches: nnDetection's loader without what only the filters look at, and the one for slices it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nndet.io.datamodule import DATALOADER_REGISTRY
from nndet.io.datamodule.bg_loader import DataLoader3DOffset

from nndet_psma.hosts.nndetection.channels import EVIDENCE


@DATALOADER_REGISTRY.register
class DataLoader3DPSMA(DataLoader3DOffset):
    """3D patches, half of them with a lesion at a random place."""

    def generate_train_batch(self) -> dict[str, Any]:
        """``data [B, C, z, y, x]``, ``seg [B, 1, z, y, x]`` (ids, -1 outside) and what else nnDetection passes on."""
        batch: dict[str, Any] = super().generate_train_batch()
        batch["data"] = batch["data"][:, :-EVIDENCE]
        return batch


@DATALOADER_REGISTRY.register
class DataLoader2DPSMA(DataLoader3DPSMA):
    """Axial slices: patches of one slice, whose neighbours already are channels.

    A slice with a lesion is drawn by choosing a lesion and one of its slices, a slice of any kind from the case.

    Args:
        patch_size_generator: (y, x) handed to augmentation.
        patch_size_final: (y, x) the network sees.
        kwargs: what nnDetection's loader takes.
    """

    def __init__(
        self, patch_size_generator: Sequence[int], patch_size_final: Sequence[int], **kwargs: Any
    ) -> None:
        super().__init__(
            patch_size_generator=(1, *patch_size_generator),
            patch_size_final=(1, *patch_size_final),
            **kwargs,
        )

    def generate_train_batch(self) -> dict[str, Any]:
        """``data [B, C, y, x]``, ``seg [B, 1, y, x]`` and what else nnDetection passes on."""
        batch = super().generate_train_batch()
        return {**batch, "data": batch["data"][:, :, 0], "seg": batch["seg"][:, :, 0]}
