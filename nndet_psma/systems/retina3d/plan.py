"""Plan of ``retina3d``: a one-stage detector on 3D patches."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

from nndet_psma.artifacts.channels import Intensity
from nndet_psma.artifacts.detector_plan import DetectorPlan
from nndet_psma.core.schema import AtMost, Within

Steps = tuple[int, int, int]
Extent = Annotated[float, Within(0, 1e4)]
Shape = tuple[Extent, Extent, Extent]

# what nnU-Net's and nnDetection's largest networks have, several times over
MOST_STAGES = 12
MOST_VOXELS = 1 << 30  # of a patch
Side = Annotated[int, Within(1, 8192)]
Stride = Annotated[int, Within(1, 64)]
Kernel = Annotated[int, Within(1, 15)]
Channels = Annotated[int, Within(1, 8192)]
Boxes = Annotated[int, Within(1, 100_000)]


@dataclass(frozen=True)
class Detector3D:
    """Network and sampling of ``retina3d`` (nnDetection's RetinaUNet in its choices; MONAI's RetinaNet in its parts).

    Triples are (z, y, x). Lists with one entry per encoder stage begin with the finest.

    Attributes:
        patch_size: voxels of the store that the network sees at once; a multiple of the coarsest stride.
        strides: of every encoder stage against the one before; the first is (1, 1, 1) where the input keeps its size.
        kernels: convolution kernels of every stage.
        channels: of every stage.
        levels: encoder stages that feed the heads, from 0, ascending.
        fpn_channels: channels of the pyramid.
        head_channels: channels of the classification and regression heads.
        anchor_shapes: per level, (z, y, x) extents in voxels; every level has as many.
        segmentation_head: predict foreground voxels, too, as Retina U-Net does; helps training only.
        input_mean: subtracted from the channels.
        input_std: then divided by.
        atss_candidates: anchors per level and lesion that ATSS considers.
        samples_per_patch: anchors in the classification loss of a patch.
        sample_positive_fraction: share of positives among them.
        hard_negative_pool: hard negatives are drawn from so many times their number, the worst anchors first.
        detections_per_patch: boxes kept per patch.
        min_score: boxes below are never kept.
        nms_iou: suppression inside a patch.
        patch_overlap: share by which neighbouring patches overlap in prediction.
    """

    patch_size: tuple[Side, Side, Side]
    strides: Annotated[list[tuple[Stride, Stride, Stride]], AtMost(MOST_STAGES)]
    kernels: Annotated[list[tuple[Kernel, Kernel, Kernel]], AtMost(MOST_STAGES)]
    channels: Annotated[list[Channels], AtMost(MOST_STAGES)]
    levels: list[int]
    fpn_channels: Channels
    head_channels: Channels
    anchor_shapes: list[Annotated[list[Shape], AtMost(1000)]]
    segmentation_head: bool = True
    input_mean: Intensity = 0.0
    input_std: Intensity = 1.0
    atss_candidates: Boxes = 4
    samples_per_patch: Boxes = 32
    sample_positive_fraction: float = 0.33
    hard_negative_pool: Boxes = 20
    detections_per_patch: Boxes = 100
    min_score: float = 0.0
    nms_iou: float = 0.6
    patch_overlap: float = 0.5

    def __post_init__(self) -> None:
        if prod(self.patch_size) > MOST_VOXELS:
            raise ValueError(f"patch_size {self.patch_size} has more than {MOST_VOXELS} voxels")
        self._check_stages()
        self._check_anchors()
        for name, stride in zip("zyx", self.level_stride(len(self.strides) - 1), strict=True):
            size = self.patch_size["zyx".index(name)]
            if size < stride or size % stride:
                raise ValueError(
                    f"patch_size {self.patch_size} is no multiple of the stride {stride} along {name}"
                )
        if min(self.samples_per_patch, self.atss_candidates, self.hard_negative_pool) < 1:
            raise ValueError("samples_per_patch, atss_candidates and hard_negative_pool must be at least 1")
        if not 0 < self.sample_positive_fraction <= 1:
            raise ValueError(
                f"sample_positive_fraction must lie in (0, 1], found {self.sample_positive_fraction}"
            )
        if not (0 <= self.min_score < 1 and 0 < self.nms_iou <= 1 and 0 <= self.patch_overlap < 1):
            raise ValueError("min_score, nms_iou or patch_overlap is out of range")
        if self.input_std <= 0:
            raise ValueError(f"input_std must be positive, found {self.input_std}")

    def _check_stages(self) -> None:
        if not len(self.strides) == len(self.kernels) == len(self.channels) or not self.strides:
            raise ValueError(
                f"{len(self.strides)} strides, {len(self.kernels)} kernels, {len(self.channels)} channels: "
                "every stage needs one of each"
            )
        if min(v for triple in [*self.strides, *self.kernels] for v in triple) < 1:
            raise ValueError("strides and kernels must be at least 1")
        if any(v % 2 == 0 for triple in self.kernels for v in triple):
            raise ValueError(f"kernels must be odd, found {self.kernels}")
        if min([*self.channels, self.fpn_channels, self.head_channels, self.detections_per_patch]) < 1:
            raise ValueError("channels and detections_per_patch must be at least 1")

    def _check_anchors(self) -> None:
        stages = range(len(self.strides))
        if not self.levels or self.levels != sorted(set(self.levels)) or not set(self.levels) <= set(stages):
            raise ValueError(
                f"levels ascend among the stages 0..{len(self.strides) - 1}, found {self.levels}"
            )
        if len(self.anchor_shapes) != len(self.levels):
            raise ValueError(f"{len(self.levels)} levels but anchor shapes for {len(self.anchor_shapes)}")
        if len({len(shapes) for shapes in self.anchor_shapes}) > 1 or not self.anchor_shapes[0]:
            raise ValueError("every level needs the same number of anchor shapes (the heads are shared)")
        if min(v for shapes in self.anchor_shapes for shape in shapes for v in shape) <= 0:
            raise ValueError("anchor shapes must be positive")

    def level_stride(self, stage: int) -> Steps:
        """Voxels of the input per cell of an encoder stage."""
        z, y, x = (prod(step[axis] for step in self.strides[: stage + 1]) for axis in range(3))
        return z, y, x


@dataclass(frozen=True, kw_only=True)
class Retina3DPlan(DetectorPlan):
    """A plan with a ``detector3d`` on patches."""

    detector: None = None
    detector3d: Detector3D

    @classmethod
    def reads(cls, content: dict[str, Any]) -> bool:
        """Whether the content of a file is a detector's plan, of patches."""
        return super().reads(content) and content.get("detector3d") is not None
