"""What a diffusion-weighted sequence measures of tissues: ``S(b) = S(0) exp(-b ADC)``, coil shading, Rician noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nndet_psma.dataset.phantom.canvas import Array, Mask, Window
from nndet_psma.dataset.phantom.tissue import VESSELS, Tissue

Image = NDArray[np.float32]

# signal without diffusion weighting (fat is suppressed) and diffusion coefficient, 1e-6 mm²/s; rounded values of pelvic
# DWI at 1.5 and 3 T. Contrast media of the CT mean nothing here: bowel with contrast is fluid.
TISSUE_SIGNAL: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0, 0),
    Tissue.TABLE: (0, 0),
    Tissue.SKIN: (120, 1000),
    Tissue.FAT: (35, 300),
    Tissue.MUSCLE: (210, 1500),
    Tissue.CORTEX: (15, 400),
    Tissue.MARROW: (85, 450),
    Tissue.CARTILAGE: (140, 1500),
    Tissue.ARTERY: (25, 2500),
    Tissue.VEIN: (60, 2200),
    Tissue.SMALL_VESSEL: (60, 2200),
    Tissue.URETER: (700, 2700),
    Tissue.BLADDER: (1400, 2900),
    Tissue.BLADDER_CONTRAST: (1400, 2900),
    Tissue.PROSTATE: (480, 1350),
    Tissue.PROSTATE_BED: (230, 1400),
    Tissue.RECTUM_WALL: (440, 1150),
    Tissue.STOOL: (180, 1300),
    Tissue.BOWEL_WALL: (520, 1050),
    Tissue.BOWEL_SOFT: (640, 1000),
    Tissue.BOWEL_CONTRAST: (900, 2300),
    Tissue.GAS: (0, 0),
    Tissue.CLIP: (0, 0),
    Tissue.NODE: (35, 300),  # the fat round a node; the node itself is blended in
}
BETWEEN_CASES = 0.06
"""Standard deviation between cases of both values of a tissue, as a fraction."""

TEXTURE = 0.10
TEXTURE_MM = 4.0
SHADING = 0.25
"""How much brighter or darker the coils make the corners of the field."""

BLUR_MM = 1.0
DWI_NOISE = {"easy": 6.0, "medium": 10.0, "hard": 16.0}
"""Standard deviation of the noise of b800 in its own units (nodes have 250 to 350)."""

ADC_LIMIT = 4000.0


@dataclass(frozen=True)
class Signal:
    """Signal of a volume without diffusion weighting and with it; both blend linearly where tissues share a voxel.

    Attributes:
        plain: ``[z, y, x]`` signal at b = 0.
        coefficient: ``[z, y, x]`` diffusion coefficient, 1e-6 mm²/s.
        soft: ``[z, y, x]`` voxels of fat and muscle.
        vessels: ``[z, y, x]`` voxels of arteries and veins.
    """

    plain: Image
    coefficient: Image
    soft: Mask
    vessels: Mask

    def set(self, window: Window, mask: Mask, plain: float, coefficient: float) -> None:
        """Give the voxels of ``mask`` (shape of ``window``) new values."""
        self.plain[window][mask] = plain
        self.coefficient[window][mask] = coefficient

    def blend(self, window: Window, share: Array, plain: float, coefficient: float) -> None:
        """Mix in a tissue that fills the ``share`` of each voxel of ``window``."""
        view = self.plain[window]
        mixed = view + share * (plain - view)
        # the coefficient of a mixture is nearly that of what gives the signal
        weight = np.divide(share * plain, mixed, out=np.zeros_like(share), where=mixed > 0)
        self.coefficient[window] += weight * (coefficient - self.coefficient[window])
        view[:] = mixed


def paint_signals(
    tissue: NDArray[np.uint8], spacing: tuple[float, float, float], rng: np.random.Generator
) -> Signal:
    """Signals of all tissues but nodes and nerves."""
    plain, coefficient = (np.zeros(len(Tissue), dtype=np.float32) for _ in range(2))
    for kind, (bright, adc) in TISSUE_SIGNAL.items():
        plain[kind] = bright * (1 + rng.normal(0, BETWEEN_CASES))
        coefficient[kind] = adc * (1 + rng.normal(0, BETWEEN_CASES))
    texture = _smooth_noise(rng, tissue.shape, (0.0, TEXTURE_MM / spacing[1], TEXTURE_MM / spacing[2]))
    return Signal(
        plain[tissue] * np.clip(1 + TEXTURE * texture, 0.5, 1.5),
        coefficient[tissue],
        np.isin(tissue, (Tissue.FAT, Tissue.MUSCLE)),
        np.isin(tissue, VESSELS),
    )


def to_signal(
    signal: Signal,
    b_value: float,
    noise: float,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[Image, Image]:
    """Measured images at b = 0 and ``b_value`` (s/mm²): blurred in the plane, shaded by the coils, Rician noise."""
    shading = coil_shading(signal.plain.shape, rng)
    weighted = signal.plain * np.exp(-b_value * signal.coefficient * 1e-6)
    images = []
    for image in (signal.plain, weighted):
        sharp = ndimage.gaussian_filter(image, (0.0, BLUR_MM / spacing[1], BLUR_MM / spacing[2]), truncate=3)
        images.append(_rician(sharp * shading, noise, rng))
    return images[0], images[1]


def measure_adc(low: Image, high: Image, b_value: float, noise: float) -> Image:
    """ADC map (1e-6 mm²/s) of two measured images; 0 where there is only noise, as scanners do."""
    ratio = np.log(np.maximum(low, 1.0) / np.maximum(high, 1.0)) / b_value * 1e6
    return np.where(low > 3 * max(noise, 1.0), np.clip(ratio, 0, ADC_LIMIT), 0).astype(np.float32)


def coil_shading(shape: tuple[int, ...], rng: np.random.Generator) -> Image:
    """A smooth factor ``[z, y, x]`` round 1: a parabola along every axis with its middle somewhere inside."""
    terms: list[Array] = []
    for axis, length in enumerate(shape):
        position = np.linspace(-1, 1, length) - rng.uniform(-0.4, 0.4)
        curve = rng.uniform(-SHADING, SHADING) * position**2 + rng.uniform(-SHADING, SHADING) / 2 * position
        terms.append(curve.reshape([-1 if k == axis else 1 for k in range(len(shape))]))
    return np.asarray(np.exp(_total(terms)), dtype=np.float32)


def _total(terms: Iterable[Array]) -> Array:
    total = np.zeros(())
    for term in terms:
        total = total + term
    return total


def _rician(image: Image, noise: float, rng: np.random.Generator) -> Image:
    """Magnitude of a complex image with Gaussian noise in both channels."""
    real = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(image.shape, dtype=np.float32)
    magnitude: Image = np.hypot(real, imaginary).astype(np.float32)
    return magnitude


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Image:
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, sigma, truncate=3)
    return np.asarray(smooth / max(float(smooth.std()), 1e-6), dtype=np.float32)
