"""Times of a PET: when the tracer was given, and when the scan began that its activity is stated for.

DICOM PS3.3 C.8.9.1 (DecayCorrection), C.8.9.2 (radiopharmaceutical), C.8.9.4 (FrameReferenceTime), PS3.5 6.2 (TM, DT),
and the QIBA vendor-neutral pseudo-code for SUV (2018-06-26).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from nndet_psma.dataset.dicom.values import describe, label, read_number, read_private, read_text

if TYPE_CHECKING:
    from pydicom import Dataset

LONGEST_WAIT = 6
"""Half-lives between injection and scan: 11 h for F-18, 6.8 h for Ga-68, 19 days for Zr-89. Less than 2 % of the dose
is left then, which nobody images; a longer wait is a wrong date."""

_DAY = timedelta(days=1)
_ANY_DAY = date(1900, 1, 2)
_AGREE_S = 60.0
"""Two statements of one time may differ by this: one of them is often rounded to minutes."""

_GE_SCAN_TIME = ("GEMS_PETD_01", 0x0009, 0x0D)
_SIEMENS_DECAY_TIME = ("SIEMENS MED PT", 0x0071, 0x22)
_DT = re.compile(r"(\d{8})(\d{2,6})(?:\.(\d{1,6}))?\s*([+-]\d{4})?")
_TM = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(?:\.(\d{1,6})\d*)?)?)?")
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")


class WrongTime(ValueError):
    """A time that is missing, impossible or ambiguous; the text names tag and value."""


def scan_start(slices: Sequence[Dataset], half_life: float) -> datetime:
    """When the scan began that DecayCorrection START refers to.

    What the vendor notes as the time of the decay correction counts first (GE 0009,100D, Siemens 0071,1022). Otherwise
    it is the time of the series, unless that lies after the first acquisition (a later reconstruction): then the
    acquisition time less what the reference time of the frame says, if the slices agree in it, else the first
    acquisition time.

    Args:
        slices: headers of the series.
        half_life: s.

    Raises:
        WrongTime: no time can be read, or it was blanked to midnight.
    """
    series = _moment(slices[0], "Series", None)
    acquired = [_moment(one, "Acquisition", series) for one in slices]
    first = min((moment for moment in acquired if moment is not None), default=None)
    noted = _noted_by_vendor(slices[0], first or series)
    if noted is not None:
        return noted
    start = series
    if series is None or _is_blank(series) or (first is not None and first < series):
        start = _from_frames(slices, acquired, half_life) or first or series
    if start is None or _is_blank(start):
        raise WrongTime(f"{describe(slices[0], 'SeriesTime')}, {describe(slices[0], 'AcquisitionTime')}")
    return start


def injected_at(tracer: Dataset, dataset: Dataset, scan: datetime, half_life: float) -> datetime:
    """When the tracer was given, in the clock of the scanner.

    A date that is off by more than a day and more than the nuclide allows was shifted by a de-identification: then, and
    without a date, the time of day counts, if it fits one day only.

    Args:
        tracer: item of the RadiopharmaceuticalInformationSequence.
        dataset: header of the image, for its offset from UTC.
        scan: when the scan began.
        half_life: s.

    Raises:
        WrongTime: the time is missing or blanked, contradicts itself, lies after the scan or too long before it, or
            could be on several days.
    """
    full = _datetime(tracer, "RadiopharmaceuticalStartDateTime", read_text(dataset, "TimezoneOffsetFromUTC"))
    clock = _clock(tracer, "RadiopharmaceuticalStartTime")
    full = None if full is not None and _is_blank(full) else full
    clock = None if clock == time(0) else clock
    if full is not None and clock is not None and not _same_clock(full.time(), clock):
        raise WrongTime(
            f"{describe(tracer, 'RadiopharmaceuticalStartDateTime')} and "
            f"{describe(tracer, 'RadiopharmaceuticalStartTime')}, which contradict each other"
        )
    what = describe(tracer, f"RadiopharmaceuticalStart{'Time' if full is None else 'DateTime'}")
    if full is not None:
        waited = (scan - full).total_seconds()
        if is_plausible_wait(waited, half_life) or abs(waited) < _DAY.total_seconds():
            return _checked(full, scan, half_life, what)
    given = full.time() if full is not None else clock
    if given is None:
        raise WrongTime(what)
    return _on_its_day(given, scan, half_life, what)


def injected_by_user(text: str, scan: datetime, half_life: float) -> datetime:
    """A time that the user states: ``HH:MM[:SS]``, or with the date of the file before it (``YYYY-MM-DD HH:MM[:SS]``).

    Raises:
        WrongTime: it is none, or it is implausible or ambiguous.
    """
    what = f"--injected-at '{text}'"
    try:
        if "-" in text:
            return _checked(datetime.fromisoformat(text.strip()).replace(tzinfo=None), scan, half_life, what)
        return _on_its_day(time.fromisoformat(text.strip()), scan, half_life, what)
    except WrongTime:
        raise
    except ValueError:
        raise WrongTime(f"{what}, which is no time") from None


def is_plausible_wait(waited: float, half_life: float) -> bool:
    """Whether so many seconds can lie between injection and scan."""
    return 0 <= waited <= LONGEST_WAIT * half_life


def say_wait(waited: float) -> str:
    """A time span (s) for messages: ``4 min``, ``3.0 h``, ``2.5 days``."""
    span = abs(waited)
    if span < 3600:
        return f"{span / 60:.0f} min" if span >= 60 else f"{span:.0f} s"
    return f"{span / 3600:.1f} h" if span < 2 * 86400 else f"{span / 86400:.1f} days"


def _checked(given: datetime, scan: datetime, half_life: float, what: str) -> datetime:
    waited = (scan - given).total_seconds()
    if not is_plausible_wait(waited, half_life):
        raise WrongTime(f"{what}, {_say_implausible(waited, half_life)}")
    return given


def _say_implausible(waited: float, half_life: float) -> str:
    if waited < 0:
        return f"which is {say_wait(waited)} after the scan began"
    return f"which is {say_wait(waited)} ({waited / half_life:.1f} half-lives) before it began"


def _on_its_day(clock: time, scan: datetime, half_life: float, what: str) -> datetime:
    """The one day on which a time of day is a plausible injection."""
    days = range(int(LONGEST_WAIT * half_life // _DAY.total_seconds()) + 2)
    moments = [datetime.combine(scan.date(), clock) - k * _DAY for k in days]
    fitting = [one for one in moments if is_plausible_wait((scan - one).total_seconds(), half_life)]
    if len(fitting) > 1:
        raise WrongTime(f"{what} without a date that fits, which could be on each of {len(fitting)} days")
    if not fitting:
        waits = sorted((scan - one).total_seconds() for one in moments)[:2]
        raise WrongTime(f"{what}, {', or '.join(_say_implausible(one, half_life) for one in waits)}")
    return fitting[0]


def _noted_by_vendor(dataset: Dataset, near: datetime | None) -> datetime | None:
    """The scanner's own note of when its decay correction begins.

    Its date is private and may have escaped a shift of all others, or been shifted alone: it is taken for the day of
    the acquisition. A note after the acquisition is of something else.
    """
    for place in (_GE_SCAN_TIME, _SIEMENS_DECAY_TIME):
        parts = _DT.match(private_text(dataset, place))
        clock = None if parts is None else _to_clock(parts[2], parts[3])
        if clock is None or clock == time(0):
            continue
        noted = _nearest_day(clock, near) if near is not None else None
        if noted is not None and near is not None and noted <= near:
            return noted
    return None


def _from_frames(
    slices: Sequence[Dataset], acquired: Sequence[datetime | None], half_life: float
) -> datetime | None:
    """Start by the reference times of the frames, where all slices agree.

    FrameReferenceTime is the offset of the time at which the average count rate of a frame occurs; GE states the offset
    of the beginning of the frame.
    """
    starts = []
    for one, moment in zip(slices, acquired, strict=True):
        reference = (read_number(one, "FrameReferenceTime") or 0.0) / 1000
        duration = (read_number(one, "ActualFrameDuration") or 0.0) / 1000
        if moment is None or reference <= 0 or duration <= 0:
            return None
        into = 0.0 if "GE " in read_text(one, "Manufacturer").upper() else _average_time(duration, half_life)
        starts.append(moment + timedelta(seconds=into - reference))
    ordered = sorted(starts)
    agree = (ordered[-1] - ordered[0]).total_seconds() <= _AGREE_S
    return ordered[len(ordered) // 2] if agree else None


def _average_time(duration: float, half_life: float) -> float:
    """When, in seconds into a frame, its average count rate occurs (a little before the middle)."""
    rate = math.log(2) / half_life * duration
    return math.log(rate / -math.expm1(-rate)) / rate * duration


def _moment(dataset: Dataset, what: str, near: datetime | None) -> datetime | None:
    """Date and time of a "Series" or "Acquisition"; one without a date lies on the day that brings it near ``near``."""
    clock = _clock(dataset, f"{what}Time")
    if clock is None:
        return _datetime(dataset, f"{what}DateTime", read_text(dataset, "TimezoneOffsetFromUTC"))
    if clock == time(0) and what == "Acquisition":
        return None  # blanked
    day = _day(dataset, f"{what}Date")
    if day is None and near is not None:
        return _nearest_day(clock, near)
    return datetime.combine(
        day or _day(dataset, "SeriesDate") or _day(dataset, "StudyDate") or _ANY_DAY, clock
    )


def _nearest_day(clock: time, near: datetime) -> datetime:
    moments = (datetime.combine(near.date() + timedelta(days=k), clock) for k in (-1, 0, 1))
    return min(moments, key=lambda one: abs(one - near))


def _is_blank(moment: datetime) -> bool:
    """De-identification tools write 000000; a time in that very second cannot be told from it."""
    return moment.time() == time(0)


def _same_clock(one: time, other: time) -> bool:
    apart = abs((datetime.combine(_ANY_DAY, one) - datetime.combine(_ANY_DAY, other)).total_seconds())
    return min(apart, _DAY.total_seconds() - apart) <= _AGREE_S


def _datetime(dataset: Dataset, name: str, offset: str) -> datetime | None:
    """A DT in the clock of the scanner: its offset from UTC is taken off where the file states the scanner's, too."""
    text = read_text(dataset, name)
    if len(text) <= len("YYYYMMDD"):  # a date alone tells no time
        return None
    parts = _DT.fullmatch(text)
    clock = None if parts is None else _to_clock(parts[2], parts[3])
    if parts is None or clock is None:
        raise WrongTime(describe(dataset, name))
    moment = datetime.combine(_to_day(parts[1], dataset, name), clock)
    if parts[4] and offset:
        return moment - _to_offset(parts[4], name) + _to_offset(offset, "TimezoneOffsetFromUTC")
    return moment


