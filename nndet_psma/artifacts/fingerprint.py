"""Fingerprint: everything the planner may know about a data set, measured once per case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.artifact import Artifact


@dataclass(frozen=True)
class Histogram:
    """Counts of integer values: ``counts[i]`` voxels have the value ``lowest + i`` (HU for CT)."""

    lowest: int = 0
    counts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, values: NDArray) -> Histogram:
        """Histogram of ``values`` rounded to integers."""
        if values.size == 0:
            return cls()
        rounded = np.rint(values).astype(np.int64)
        lowest = int(rounded.min())
        return cls(lowest, np.bincount(rounded - lowest).tolist())

    @classmethod
    def pooled(cls, parts: list[Histogram]) -> Histogram:
        """Sum of histograms."""
        filled = [part for part in parts if part.counts]
        if not filled:
            return cls()
        lowest = min(part.lowest for part in filled)
        highest = max(part.lowest + len(part.counts) for part in filled)
        total = np.zeros(highest - lowest, dtype=np.int64)
        for part in filled:
            start = part.lowest - lowest
            total[start : start + len(part.counts)] += np.array(part.counts, dtype=np.int64)
        return cls(lowest, total.tolist())

    @property
    def total(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """Smallest value with at least the share ``q`` of all values at or below it.

        Raises:
            ValueError: the histogram is empty.
        """
        if not self.counts:
            raise ValueError("quantile of an empty histogram")
        cumulative = np.cumsum(self.counts)
        position = int(np.searchsorted(cumulative, q * cumulative[-1]))
        return float(self.lowest + min(position, len(self.counts) - 1))


@dataclass(frozen=True)
class LesionFingerprint:
    """One lesion.

    Attributes:
        instance: id in the label mask.
        label: class index from 0.
        volume_mm3: volume.
        box: tight box ``(z0, y0, x0, z1, y1, x1)`` in canonical voxels (edges).
        size_mm: extent along (z, y, x).
        slices: axial slices it spans.
        outside_ctv_mm: largest distance of one of its voxel centres outside the CTV, 0 when inside; None without CTV.
    """

    instance: int
    label: int
    volume_mm3: float
    box: tuple[float, ...]
    size_mm: tuple[float, float, float]
    slices: int
    outside_ctv_mm: float | None


@dataclass(frozen=True)
class IntensityStatistics:
    """Of one modality inside the body: HU for CT, SUV for PET, as stored otherwise."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_50: float
    percentile_99_5: float
    lesion_percentile_00_5: float | None
    lesion_percentile_50: float | None
    lesion_percentile_99_5: float | None


@dataclass(frozen=True)
class CaseFingerprint:
    """One case, in its canonical (LPS) orientation.

    Attributes:
        case_id: name of the case.
        patient_id: from clinical.csv, else the case id.
        stratum: value of the stratification column, "" without one.
        inputs: hash of the files it was measured from.
        shape: voxels along (z, y, x).
        spacing: mm along (z, y, x).
        body_box: box of the body (voxel edges).
        ctv_box: box of the CTV, None without CTV.
        intensities: by modality name.
        lesions: all instances.
        lesion_hu: histogram of the CT inside all lesions.
        region_hu: histogram of the CT inside the search region (CTV, else body) without lesions, in steps of 1 HU.
    """

    case_id: str
    patient_id: str
    stratum: str
    inputs: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    body_box: tuple[float, ...]
    ctv_box: tuple[float, ...] | None
    intensities: dict[str, IntensityStatistics]
    lesions: list[LesionFingerprint]
    lesion_hu: Histogram
    region_hu: Histogram


@dataclass(frozen=True)
class Fingerprint(Artifact):
    """All training cases of a task."""

    schema: ClassVar[str] = "nndet_psma.fingerprint"
    remade_by: ClassVar[str] = "nndet_prep"

    task: str
    modalities: dict[str, str]
    labels: dict[str, str]
    cases: list[CaseFingerprint]

    @property
    def lesions(self) -> list[LesionFingerprint]:
        """Lesions of all cases."""
        return [lesion for case in self.cases for lesion in case.lesions]
