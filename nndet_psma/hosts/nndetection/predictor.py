"""Tiles without what only the filters look at."""

from __future__ import annotations

from typing import Any

from nndet.inference.predictor import Predictor

from nndet_psma.hosts.nndetection.channels import shown_channels


class PSMAPredictor(Predictor):
    """nnDetection's predictor, for patches or slices of the search region.

    The ensembler is given the whole case, the network only its own channels.
    """

    def tile_case(self, case: dict[str, Any], update_remaining: bool = True) -> list[dict[str, Any]]:
        """Tiles of the shown channels; those that lie wholly outside the search region are left out."""
        shown = {**case, **{key: shown_channels(case[key]) for key in self.tile_keys}}
        tiles = list(super().tile_case(shown, update_remaining))
        seen = [tile for tile in tiles if any(tile[key].any() for key in self.tile_keys)]
        return seen or tiles[:1]


def usual_device() -> str:
    """The first GPU, else the CPU; nnDetection knows only the former."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
