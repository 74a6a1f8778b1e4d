"""What is measured of one case, and of each of its lesions."""

from __future__ import annotations

from dataclasses import dataclass

from nndet_psma.artifacts.histogram import Histogram


@dataclass(frozen=True)
class LesionFingerprint:
    """One lesion.

    Attributes:
        instance: id in the label mask.
        label: class index from 0.
        volume_mm3: volume.
        box: tight box ``(z0, y0, x0, z1, y1, x1)`` in canonical voxels (edges).
        size_mm: extent of the box along (z, y, x).
        slices: axial slices it touches.
        outside_ctv_mm: largest distance of one of its voxel centres outside the CTV (to the nearest voxel centre
            of the CTV), 0 when wholly inside; None without CTV or with an empty one.
        inside_ctv_mm: largest depth of one of its voxel centres inside the CTV (to the nearest voxel centre that
            is not CTV; the CTV ends where the image ends), 0 when wholly outside; None as above.
        share_in_ctv: share of its voxels in the CTV; None as above.
        short_axis_mm: extent perpendicular to the longest diameter, on the axial slice of the longest diameter.
        long_axis_mm: longest in-plane diameter of all its axial slices.
        size_voxels: extent of the box along (z, y, x).
        slice_sizes_mm: tight (height, width) in each axial slice it touches, in slice order.
        medians: median intensity inside by modality name (HU, SUV, or as stored).
    """

    instance: int
    label: int
    volume_mm3: float
    box: tuple[float, ...]
    size_mm: tuple[float, float, float]
    slices: int
    outside_ctv_mm: float | None
    inside_ctv_mm: float | None
    share_in_ctv: float | None
    short_axis_mm: float
    long_axis_mm: float
    size_voxels: tuple[int, int, int]
    slice_sizes_mm: list[tuple[float, float]]
    medians: dict[str, float]


@dataclass(frozen=True)
class IntensityStatistics:
    """Of one modality in one region: HU for CT, SUV for PET, as stored otherwise.

    Attributes:
        voxels: of the region.
        mean: of the voxels that were looked at.
        std: the same.
        minimum: the same.
        percentile_00_5: smallest value with at least 0.5 % of all at or below it.
        percentile_50: the same of 50 %.
        percentile_99_5: the same of 99.5 %.
        maximum: largest value.
        step: every ``step``-th voxel of the region was looked at; 1 is all of them.
    """

    voxels: int
    mean: float
    std: float
    minimum: float
    percentile_00_5: float
    percentile_50: float
    percentile_99_5: float
    maximum: float
    step: int = 1


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
        body_box: box of the body (voxel edges), the whole image when no body was found.
        ctv_box: box of the CTV, None without CTV or with an empty one.
        body_volume_mm3: of the body, None when no body was found.
        ctv_volume_mm3: of the CTV, None without CTV, 0 of an empty one.
        positive_slices: axial slices with any lesion.
        search_slices: axial slices from the first to the last of the search region (CTV, else body), the image's
            when there is neither.
        intensities: by modality name and region: "lesion" (all lesions), "ctv" (CTV without lesions), "body" (all
            of it), "outside" (outside the body). Regions without voxels are left out.
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
    body_volume_mm3: float | None
    ctv_volume_mm3: float | None
    positive_slices: int
    search_slices: int
    intensities: dict[str, dict[str, IntensityStatistics]]
    lesions: list[LesionFingerprint]
    lesion_hu: Histogram
    region_hu: Histogram