def _clock(dataset: Dataset, name: str) -> time | None:
    text = read_text(dataset, name)
    if not text:
        return None
    parts = _TM.fullmatch(text)
    clock = None if parts is None else _to_clock("".join(part or "" for part in parts.groups()[:3]), parts[4])
    if clock is None:
        raise WrongTime(describe(dataset, name))
    return clock


def _to_clock(digits: str, fraction: str | None) -> time | None:
    """``HH``, ``HHMM`` or ``HHMMSS`` and the digits of a fraction of a second."""
    padded = digits.ljust(6, "0")
    try:
        # 60 is the leap second that a TM may hold
        seconds = min(int(padded[4:6]), 59)
        return time(int(padded[:2]), int(padded[2:4]), seconds, int((fraction or "").ljust(6, "0")))
    except ValueError:
        return None


def _day(dataset: Dataset, name: str) -> date | None:
    text = re.sub(r"[-.]", "", read_text(dataset, name))
    return _to_day(text, dataset, name) if text else None


def _to_day(text: str, dataset: Dataset, name: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        raise WrongTime(describe(dataset, name)) from None


def _to_offset(text: str, name: str) -> timedelta:
    parts = _OFFSET.fullmatch(text.strip())
    if parts is None:
        raise WrongTime(f"{label(name)} '{text}', which is no offset from UTC")
    span = timedelta(hours=int(parts[2]), minutes=int(parts[3]))
    return -span if parts[1] == "-" else span


def private_text(dataset: Dataset, place: tuple[str, int, int]) -> str:
    """Text of a private attribute (creator, group, element of its block); "" where there is none.

    Raises:
        UnreadableValue: its bytes are not of its type.
    """
    value = read_private(dataset, *place)
    return (
        value.decode("ascii", "ignore").strip("\0 ") if isinstance(value, bytes) else str(value or "").strip()
    )
