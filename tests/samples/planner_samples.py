"""Fingerprints made by hand, and the lesion histogram of the paper's table 2."""

from __future__ import annotations

from nndet_psma.artifacts.fingerprint import (
    CaseFingerprint,
    Fingerprint,
    Histogram,
    IntensityStatistics,
    LesionFingerprint,
)

TAILS = [0.5, 1.0, 1.5, 2.0]
TABLE_2 = [(-97.0, 310.0), (-90.0, 169.0), (-84.0, 151.0), (-79.0, 141.0)]


def table_2_histogram() -> Histogram:
    """1000 voxels whose 0.5, 1, 1.5, 2 % tails on both sides are those of Xu et al. 2023, table 2.

    The quantile q is the value of rank ceil(1000 q). Ranks 5, 10, 15, 20 are -97, -90, -84, -79 and ranks 995, 990,
    985, 980 are 310, 169, 151, 141: five voxels of each low value up to its rank, then 959 voxels of 40 HU (ranks
    21..979), then 1 of 141 (rank 980), 5 of 151 (981..985), 5 of 169, 5 of 310 and 5 beyond.
    """
    counts = {-97: 5, -90: 5, -84: 5, -79: 5, 40: 959, 141: 1, 151: 5, 169: 5, 310: 5, 400: 5}
    return Histogram(-97, [counts.get(value, 0) for value in range(-97, 401)])


def box_lesion(
    number: int,
    size: tuple[int, int, int],
    *,
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    corner: tuple[int, int, int] = (4, 50, 50),
    outside: float | None = 0.0,
    label: int = 0,
) -> LesionFingerprint:
    """A cuboid of ``size`` voxels (z, y, x) at ``corner``; ``outside`` None is a lesion of a case without CTV."""
    mm = [n * s for n, s in zip(size, spacing, strict=True)]
    box = (*map(float, corner), *(float(c + n) for c, n in zip(corner, size, strict=True)))
    return LesionFingerprint(
        instance=number,
        label=label,
        volume_mm3=mm[0] * mm[1] * mm[2],
        box=box,
        size_mm=(mm[0], mm[1], mm[2]),
        slices=size[0],
        outside_ctv_mm=outside,
        inside_ctv_mm=None if outside is None else 2.0,
        share_in_ctv=None if outside is None else 1.0 if outside == 0 else 0.5,
        short_axis_mm=min(mm[1:]),
        long_axis_mm=(mm[1] ** 2 + mm[2] ** 2) ** 0.5,
        size_voxels=size,
        slice_sizes_mm=[(mm[1], mm[2])] * size[0],
        medians={"CT": 40.0},
    )


def lesion(number: int = 1, side: float = 6.0, outside: float | None = 0.0) -> LesionFingerprint:
    """Two slices of 3 mm, ``side`` x ``side`` voxels of 1 mm."""
    return box_lesion(number, (2, int(side), int(side)), outside=outside)


def statistics(low: float, mid: float, high: float) -> IntensityStatistics:
    return IntensityStatistics(1000, mid, 1.0, low, low, mid, high, high)


def regions(
    low: float, mid: float, high: float, lesion_mid: float | None = None
) -> dict[str, IntensityStatistics]:
    """Statistics of the body, and of lesions that all have the value ``lesion_mid``."""
    found = {"body": statistics(low, mid, high)}
    if lesion_mid is not None:
        found["lesion"] = statistics(lesion_mid, lesion_mid, lesion_mid)
    return found


def hand_made_case(
    case_id: str,
    *,
    patient: str = "",
    stratum: str = "",
    shape: tuple[int, int, int] = (20, 200, 300),
    spacing: tuple[float, float, float] = (3.0, 1.0, 1.0),
    body_box: tuple[float, ...] = (0.0, 20.0, 30.0, 20.0, 180.0, 270.0),
    ctv_box: tuple[float, ...] | None = None,
    intensities: dict[str, dict[str, IntensityStatistics]] | None = None,
    lesions: list[LesionFingerprint] | None = None,
    lesion_hu: Histogram | None = None,
    region_hu: Histogram | None = None,
) -> CaseFingerprint:
    """A case of which only what matters to a test need be said; lesions lie in slices of their own."""

    def volume(box: tuple[float, ...]) -> float:
        sides = [(box[3 + axis] - box[axis]) * spacing[axis] for axis in range(3)]
        return sides[0] * sides[1] * sides[2]

    searched = ctv_box or body_box
    found = lesions or []
    return CaseFingerprint(
        case_id=case_id,
        patient_id=patient or case_id,
        stratum=stratum,
        inputs="0" * 16,
        shape=shape,
        spacing=spacing,
        body_box=body_box,
        ctv_box=ctv_box,
        body_volume_mm3=volume(body_box),
        ctv_volume_mm3=None if ctv_box is None else volume(ctv_box),
        positive_slices=sum(lesion.slices for lesion in found),
        search_slices=int(searched[3] - searched[0]),
        intensities=intensities or {},
        lesions=found,
        lesion_hu=lesion_hu or Histogram(),
        region_hu=region_hu or Histogram(),
    )


def case(
    number: int, *, ctv: bool = True, ct: bool = True, pet: bool = False, lesions: int = 2
) -> CaseFingerprint:
    """A case of 20 x 200 x 300 voxels of (3, 1, 1) mm, CTV of 12 x 80 x 100 voxels."""
    intensities = {"CT": regions(-100, 40, 300, 60)} if ct else {}
    if pet:
        intensities["PET"] = regions(0.0, 1.0, 4.0, 9.0)
    return hand_made_case(
        f"case_{number}",
        patient=f"patient_{number}",
        ctv_box=(2.0, 60.0, 100.0, 14.0, 140.0, 200.0) if ctv else None,
        intensities=intensities,
        lesions=[lesion(i + 1, 5.0 + i, 2.0 * i if ctv else None) for i in range(lesions)],
        lesion_hu=table_2_histogram() if ct and lesions else Histogram(),
    )


def fingerprint(
    *, ctv: bool = True, ct: bool = True, pet: bool = False, lesions: int = 2, cases: int = 6
) -> Fingerprint:
    names = ["CT"] * ct + ["PET"] * pet + ["CTV"] * ctv
    return Fingerprint(
        task="Task900_Tiny",
        modalities={str(i): name for i, name in enumerate(names)},
        labels={"0": "node"},
        cases=[case(i, ctv=ctv, ct=ct, pet=pet, lesions=lesions) for i in range(cases)],
    )
