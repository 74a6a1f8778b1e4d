"""Standardised uptake values (body weight) of a PET series: the factor from stored units to SUV.

``SUV = activity [Bq/ml] * weight [g] / dose at the time the activity is stated for [Bq]``, with the rules of the QIBA
FDG-PET profile (vendor-neutral SUV computation) for which time that is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import read_dataset

if TYPE_CHECKING:
    from pydicom import Dataset

_DAY = timedelta(days=1)
_ANY_DATE = "19000101"
_SMALLEST_DOSE_BQ = 1e5
"""Less (0.1 MBq) is no dose of a patient: the number is in MBq, as some systems write it."""

_HEAVIEST_KG = 500.0
_GE_SCAN_TIME = ("GEMS_PETD_01", 0x0009, 0x0D)
_PHILIPS_SUV = ("Philips PET Private Group", 0x7053, 0x00)
_PHILIPS_ACTIVITY = ("Philips PET Private Group", 0x7053, 0x09)


def suv_factors(files: Iterable[Path]) -> list[float]:
    """For each file of one PET series: what its rescaled values are multiplied by to give SUV.

    Raises:
        UserError: a value that is needed is missing or impossible, or the images are not corrected for decay and
            attenuation.
    """
    datasets = [(file, read_dataset(file)) for file in files]
    slices = [(file, dataset) for file, dataset in datasets if dataset is not None]
    started = min((time for _, dataset in slices if (time := _moment(dataset, "Acquisition"))), default=None)
    return [suv_factor(dataset, file, started) for file, dataset in slices]


def suv_factor(dataset: Dataset, file: Path, started: datetime | None = None) -> float:
    """Factor from the rescaled values of one PET image to SUV by body weight.

    Args:
        dataset: header of the image.
        file: for messages.
        started: when the first slice of the series was acquired; None where only this slice is known.

    Raises:
        UserError: see :func:`suv_factors`.
    """
    units = str(dataset.get("Units") or "")
    if units == "GML":
        kind = str(dataset.get("SUVType") or "BW")
        if kind != "BW":
            raise _wrong(file, f"SUV normalised by {kind}", "body weight (BW)")
        return 1.0
    if units == "CNTS":
        ready = _private_number(dataset, _PHILIPS_SUV)
        if ready:
            return ready
        activity = _private_number(dataset, _PHILIPS_ACTIVITY)
        if not activity:
            raise _wrong(file, "counts without the factor to activity (Philips 7053,1009)", "units BQML")
        return activity * _per_activity(dataset, file, started)
    if units != "BQML":
        raise _wrong(file, f"units '{units}'", "BQML, GML, or CNTS of Philips")
    return _per_activity(dataset, file, started)


def _per_activity(dataset: Dataset, file: Path, started: datetime | None) -> float:
    corrected = dataset.get("CorrectedImage") or ()
    for needed, what in (("ATTN", "attenuation"), ("DECY", "decay")):
        if needed not in corrected:
            raise _wrong(file, f"no correction for {what} (CorrectedImage)", "a PET corrected for both")
    tracer = _tracer(dataset, file)
    dose = _positive(tracer, "RadionuclideTotalDose", file)
    dose = dose * 1e6 if dose < _SMALLEST_DOSE_BQ else dose
    weight = _positive(dataset, "PatientWeight", file)
    if weight > _HEAVIEST_KG:
        raise _wrong(file, f"PatientWeight {weight:g}", "kilograms")
    return weight * 1000.0 / (dose * decay(dataset, tracer, file, started))


def decay(dataset: Dataset, tracer: Dataset, file: Path, started: datetime | None) -> float:
    """Share of the injected dose that is left at the time the activity is stated for.

    Raises:
        UserError: times or half-life are missing, or the activity is not corrected for decay.
    """
    reference = str(dataset.get("DecayCorrection") or "")
    if reference == "ADMIN":  # stated for the time of injection
        return 1.0
    if reference != "START":
        raise _wrong(file, f"DecayCorrection '{reference}'", "START or ADMIN")
    half_life = _positive(tracer, "RadionuclideHalfLife", file)
    scan = scan_start(dataset, half_life, started)
    if scan is None:
        raise _wrong(file, "no time of the scan (SeriesTime, AcquisitionTime)", "the time it began")
    waited = (scan - _injection(tracer, scan, file)).total_seconds()
    left: float = 2.0 ** (-waited / half_life)
    return left


def scan_start(dataset: Dataset, half_life: float, started: datetime | None = None) -> datetime | None:
    """When the scan began that START means: the time of the series, unless that is when it was processed.

    A series time after the first acquisition is of a later processing; then GE's own scan time counts, else the
    acquisition time less what the slice's reference time and duration say (Siemens), else the acquisition time.
    """
    series, own = _moment(dataset, "Series"), _moment(dataset, "Acquisition")
    acquired = started or own
    if series is not None and (acquired is None or series <= acquired):
        return series
    ge_text = _private_text(dataset, _GE_SCAN_TIME)
    if ge_text and (ge_time := _parse(ge_text[:8], ge_text[8:])):
        return ge_time
    reference = float(dataset.get("FrameReferenceTime") or 0) / 1000
    duration = float(dataset.get("ActualFrameDuration") or 0) / 1000
    if own is not None and reference > 0 and duration > 0:
        rate = math.log(2) / half_life * duration
        average = math.log(rate / -math.expm1(-rate)) / rate * duration
        return own + timedelta(seconds=average - reference)
    return acquired


def _injection(tracer: Dataset, scan: datetime, file: Path) -> datetime:
    """When the tracer was given: within the day before the scan; dates, which may have been shifted, are checked."""
    full = str(tracer.get("RadiopharmaceuticalStartDateTime") or "")
    stated = _parse(full[:8], full[8:])
    if stated is not None and timedelta(0) <= scan - stated < _DAY:
        return stated
    clock = full[8:] or str(tracer.get("RadiopharmaceuticalStartTime") or "")
    given = _parse(scan.strftime("%Y%m%d"), clock)
    if given is None:
        raise _wrong(file, "no RadiopharmaceuticalStartTime", "the time of injection")
    return given if given <= scan else given - _DAY  # injected before midnight


def _tracer(dataset: Dataset, file: Path) -> Dataset:
    sequence: Any = dataset.get("RadiopharmaceuticalInformationSequence")
    if not sequence:
        raise _wrong(file, "no RadiopharmaceuticalInformationSequence", "dose and time of the tracer")
    item: Dataset = sequence[0]
    return item


def _positive(dataset: Dataset, name: str, file: Path) -> float:
    value = dataset.get(name)
    number = 0.0 if value in (None, "") else float(value)
    if not (math.isfinite(number) and number > 0):
        raise _wrong(file, f"{name} {'missing' if value in (None, '') else value}", "a positive number")
    return number


def _moment(dataset: Dataset, what: str) -> datetime | None:
    """Date and time of a "Series" or "Acquisition"; a date that is missing is that of the series."""
    date = dataset.get(f"{what}Date") or dataset.get("SeriesDate") or dataset.get("StudyDate") or _ANY_DATE
    return _parse(str(date), str(dataset.get(f"{what}Time") or ""))


def _parse(date: str, time: str) -> datetime | None:
    """DICOM date and time (or the rest of a DT, with an offset from UTC that all times of a scan share)."""
    digits = re.sub(r"[:.]", "", re.split(r"[+-]", time.strip())[0])
    plain_date = re.sub(r"[-.]", "", date.strip())
    if len(plain_date) != 8 or not plain_date.isdigit() or not digits.isdigit():
        return None
    clock, fraction = digits[:6].ljust(6, "0"), digits[6:12].ljust(6, "0")
    try:
        return datetime.strptime(plain_date + clock + fraction, "%Y%m%d%H%M%S%f")
    except ValueError:
        return None


def _private_text(dataset: Dataset, place: tuple[str, int, int]) -> str:
    creator, group, element = place
    try:
        value = dataset.private_block(group, creator)[element].value
    except KeyError:
        return ""
    return value.decode("ascii", "ignore").strip("\0 ") if isinstance(value, bytes) else str(value).strip()


def _private_number(dataset: Dataset, place: tuple[str, int, int]) -> float | None:
    try:
        return float(_private_text(dataset, place))
    except ValueError:
        return None


def _wrong(file: Path, found: str, expected: str) -> UserError:
    return UserError(
        "SUV cannot be computed",
        file=file,
        expected=expected,
        found=found,
        remedy="Correct the header, or convert the PET to SUV elsewhere and use 'convert nifti'",
    )
