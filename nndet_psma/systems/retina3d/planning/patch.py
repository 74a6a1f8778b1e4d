"""Patch and batch of the 3D detector: the largest that the machine holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.plan import Target
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import PLAIN, USABLE_SHARE, MemoryEstimate, Training
from nndet_psma.planners.volume_rules import CONTEXT, Triple, VolumeSizes
from nndet_psma.systems.retina3d.planning.layers import PatchNetwork, patch_flops
from nndet_psma.systems.retina3d.planning.memory import estimate_patch_memory
from nndet_psma.systems.retina3d.planning.network import LEAST_CELLS, Steps, Topology, plan_topology
from nndet_psma.systems.retina3d.planning.profile import PatchProfile

LEAST_BATCH, USUAL_BATCH, MOST_BATCH = 2, 4, 8
"""nnU-Net's least, nnDetection's, and its double: with more, the rate in proportion to the batch becomes large."""
USUAL_VOXELS = 96**3
"""Patches up to this size grow before the batch does: what they lack is context."""

Build = Callable[[Topology], PatchNetwork]


@dataclass(frozen=True)
class PatchChoice:
    """Network, patch (z, y, x), patches per step over all GPUs, the peak of one GPU, and why."""

    network: PatchNetwork
    patch: Steps
    batch_size: int
    estimate: MemoryEstimate
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A patch that its own topology divides, and what is made of it."""

    patch: Steps
    network: PatchNetwork

    @property
    def voxels(self) -> int:
        """Of the patch."""
        return prod(self.patch)


def patch_candidates(
    spacing: Triple, sizes: VolumeSizes, profile: PatchProfile, build: Build
) -> list[Candidate]:
    """Patches in falling size, each smaller than the one before.

    The first is the median region, clipped to a cube (in mm) of ``profile.cube`` voxels; then the axis that is
    longest against the median region loses as many voxels as its stride asks for, until no axis can lose any more
    without cutting the larger lesions (95 % quantile, and half as much again) or falling below four cells. Strides are
    planned anew for every size.

    Source: the loop of nnDetection and nnU-Net.
    """
    region = np.maximum(np.array(sizes.median_region), 1.0)
    size = _start(region, spacing, profile)
    least = np.minimum(size, np.maximum(CONTEXT * np.array(sizes.lesion_quantile(0.95)), LEAST_CELLS))
    found: list[Candidate] = []
    while True:
        topology = plan_topology(spacing, size.tolist())
        patch = topology.rounded(size.tolist())
        if not found or prod(patch) < found[-1].voxels:
            found.append(Candidate(patch, build(topology)))
        smaller = np.array(patch, dtype=float) - np.array(topology.divisor)
        ratios = np.where(smaller >= least, np.array(patch) / region, -1.0)
        axis = int(np.argmax(ratios))
        if ratios[axis] < 0:
            return found
        size = size.copy()
        size[axis] = smaller[axis]


def _start(region: NDArray[np.float64], spacing: Triple, profile: PatchProfile) -> NDArray[np.float64]:
    side_mm = profile.cube * float(np.prod(spacing)) ** (1 / 3)
    cube = np.minimum(side_mm / np.array(spacing), profile.longest_side)
    start: NDArray[np.float64] = np.minimum(np.ceil(region - 1e-9), np.maximum(np.floor(cube), 1.0))
    return start


def choose_patch(
    target: Target,
    spacing: Triple,
    sizes: VolumeSizes,
    profile: PatchProfile,
    build: Build,
    training: Training = PLAIN,
) -> PatchChoice:
    """The largest patch and batch that fit.

    Memory buys, in this order: a patch of 96^3 voxels with nnU-Net's batch of 2, nnDetection's batch of 4, a patch
    that holds the median region, a batch of up to 8 (batches are per GPU). So neither falls when memory grows. On the
    CPU, where time is short, the patch is the largest whose step of 2 patches stays within ``profile.step_flops``.

    Raises:
        UserError: not even the smallest patch fits.
    """
    candidates = patch_candidates(spacing, sizes, profile, build)
    for candidate, batch in steps_down(candidates, profile):
        if _fits(target, candidate, batch, profile, training):
            return choice_of(target, candidate, batch, training)
    last = candidates[-1]
    if profile.step_flops is not None:  # slow, but nothing smaller would show the lesions
        return choice_of(target, last, LEAST_BATCH, training, "; no smaller patch would hold the lesions")
    needed = estimate_patch_memory(last.network, last.voxels, LEAST_BATCH, training).total / USABLE_SHARE
    raise UserError(
        "the smallest 3D patch that shows the lesions does not fit the GPU",
        expected=f"{needed:.1f} GB for {LEAST_BATCH} patches of {size_text(last.patch)} voxels",
        found=f"{target.memory_gb:g} GB",
        remedy="Plan for the CPU with plan_cfg.target=cpu, for a larger GPU with plan_cfg.gpu_memory_gb, "
        "or with a coarser plan_cfg.spacing",
    )


def steps_down(candidates: Sequence[Candidate], profile: PatchProfile) -> Iterator[tuple[Candidate, int]]:
    """Patch and batch per GPU from the most expensive pair to the cheapest; neither ever grows on the way."""
    if profile.step_flops is not None:
        yield from ((candidate, LEAST_BATCH) for candidate in candidates)
        return
    yield from ((candidates[0], batch) for batch in range(MOST_BATCH, USUAL_BATCH, -1))
    small = [candidate for candidate in candidates if candidate.voxels <= USUAL_VOXELS]
    large = candidates[: len(candidates) - len(small)]
    yield from ((candidate, USUAL_BATCH) for candidate in [*large, *small[:1]])
    yield from ((small[0], batch) for batch in range(USUAL_BATCH - 1, LEAST_BATCH, -1) if small)
    yield from ((candidate, LEAST_BATCH) for candidate in small or large[-1:])


def _fits(
    target: Target, candidate: Candidate, batch: int, profile: PatchProfile, training: Training
) -> bool:
    if profile.step_flops is not None:
        return batch * patch_flops(candidate.network, candidate.voxels) <= profile.step_flops
    estimate = estimate_patch_memory(candidate.network, candidate.voxels, batch, training)
    return estimate.total <= USABLE_SHARE * target.memory_gb


def choice_of(
    target: Target, candidate: Candidate, batch: int, training: Training, note: str = ""
) -> PatchChoice:
    """A patch and a batch per GPU, whether they fit or not."""
    estimate = estimate_patch_memory(
        candidate.network, candidate.voxels, batch, training, device=target.device
    )
    load = f"{batch} patches of {size_text(candidate.patch)} voxels each, peak {estimate.describe()}"
    if target.device == "cpu":
        flops = batch * patch_flops(candidate.network, candidate.voxels)
        reason = f"CPU: {load}; {flops / 1e9:.0f} GFLOP per step{note}"
    else:
        gpus = f"{training.gpus} GPUs" if training.gpus > 1 else "GPU"
        reason = f"{gpus} of {target.memory_gb:g} GB: {load}{note}"
    return PatchChoice(candidate.network, candidate.patch, batch * training.gpus, estimate, reason)


def size_text(size: Sequence[float]) -> str:
    """``32 x 64 x 64``."""
    return " x ".join(f"{side:.0f}" for side in size)
