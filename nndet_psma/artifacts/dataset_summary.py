"""The fingerprint of a data set in numbers that a person can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from nndet_psma.artifacts.case_fingerprint import CaseFingerprint, LesionFingerprint
from nndet_psma.artifacts.histogram import Histogram

MARGINS_MM = (0.0, 2.0, 4.0, 6.48, 8.0, 10.0, 15.0, 20.0)  # 6.48 mm is Xu et al.'s
_THRESHOLD_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the lesion voxels


@dataclass(frozen=True)
class Quantiles:
    """Of a sample, linearly interpolated; ``percentile_5`` to ``percentile_95``."""

    minimum: float
    percentile_5: float
    percentile_25: float
    percentile_50: float
    percentile_75: float
    percentile_95: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles | None:
        """Quantiles of ``values``; None of an empty sample."""
        if len(values) == 0:
            return None
        found = np.percentile(np.asarray(values, dtype=np.float64), [0, 5, 25, 50, 75, 95, 100])
        return cls(*(_rounded(value) for value in found))


@dataclass(frozen=True)
class AxisRange:
    """Smallest, median and largest value along (z, y, x), each axis on its own."""

    minimum: tuple[float, float, float]
    median: tuple[float, float, float]
    maximum: tuple[float, float, float]

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float]]) -> AxisRange | None:
        """Range of ``rows`` (z, y, x); None without rows."""
        if len(rows) == 0:
            return None
        values = np.asarray(rows, dtype=np.float64)
        return cls(*(_triple(fold(values, axis=0)) for fold in (np.min, np.median, np.max)))


@dataclass(frozen=True)
class MarginCoverage:
    """Share of lesions that lie wholly inside the CTV grown by a margin."""

    margin_mm: float
    share: float


@dataclass(frozen=True)
class HuThreshold:
    """Shares of voxels above ``hu``: of the lesions, and of the search region without them."""

    hu: float
    lesions_above: float
    region_above: float


@dataclass(frozen=True)
class HuSeparability:
    """What a filter on HU can separate.

    Attributes:
        auc: probability that a lesion voxel is denser than another voxel of the search region (ties count half):
            1 and 0 separate fully, 0.5 not at all.
        thresholds: at quantiles of the lesion voxels.
        lesion_medians: of the lesions' median HU: a threshold on the HU of whole lesions beyond this range loses none.
    """

    auc: float
    thresholds: list[HuThreshold]
    lesion_medians: Quantiles | None


@dataclass(frozen=True)
class LesionSizes:
    """Quantiles over all lesions; see :class:`LesionFingerprint` for the definitions."""

    volume_mm3: Quantiles
    short_axis_mm: Quantiles
    long_axis_mm: Quantiles
    slices: Quantiles
    size_z_mm: Quantiles
    size_y_mm: Quantiles
    size_x_mm: Quantiles


@dataclass(frozen=True)
class DatasetSummary:
    """All cases of a fingerprint; parts that do not apply (no lesion, no CTV, no CT) are None or empty.

    Attributes:
        cases: number of cases.
        patients: number of patients.
        lesions: number of lesions.
        cases_without_lesions: their ids, sorted.
        class_counts: lesions by class name.
        lesions_per_case: over all cases.
        spacing_mm: voxel sizes along (z, y, x).
        shape: voxels along (z, y, x).
        lesion_sizes: of all lesions.
        outside_ctv_mm: distance of the lesions' farthest voxel outside the CTV.
        inside_ctv_mm: depth of the lesions' deepest voxel inside the CTV.
        margin_coverage: what growing the CTV would contain.
        hu_separability: of the CT.
    """

    cases: int
    patients: int
    lesions: int
    cases_without_lesions: list[str]
    class_counts: dict[str, int]
    lesions_per_case: Quantiles | None
    spacing_mm: AxisRange | None
    shape: AxisRange | None
    lesion_sizes: LesionSizes | None
    outside_ctv_mm: Quantiles | None
    inside_ctv_mm: Quantiles | None
    margin_coverage: list[MarginCoverage]
    hu_separability: HuSeparability | None


def summarise(
    cases: Sequence[CaseFingerprint], labels: Mapping[str, str], ct_name: str | None
) -> DatasetSummary:
    """The summary of ``cases``; it does not depend on their order.

    Args:
        cases: of a fingerprint.
        labels: class names by index.
        ct_name: name of the CT modality, None without one.
    """
    lesions = [lesion for case in cases for lesion in case.lesions]
    counts = Counter(str(lesion.label) for lesion in lesions)
    outside = [lesion.outside_ctv_mm for lesion in lesions if lesion.outside_ctv_mm is not None]
    inside = [lesion.inside_ctv_mm for lesion in lesions if lesion.inside_ctv_mm is not None]
    return DatasetSummary(
        cases=len(cases),
        patients=len({case.patient_id for case in cases}),
        lesions=len(lesions),
        cases_without_lesions=sorted(case.case_id for case in cases if not case.lesions),
        class_counts={name: counts[index] for index, name in labels.items()},
        lesions_per_case=Quantiles.of([len(case.lesions) for case in cases]),
        spacing_mm=AxisRange.of([case.spacing for case in cases]),
        shape=AxisRange.of([case.shape for case in cases]),
        lesion_sizes=_lesion_sizes(lesions),
        outside_ctv_mm=Quantiles.of(outside),
        inside_ctv_mm=Quantiles.of(inside),
        margin_coverage=margin_coverage(outside, MARGINS_MM),
        hu_separability=_separability(cases, ct_name),
    )


def margin_coverage(outside_mm: Sequence[float], margins_mm: Sequence[float]) -> list[MarginCoverage]:
    """Share of lesions whose farthest voxel lies within each margin; empty without lesions.

    Xu et al. 2023 grow by 10 pixels = 6.48 mm, because nodes stuck out of the contoured volume.
    """
    if len(outside_mm) == 0:
        return []
    found = np.asarray(outside_mm)
    return [MarginCoverage(margin, _rounded(float(np.mean(found <= margin)))) for margin in margins_mm]


def histogram_auc(positive: Histogram, negative: Histogram) -> float:
    """Probability that a value of ``positive`` is larger than one of ``negative``, ties counting half.

    The area under the ROC curve (Mann-Whitney), exact from the counts.

    Raises:
        ValueError: one of the two is empty.
    """
    if not positive.counts or not negative.counts:
        raise ValueError("AUC needs values on both sides")
    lowest = min(positive.lowest, negative.lowest)
    highest = max(h.lowest + len(h.counts) for h in (positive, negative))
    above, below = (np.zeros(highest - lowest) for _ in range(2))
    for counts, source in ((above, positive), (below, negative)):
        counts[source.lowest - lowest :][: len(source.counts)] = source.counts
    smaller = np.cumsum(below) - below
    return float((above * (smaller + below / 2)).sum() / above.sum() / below.sum())


def _separability(cases: Sequence[CaseFingerprint], ct_name: str | None) -> HuSeparability | None:
    lesions = Histogram.pooled([case.lesion_hu for case in cases])
    region = Histogram.pooled([case.region_hu for case in cases])
    if ct_name is None or not lesions.counts or not region.counts:
        return None
    values = dict.fromkeys(lesions.quantile(q) for q in _THRESHOLD_QUANTILES)
    rows = [HuThreshold(v, _rounded(lesions.share_above(v)), _rounded(region.share_above(v))) for v in values]
    medians = [
        lesion.medians[ct_name] for case in cases for lesion in case.lesions if ct_name in lesion.medians
    ]
    return HuSeparability(_rounded(histogram_auc(lesions, region)), rows, Quantiles.of(medians))


def _lesion_sizes(lesions: Sequence[LesionFingerprint]) -> LesionSizes | None:
    if not lesions:
        return None
    columns = {
        name: [float(getattr(lesion, name)) for lesion in lesions]
        for name in ("volume_mm3", "short_axis_mm", "long_axis_mm", "slices")
    }
    for axis, name in enumerate(("size_z_mm", "size_y_mm", "size_x_mm")):
        columns[name] = [lesion.size_mm[axis] for lesion in lesions]
    found = {name: Quantiles.of(values) for name, values in columns.items()}
    return LesionSizes(**{f.name: found[f.name] for f in fields(LesionSizes)})  # type: ignore[arg-type]


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return _rounded(values[0]), _rounded(values[1]), _rounded(values[2])


def _rounded(value: float) -> float:
    """Six significant digits: more would pretend a precision that no person reads."""
    return float(f"{value:.6g}")
