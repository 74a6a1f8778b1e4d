"""The shape of a 3D network: where it pools, its kernels and channels, and the levels that carry anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

Steps = tuple[int, int, int]

LEAST_CELLS = 4
"""Cells of the coarsest feature map along an axis that was pooled (nnU-Net's and nnDetection's)."""
MAX_STAGES = 6
FINEST_LEVEL, MAX_LEVELS = 2, 4
"""nnDetection's heads work on the strides 4 to 32: stages 2 to 5."""
_SAME = 2.0  # axes within this factor of the finest are pooled together and share a kernel


@dataclass(frozen=True)
class Topology:
    """Encoder stages, the finest first; triples are (z, y, x).

    Attributes:
        strides: of every stage against the one before.
        kernels: of the convolutions of every stage.
    """

    strides: list[Steps]
    kernels: list[Steps]

    def stride(self, stage: int) -> Steps:
        """Input voxels per cell of a stage."""
        z, y, x = (prod(step[axis] for step in self.strides[: stage + 1]) for axis in range(3))
        return z, y, x

    @property
    def divisor(self) -> Steps:
        """What every side of a patch must be a multiple of."""
        return self.stride(len(self.strides) - 1)

    def rounded(self, size: Sequence[float]) -> Steps:
        """``size`` rounded up to the divisor."""
        z, y, x = (ceil(n / d - 1e-9) * d for n, d in zip(size, self.divisor, strict=True))
        return z, y, x


def plan_topology(spacing: Sequence[float], size: Sequence[float]) -> Topology:
    """Stages for a patch of ``size`` voxels (z, y, x) at ``spacing`` mm.

    Every stage halves the axes that have at least eight cells left (so that four remain) and whose spacing is below
    twice that of the finest such axis: coarse axes wait until the others have caught up. A kernel is 3 along axes
    within that factor of the finest and 1 along coarser ones: a neighbour slice 5 mm away says little about a voxel
    of 0.6 mm; what is 3 once stays 3. Six stages at most.

    Source: the network configuration of nnU-Net and nnDetection.
    """
    step, cells = list(spacing), list(size)
    strides, kernels = [(1, 1, 1)], [_kernel(step)]
    while len(strides) < MAX_STAGES:
        left = [axis for axis in range(3) if cells[axis] >= 2 * LEAST_CELLS]
        finest = min((step[axis] for axis in left), default=0.0)
        pooled = [2 if axis in left and step[axis] < _SAME * finest else 1 for axis in range(3)]
        if max(pooled) == 1:
            break
        step = [s * p for s, p in zip(step, pooled, strict=True)]
        cells = [n / p for n, p in zip(cells, pooled, strict=True)]
        strides.append((pooled[0], pooled[1], pooled[2]))
        kernels.append(_kernel(step, kernels[-1]))
    return Topology(strides, kernels)


def _kernel(step: Sequence[float], before: Steps = (1, 1, 1)) -> Steps:
    finest = min(step)
    z, y, x = (3 if k == 3 or s < _SAME * finest else 1 for s, k in zip(step, before, strict=True))
    return z, y, x


def stage_channels(stages: int, start: int, most: int) -> list[int]:
    """Channels of every stage: doubled from ``start`` on, ``most`` at most (32 and 320 in nnU-Net and nnDetection)."""
    return [min(start * 2**stage, most) for stage in range(stages)]


def choose_levels(topology: Topology, lesions: NDArray[np.float64]) -> list[int]:
    """Stages that carry anchors, from the extents of the lesions ``[M, 3]`` in voxels.

    The finest is stage 2 as in nnDetection, or stage 1 when the smallest lesions (5 % quantile of each axis) are
    smaller than the stride of stage 2: they may lie between the anchors' centres. Stage 0 would cost eight times as
    much as stage 1. The coarsest is the last whose stride is not above the largest lesions (95 % quantile) along any
    axis. Two levels at least where the network has them, for context, and four at most.
    """
    small, large = np.quantile(lesions, [0.05, 0.95], axis=0)
    last = len(topology.strides) - 1

    def within(stage: int, extents: NDArray[np.float64]) -> bool:
        return bool(np.all(np.array(topology.stride(stage)) <= extents + 1e-9))

    finest = FINEST_LEVEL if last >= FINEST_LEVEL and within(FINEST_LEVEL, small) else min(1, last)
    coarsest = max((s for s in range(finest, last + 1) if within(s, large)), default=finest)
    coarsest = min(max(coarsest, finest + 1), finest + MAX_LEVELS - 1, last)
    return list(range(finest, coarsest + 1))
