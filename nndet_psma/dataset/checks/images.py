"""Are the values of an image what its modality promises? Warnings carry the evidence: quantiles and extremes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.task.description import Role

_SAMPLE = 100_000
_NO_AIR_HU = -200.0  # a CT without any voxel below this holds no air and hardly fat: most likely not HU
_DENSE_HU, _DENSE_SHARE = (
    700.0,
    0.05,
)  # cortical bone, which is less of any scan: soft tissue + 1024 lies above, too
_PADDING_HU = -1500.0  # below air with noise and ringing; scanners pad with -2000 or -3024
_WRAPPED = ((3000, 4096), (60_000, 65_536))
"""Where air lies when negative HU were read as unsigned numbers of 12 or 16 bits: -1000 is 3096 or 64536. So much of an
image (1 %) has neither metal nor, in one that starts at 0, bone of 2000 HU."""
_SUV_LIMIT = 1000.0  # a full bladder may reach some hundred; Bq/ml lie in the tens of thousands
_SUV_MEDIAN_LIMIT = 50.0  # of all voxels with uptake; SUV has about 0.5 there
_NEGATIVE_SUV = -0.1
_ADC_RANGE = (10.0, 20_000.0)  # 1e-6 mm2/s: tissue lies between 300 and 3000


@dataclass(frozen=True)
class _Values:
    """Exact extremes of an image and a sample of its values."""

    sample: NDArray[Any]
    low: float
    high: float

    @property
    def evidence(self) -> str:
        """What a warning shows."""
        quantiles = np.quantile(self.sample, (0.005, 0.5, 0.995))
        shown = ", ".join(f"{value:.4g}" for value in quantiles)
        return f"{self.low:.4g} to {self.high:.4g}, quantiles 0.5, 50, 99.5 %: {shown}"

    @property
    def median_positive(self) -> float:
        """Median of the positive values, 0 without any."""
        positive = self.sample[self.sample > 0]
        return float(np.median(positive)) if len(positive) else 0.0

    def share_within(self, lower: float, upper: float) -> float:
        """Share of the values from ``lower`` to below ``upper``."""
        return self.share_below(upper) - self.share_below(lower)

    def share_below(self, limit: float) -> float:
        """Share of the values below a limit."""
        return float((self.sample < limit).mean())


def image_faults(array: NDArray[Any], role: Role, file: Path) -> Iterator[Fault]:
    """Faults of the values of one image that is no mask.

    Args:
        array: voxels (z, y, x), finite.
        role: what the modality means.
        file: the image.
    """
    low, high = float(array.min()), float(array.max())
    if low == high:
        yield Fault(
            "constant image",
            "every voxel has the same value",
            file=file,
            expected="an image",
            found=f"{low:g} everywhere",
            remedy="Export the image again",
        )
        return
    sample = _sample(array)
    values = _Values(sample, low, high)
    if role is Role.CT:
        yield from _ct_scale(values, file)
        yield from _ct_details(array, values, file)
    elif role is Role.PET:
        yield from _pet_faults(values, file)
    elif role is Role.ADC:
        yield from _adc_faults(values, file)
    elif role in (Role.DWI, Role.T2) and low < 0:
        remedy = "Export the magnitude image without rescaling"
        what = f"a {role.value} has no negative values"
        yield Fault(
            "negative MR", what, file=file, expected="values from 0", found=values.evidence, remedy=remedy
        )


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    """Every n-th voxel; n is odd, so that it does not march down a single column."""
    step = max(1, array.size // _SAMPLE) | 1
    return array.reshape(-1)[::step] if array.size > _SAMPLE else array.reshape(-1)


def _ct_scale(values: _Values, file: Path) -> Iterator[Fault]:
    expected = "HU: air -1000, water 0"
    if values.low >= 0 and any(values.share_within(*band) > 0.01 for band in _WRAPPED):
        yield Fault(
            "CT wrapped around",
            "negative HU of this CT have become large positive numbers",
            file=file,
            expected=expected,
            found=values.evidence,
            remedy="Read the stored values as signed numbers of their stored bits (12 or 16)",
        )
    elif values.low >= 0 and values.high <= 255:
        yield Fault(
            "CT as grey values",
            "this CT holds grey values, not HU",
            file=file,
            expected=expected,
            found=values.evidence,
            remedy="Export the original values; windows are applied later",
        )
    elif values.low >= 0:
        yield Fault(
            "CT without intercept",
            "this CT starts at 0, so the rescale intercept is missing",
            file=file,
            expected=expected,
            found=values.evidence,
            remedy="Apply rescale slope and intercept when exporting; usually subtract 1024",
        )
    elif values.low > _NO_AIR_HU or 1 - values.share_below(_DENSE_HU) > _DENSE_SHARE:
        what = "holds no air" if values.low > _NO_AIR_HU else f"is above {_DENSE_HU:g} in too many voxels"
        yield Fault(
            "CT not in HU",
            f"this CT {what}, so its values may not be HU",
            file=file,
            expected=expected,
            found=values.evidence,
            remedy="Apply rescale slope and intercept when exporting",
        )


def _ct_details(array: NDArray[Any], values: _Values, file: Path) -> Iterator[Fault]:
    if values.low < _PADDING_HU:
        share = values.share_below(_PADDING_HU)
        yield Fault(
            "CT padding",
            "this CT holds values far below air",
            file=file,
            expected="about -1000 at the lowest",
            found=f"{values.evidence}; {share:.1%} of the voxels below {_PADDING_HU:g}",
            remedy="Set the padding outside the field of view to -1024",
        )
    if array.dtype.kind == "f" and not all(np.array_equal(plane, np.rint(plane)) for plane in array):
        yield Fault(
            "CT with fractions",
            "this CT holds fractions of HU",
            file=file,
            expected="whole numbers",
            found=values.evidence,
            remedy="They are rounded; was the image resampled, or are its values not HU?",
        )


def _pet_faults(values: _Values, file: Path) -> Iterator[Fault]:
    expected = "SUV (body weight)"
    median = values.median_positive
    if values.share_below(_SUV_LIMIT) < 0.999 or median > _SUV_MEDIAN_LIMIT:
        yield Fault(
            "PET not SUV",
            "this PET seems to be in Bq/ml",
            file=file,
            expected=expected,
            found=f"{values.evidence}; median of positive voxels {median:.4g}",
            remedy="Convert it to SUV: decay-corrected activity divided by dose per gram of body weight",
        )
    elif values.low >= 0 and values.high <= 1:
        remedy = "Export SUV; a scale of its own for every image hides the uptake"
        what = "this PET seems to be scaled to 0..1"
        yield Fault(
            "PET normalised", what, file=file, expected=expected, found=values.evidence, remedy=remedy
        )
    if values.low < _NEGATIVE_SUV:
        yield Fault(
            "negative PET",
            "this PET holds negative uptake",
            file=file,
            expected="values from 0",
            found=f"{values.evidence}; {values.share_below(_NEGATIVE_SUV):.1%} of the voxels negative",
            remedy="Check rescale slope and intercept, or resample with linear interpolation",
        )


def _adc_faults(values: _Values, file: Path) -> Iterator[Fault]:
    median = values.median_positive
    if not _ADC_RANGE[0] <= median <= _ADC_RANGE[1]:
        yield Fault(
            "ADC units",
            "this ADC map has other units",
            file=file,
            expected="1e-6 mm2/s: tissue between 300 and 3000",
            found=f"{values.evidence}; median of positive voxels {median:.4g}",
            remedy="Multiply maps in 1e-3 mm2/s by 1000, maps in mm2/s by 1000000",
        )
