"""nnDetection's architecture planner with our channels, our lesion sizes, and no GPU."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from nndet.planning.architecture.boxes import BoxC002
from numpy.typing import NDArray

from nndet_psma.artifacts.plan import Target
from nndet_psma.hosts.nndetection.anchors import fit_edges
from nndet_psma.hosts.nndetection.memory import CountingEstimator

# Widths for a CPU. The heads' group norm has 16 channels per group, so theirs are multiples of it.
_CPU_WIDTHS = {"max_channels": 64, "fpn_channels": 32, "head_channels": 32}
_CPU_START, _CPU_BATCH = {2: 16, 3: 8}, {2: 8, 3: 2}
_CPU_CANDIDATES = 1000  # suppression of nnDetection's 10000 per image takes a CPU tens of seconds


class BoxPSMA(BoxC002):
    """``BoxC002``: levels, strides, kernels and the loop that shrinks the patch are nnDetection's own.

    Args:
        preprocessed_output_dir: folder with nnDetection's dataset properties.
        save_dir: for nnDetection's plots; none are drawn, as our report shows the same.
        network_cls: nnDetection module that is planned for.
        model_cfg: its configuration.
        channels: that the network sees.
        lesion_sizes: ``[N, dim]`` sides of the lesions in voxels of the target grid.
        target: machine planned for.
    """

    def __init__(
        self,
        preprocessed_output_dir: str | PathLike[str],
        save_dir: str | PathLike[str],
        network_cls: Any,
        model_cfg: dict[str, Any],
        *,
        channels: int,
        lesion_sizes: NDArray[np.float64],
        target: Target,
    ) -> None:
        super().__init__(
            preprocessed_output_dir=preprocessed_output_dir,
            save_dir=save_dir,
            network_cls=network_cls,
            estimator=CountingEstimator(target),
            model_cfg=model_cfg,
        )
        self.channels = channels
        self.lesion_sizes = lesion_sizes
        self.target = target

    def create_default_settings(self) -> None:
        """nnDetection's widths and batch for a GPU, narrower ones for a CPU."""
        super().create_default_settings()
        if self.target.device == "cpu":
            dim = 2 if self.dim == 2 else 3  # nnDetection has not set it yet when it plans for 3D
            self.architecture_kwargs |= _CPU_WIDTHS | {"topk_candidates": _CPU_CANDIDATES}
            self.architecture_kwargs["start_channels"] = _CPU_START[dim]
            self.batch_size = _CPU_BATCH[dim]

    def process_properties(self, **kwargs: Any) -> None:
        """As nnDetection, but with the channels the preprocessor makes."""
        super().process_properties(**kwargs)
        self.architecture_kwargs["in_channels"] = self.channels

    def find_anchors(self, boxes_torch: Any, strides: Any, anchor_generator: Any) -> dict[str, list[int]]:
        """Edge lengths on the finest level (width, height, depth are array axes 0, 1, 2).

        nnDetection's boxes are one voxel longer than the lesion, and so is what the network is taught.
        """
        edges = fit_edges(self.lesion_sizes + 1, np.asarray(strides, dtype=np.float64))
        return dict(zip(("width", "height", "depth"), edges, strict=False))

    @staticmethod
    def filter_boxes(
        boxes_np: NDArray[Any], upper_percentile: float = 99.5, lower_percentile: float = 0.5
    ) -> NDArray[Any]:
        """All of them: nnDetection drops every box where all lesions are of one size."""
        return boxes_np

    def plot_box_area_distribution(self, **kwargs: Any) -> None:
        """Nothing."""

    def plot_box_distribution(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def plot_class_distribution(self, **kwargs: Any) -> None:
        """Nothing."""

    def plot_instance_distribution(self, **kwargs: Any) -> None:
        """Nothing."""
