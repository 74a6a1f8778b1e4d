"""Standardised uptake values (body weight) of a PET series: the factor from stored units to SUV.

``SUV = activity [Bq/ml] * weight [g] / dose at the time the activity is stated for [Bq]``, with the rules of the QIBA
FDG-PET profile (vendor-neutral SUV computation) for which time that is. Every input must be plausible; units are never
guessed. What the file gets wrong the user may state (:class:`SuvGiven`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import read_dataset
from nndet_psma.dataset.dicom.nuclides import HALF_LIVES_S, agrees, named_nuclides, nuclide_with
from nndet_psma.dataset.dicom.times import (
    LONGEST_WAIT,
    WrongTime,
    injected_at,
    injected_by_user,
    is_plausible_wait,
    private_text,
    say_wait,
    scan_start,
)
from nndet_psma.dataset.dicom.values import (
    UnreadableValue,
    describe,
    label,
    read_items,
    read_number,
    read_text,
    read_texts,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_DOSE_MBQ = (1.0, 10_000.0)
_WEIGHT_KG = (1.0, 500.0)
_PRIVATE_FACTOR = (1e-9, 1e6)
"""Of Philips: SUV or Bq/ml per count; scanners write 1e-5 to 1e3."""

_BQ_PER_MBQ = 1e6
_PHILIPS_SUV = ("Philips PET Private Group", 0x7053, 0x00)
_PHILIPS_ACTIVITY = ("Philips PET Private Group", 0x7053, 0x09)
_EXPECTED_TIME = f"an injection at a known time, at most {LONGEST_WAIT} half-lives before the scan"
_TRACER = "RadiopharmaceuticalInformationSequence"
_OF_TRACER = (
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
)
_SHARED = ("Units", "DecayCorrection", "CorrectedImage", "PatientWeight", "TimezoneOffsetFromUTC", "SUVType")


@dataclass(frozen=True)
class SuvGiven:
    """What the user states instead of the header; None where the header counts. Holds no date.

    Attributes:
        factor: from rescaled values to SUV; nothing else is needed with it.
        dose_mbq: that was injected, MBq.
        weight_kg: of the patient, kg.
        waited_s: from the injection to the time that DecayCorrection START refers to, s.
    """

    factor: float | None = None
    dose_mbq: float | None = None
    weight_kg: float | None = None
    waited_s: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the header alone counts."""
        return self == SuvGiven()


def check_given(given: SuvGiven) -> None:
    """Refuse what no patient is given or weighs.

    Raises:
        UserError: a value is out of range, or a factor stands beside values that it makes needless.
    """
    for option, value, (low, high), unit in (
        ("--dose", given.dose_mbq, _DOSE_MBQ, "MBq"),
        ("--weight", given.weight_kg, _WEIGHT_KG, "kg"),
    ):
        if value is not None and not low <= value <= high:
            raise UserError(
                f"{option} is implausible", expected=f"{low:g} to {high:g} {unit}", found=f"{value:g}"
            )
    if given.factor is None:
        return
    if not 0 < given.factor < float("inf"):
        raise UserError(
            "--suv-factor is implausible", expected="a positive number", found=f"{given.factor:g}"
        )
    if given != SuvGiven(factor=given.factor):
        raise UserError(
            "--suv-factor takes the place of all else",
            found="also a dose, weight or time of injection",
            remedy="State either the factor or the others",
        )


def waited_since(files: Sequence[Path], text: str) -> float:
    """Seconds from an injection that the user states to the beginning of the scan.

    Args:
        files: of the PET series.
        text: ``HH:MM[:SS]``, or with the date of the file before it.

    Raises:
        UserError: it is no time, or it is implausible for the radionuclide.
    """
    datasets = _read(files)
    try:
        half_life = _half_life(_tracer(datasets[0]))
        scan = scan_start(datasets, half_life)
        return (scan - injected_by_user(text, scan, half_life)).total_seconds()
    except (_Refusal, WrongTime, UnreadableValue) as error:
        raise _refused(files[0], error) from None


def suv_factors(files: Sequence[Path], given: SuvGiven | None = None) -> list[float]:
    """For each file of one PET series: what its rescaled values are multiplied by to give SUV.

    Args:
        files: of the series.
        given: what the user states instead of the header.

    Raises:
        UserError: a value that is needed is missing or implausible, or the images are not corrected for decay and
            attenuation; names the attribute, its tag and its value.
    """
    if given is not None and given.factor is not None:
        return [given.factor] * len(files)
    datasets = _read(files)
    if len(datasets) != len(files):
        raise UserError(
            "a file of the PET is no DICOM file any more", file=files[0].parent, remedy="Restore the series"
        )
    return factors_of(datasets, files, given or SuvGiven())


