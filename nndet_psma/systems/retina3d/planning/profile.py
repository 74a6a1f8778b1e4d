"""What a machine affords a 3D network."""

from __future__ import annotations

from dataclasses import dataclass

from nndet_psma.artifacts.plan import Target


@dataclass(frozen=True)
class PatchProfile:
    """Widths and limits.

    Attributes:
        start_channels: of the finest encoder stage.
        most_channels: of any stage.
        fpn_channels: of pyramid and heads where the finest level is stage 2 or coarser.
        fine_fpn_channels: the same where it is finer, so has up to eight times the cells.
        cube: side in voxels of the largest patch that is considered at isotropic spacing.
        longest_side: of a patch, voxels.
        step_flops: most FLOPs of a training step; None where memory is the limit.
        reason: for the plan.
    """

    start_channels: int
    most_channels: int
    fpn_channels: int
    fine_fpn_channels: int
    cube: int
    longest_side: int
    step_flops: float | None
    reason: str


_CPU = PatchProfile(
    16, 128, 32, 32, 64, 64, 8e10, "CPU: half of nnDetection's width, a second per step and core"
)
_GPU = PatchProfile(32, 320, 128, 64, 256, 512, None, "GPU: nnDetection's 32 to 320 channels")


def choose_patch_profile(target: Target) -> PatchProfile:
    """Profile of a target.

    Source: nnDetection's encoder has 32 to 320 channels, its pyramid and heads 128 on strides 4 to 32; on finer levels
    these would cost more than all the rest, so their width is halved there. nnU-Net starts from a cube of 256 voxels.
    The CPU's figures are ours: a core makes 60 to 100 GFLOPS of such steps (``benchmarks/patch_memory.py``), so that a
    training takes minutes.
    """
    return _CPU if target.device == "cpu" else _GPU
