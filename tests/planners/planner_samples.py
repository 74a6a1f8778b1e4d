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


def lesion(number: int = 1, side: float = 6.0, outside: float | None = 0.0) -> LesionFingerprint:
    """Two slices of 3 mm, ``side`` x ``side`` voxels of 1 mm."""
    box = (4.0, 50.0, 50.0, 6.0, 50.0 + side, 50.0 + side)
    return LesionFingerprint(number, 0, 6.0 * side**2, box, (6.0, side, side), 2, outside)


def statistics(low: float, mid: float, high: float, lesion_mid: float | None) -> IntensityStatistics:
    return IntensityStatistics(mid, 1.0, low, mid, high, None, lesion_mid, None)


def case(
    number: int, *, ctv: bool = True, ct: bool = True, pet: bool = False, lesions: int = 2
) -> CaseFingerprint:
    """A case of 20 x 200 x 300 voxels of (3, 1, 1) mm, CTV of 12 x 80 x 100 voxels."""
    intensities = {"CT": statistics(-100, 40, 300, 60)} if ct else {}
    if pet:
        intensities["PET"] = statistics(0.0, 1.0, 4.0, 9.0)
    return CaseFingerprint(
        case_id=f"case_{number}",
        patient_id=f"patient_{number}",
        stratum="",
        inputs="0" * 16,
        shape=(20, 200, 300),
        spacing=(3.0, 1.0, 1.0),
        body_box=(0.0, 20.0, 30.0, 20.0, 180.0, 270.0),
        ctv_box=(2.0, 60.0, 100.0, 14.0, 140.0, 200.0) if ctv else None,
        intensities=intensities,
        lesions=[lesion(i + 1, 5.0 + i, 2.0 * i if ctv else None) for i in range(lesions)],
        lesion_hu=table_2_histogram() if ct and lesions else Histogram(),
        region_hu=Histogram(),
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