def factors_of(datasets: Sequence[Dataset], files: Sequence[Path], given: SuvGiven) -> list[float]:
    """:func:`suv_factors` of headers that are read already; ``files`` are named in messages."""
    first: tuple[str, ...] = ()
    per_activity: float | None = None
    factors = []
    for dataset, file in zip(datasets, files, strict=True):
        try:
            first = first or _inputs(dataset)
            if _inputs(dataset) != first:
                raise _Refusal(
                    _difference(dataset, datasets[0], files[0]), "one tracer and patient in all slices"
                )
            to_activity = _to_activity(dataset)
            if to_activity is None:
                factors.append(_ready_factor(dataset))
                continue
            if per_activity is None:
                per_activity = _per_activity(dataset, datasets, given)
            factors.append(to_activity * per_activity)
        except (_Refusal, WrongTime, UnreadableValue) as error:
            raise _refused(file, error) from None
    return factors


class _Refusal(ValueError):
    """Why there is no factor: what was found, what is expected, and what the user may state instead."""

    def __init__(self, found: str, expected: str, option: str = "") -> None:
        super().__init__(found)
        self.expected = expected
        self.option = option


def _to_activity(dataset: Dataset) -> float | None:
    """Factor from rescaled values to Bq/ml; None where the file is, or has a factor to, SUV."""
    units = read_text(dataset, "Units")
    if units == "BQML":
        return 1.0
    if units == "GML" or (units == "CNTS" and _private_number(dataset, _PHILIPS_SUV)):
        return None
    if units != "CNTS":
        raise _Refusal(describe(dataset, "Units"), "BQML, GML, or CNTS of Philips")
    activity = _private_number(dataset, _PHILIPS_ACTIVITY)
    if not activity:
        raise _Refusal("counts without the factors of Philips (7053,1000) and (7053,1009)", "units BQML")
    return activity


def _ready_factor(dataset: Dataset) -> float:
    """Factor of values that are scaled to SUV already: GML without SUVType is by body weight (PS3.3 C.8.9.1)."""
    # what a workstation has computed may not say how it was corrected
    if read_texts(dataset, "CorrectedImage"):
        _check_corrections(dataset)
    if read_text(dataset, "Units") == "CNTS":
        return _private_number(dataset, _PHILIPS_SUV) or 0.0
    if (read_text(dataset, "SUVType") or "BW") != "BW":
        raise _Refusal(describe(dataset, "SUVType"), "SUV normalised by body weight (BW)")
    return 1.0


def _per_activity(dataset: Dataset, datasets: Sequence[Dataset], given: SuvGiven) -> float:
    """SUV per Bq/ml."""
    _check_corrections(dataset)
    weight = given.weight_kg or _within(dataset, "PatientWeight", _WEIGHT_KG, "kg", "--weight in kg")
    reference = read_text(dataset, "DecayCorrection")
    if reference not in ("START", "ADMIN"):
        raise _Refusal(describe(dataset, "DecayCorrection"), "START or ADMIN")
    tracer = _tracer(dataset, needed=given.dose_mbq is None or given.waited_s is None)
    dose = (given.dose_mbq or 0.0) * _BQ_PER_MBQ or _dose(tracer)
    left = 1.0 if reference == "ADMIN" else _share_left(tracer, dataset, datasets, given.waited_s)
    return weight * 1000.0 / (dose * left)


def _check_corrections(dataset: Dataset) -> None:
    corrected = read_texts(dataset, "CorrectedImage")
    if not {"ATTN", "DECY"} <= set(corrected):
        raise _Refusal(
            describe(dataset, "CorrectedImage"), "a PET corrected for attenuation (ATTN) and decay (DECY)"
        )


def _share_left(
    tracer: Dataset, dataset: Dataset, datasets: Sequence[Dataset], waited: float | None
) -> float:
    """Share of the injected dose that is left when the scan begins."""
    half_life = _half_life(tracer)
    if waited is None:
        scan = scan_start(datasets, half_life)
        waited = (scan - injected_at(tracer, dataset, scan, half_life)).total_seconds()
    elif not is_plausible_wait(waited, half_life):
        raise _Refusal(
            f"an injection {say_wait(waited)} before the scan was stated", _EXPECTED_TIME, "--injected-at"
        )
    left: float = 2.0 ** (-waited / half_life)
    return left


def _dose(tracer: Dataset) -> float:
    low, high = (bound * _BQ_PER_MBQ for bound in _DOSE_MBQ)
    return _within(tracer, "RadionuclideTotalDose", (low, high), "Bq", "--dose in MBq")


