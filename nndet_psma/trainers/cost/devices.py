"""Assumed speeds of device classes; each names its source."""

from __future__ import annotations

from typing import NamedTuple

from nndet_psma.artifacts.plan import Target

_CORES_EXPONENT = 0.9  # convolutions on n cores are n ** 0.9 times as fast; measured from one to two


class Device(NamedTuple):
    """Assumed speed of a device class.

    Attributes:
        name: what it stands for.
        tflops: effective, of one GPU or one CPU core, in a training step's convolutions.
        grouped: share of it that grouped convolutions (ResNeXt) reach.
        image_seconds: per image, beside its FLOPs: anchors, sampling.
        proposal_seconds: per proposal.
        box_seconds: per sampled box and pyramid channel (RoIAlign and its backward).
        step_seconds: per step: optimiser, Python.
        source: where the figures are from.
    """

    name: str
    tflops: float
    grouped: float
    image_seconds: float
    proposal_seconds: float
    box_seconds: float
    step_seconds: float
    source: str

    def speed(self, cores: int = 1) -> float:
        """FLOPs per second of one GPU, or of ``cores`` of a CPU."""
        speed: float = self.tflops * 1e12 * cores**_CORES_EXPONENT
        return speed


# Fitted by benchmarks/training_cost.py to steps of seven networks on one core of an Intel Xeon with AVX-512: all within
# 10 %. RoIAlign's backward runs on one core whatever their number.
CPU_CORE = Device("a core of a Xeon with AVX-512", 0.120, 0.65, 0.0, 22e-6, 2.9e-6, 0.03, "measured there")
# Steps of 3D networks with 16 to 64 channels: 60 to 100 GFLOPS (benchmarks/patch_memory.py); narrow layers are slow.
CPU_CORE_3D = Device("a core of a Xeon with AVX-512 in 3D", 0.075, 1.0, 0.0, 0.0, 0.0, 0.05, "measured there")
# ResNet-50 v1.5 training in NVIDIA's DeepLearningExamples (PyTorch 21.03): V100 367 (fp32) and 1200 (mixed) images/s,
# A100-80GB 938 (TF32, PyTorch's default for convolutions) and 2470 (mixed), times 24.6 GFLOP per image. That is 57 and
# 24 % of a V100's peak (15.7 and 125 TFLOPS), 15 and 19 % of an A100's (156 and 312).
# 0.7 and 10 ms: with them detectron2's model zoo (V100 fp32, Faster R-CNN with FPN, two images of about 0.8 megapixels
# per GPU: R50 0.210, R101 0.286, X101-32x8d 0.638 s per step) comes out within 10 %.
_GPU_SOURCE = "published ResNet-50 training rates of NVIDIA, detectron2's step times; not measured here"
_GPUS: dict[tuple[str, bool], Device] = {
    ("V100", False): Device("a V100 in fp32", 9.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
    ("V100", True): Device("a V100 in mixed precision", 29.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
    ("A100", False): Device("an A100 with TF32", 23.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
    ("A100", True): Device("an A100 in mixed precision", 61.0, 0.7, 0.010, 0.0, 0.0, 0.0, _GPU_SOURCE),
}
_A100_MEMORY_GB = 39.0  # GPUs below are taken for a V100


def gpu_for(target: Target, precision: str = "no") -> Device:
    """The class of the planned GPU, told by its memory only; ``precision`` as in ``trainer_cfg``."""
    return _GPUS["A100" if target.memory_gb > _A100_MEMORY_GB else "V100", precision != "no"]