def _half_life(tracer: Dataset) -> float:
    """Half-life in s: that of the radionuclide the file names, or of a known one where it names none."""
    name = "RadionuclideHalfLife"
    half_life = read_number(tracer, name)
    named = named_nuclides(_names(tracer))
    if len(named) > 1:
        raise _Refusal(f"a tracer of {' and '.join(sorted(named))}", "one radionuclide")
    nuclide = next(iter(named), None)
    seconds = "seconds" if nuclide is None else f"{HALF_LIVES_S[nuclide]:.0f} s, the half-life of {nuclide},"
    if half_life is None or half_life <= 0:
        raise _Refusal(describe(tracer, name), seconds)
    right = nuclide_with(half_life) is not None if nuclide is None else agrees(half_life, nuclide)
    if not right:
        known = "a known radionuclide of PET in seconds" if nuclide is None else seconds
        raise _Refusal(describe(tracer, name), f"{known} within 2 %")
    return half_life


def _names(tracer: Dataset) -> list[str]:
    """Everything in the file that may name the radionuclide."""
    codes = [
        item
        for name in ("RadionuclideCodeSequence", "RadiopharmaceuticalCodeSequence")
        for item in read_items(tracer, name)
    ]
    return [read_text(tracer, "Radiopharmaceutical"), *(read_text(code, "CodeMeaning") for code in codes)]


def _tracer(dataset: Dataset, *, needed: bool = True) -> Dataset:
    """The one item that says what was injected; items that say nothing are passed over, equal ones count once."""
    items = [
        item for item in read_items(dataset, _TRACER) if any(read_text(item, name) for name in _OF_TRACER)
    ]
    if not items:
        raise _Refusal(describe(dataset, _TRACER), "dose, time and half-life of the tracer")
    told = {tuple(read_text(item, name) for name in _OF_TRACER) for item in items}
    half_lives = {read_text(item, "RadionuclideHalfLife") for item in items}
    if len(told) > 1 and (needed or len(half_lives) > 1):
        raise _Refusal(
            f"{len(told)} different items of the {_TRACER} (0054,0016)",
            "one tracer, injected once",
            "both --dose (MBq) and --injected-at",
        )
    return items[0]


def _within(dataset: Dataset, name: str, bounds: tuple[float, float], unit: str, option: str) -> float:
    low, high = bounds
    expected = f"{low:g} to {high:g} {unit}"
    try:
        number = read_number(dataset, name)
    except UnreadableValue as error:
        raise _Refusal(str(error), expected, option) from None
    if number is None or not low <= number <= high:
        raise _Refusal(describe(dataset, name), expected, option)
    return number


def _inputs(dataset: Dataset) -> tuple[str, ...]:
    """Everything of a header that its SUV depends on, and that all slices of a series share."""
    tracers = [read_text(item, name) for item in read_items(dataset, _TRACER) for name in _OF_TRACER]
    return (*(read_text(dataset, name) for name in _SHARED), *tracers)


def _difference(dataset: Dataset, other: Dataset, file: Path) -> str:
    """In what the slices of a series contradict each other."""
    name = next((name for name in _SHARED if read_text(dataset, name) != read_text(other, name)), _TRACER)
    return f"{describe(dataset, name) if name != _TRACER else label(name)}, which is another one in {file}"


def _private_number(dataset: Dataset, place: tuple[str, int, int]) -> float | None:
    """A positive private number; None where there is none."""
    text = private_text(dataset, place)
    try:
        number = float(text or 0)
    except ValueError:
        number = float("nan")
    low, high = _PRIVATE_FACTOR
    if number != 0 and not low <= number <= high:
        raise _Refusal(f"{place[0]} ({place[1]:04X},10{place[2]:02X}) '{text}'", f"{low:g} to {high:g}")
    return number or None


def _read(files: Sequence[Path]) -> list[Dataset]:
    return [dataset for file in files if (dataset := read_dataset(file)) is not None]


def _refused(file: Path, error: _Refusal | WrongTime | UnreadableValue) -> UserError:
    if isinstance(error, _Refusal):
        expected, option = error.expected, error.option
    elif isinstance(error, WrongTime):
        expected, option = _EXPECTED_TIME, "--injected-at"
    else:
        expected, option = "a number with a decimal point", ""
    options = f"{option} or --suv-factor" if option else "--suv-factor"
    return UserError(
        "SUV cannot be computed",
        file=file,
        expected=expected,
        found=str(error),
        remedy=f"Correct the header, state {options}, or convert the PET elsewhere and use 'convert nifti'",
    )
