"""Values of DICOM attributes as they are found in the wild: missing, empty, of another type, with a decimal comma.

A value that is no number, or none that a scan can have, raises :class:`UnreadableValue`, which names the tag and what
stands there; units and decimal marks are never guessed. Nothing else asks pydicom for a value of a foreign file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nndet_psma.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

_BACKSLASH = "\\"
_LONGEST = 40
"""Characters of a value that a message shows."""


PLAUSIBLE = {
    "Rows": (1, 65_535),
    "Columns": (1, 65_535),
    "NumberOfFrames": (0, 1e6),
    "PixelSpacing": (0.01, 100.0),
    "ImagePositionPatient": (-1e4, 1e4),
    "ImageOrientationPatient": (-1.01, 1.01),
    "ContourData": (-1e4, 1e4),
    "RescaleSlope": (1e-9, 1e9),
    "RescaleIntercept": (-1e6, 1e6),
    "DiffusionBValue": (0, 20_000),
    "FrameReferenceTime": (-1e9, 1e9),
    "ActualFrameDuration": (0, 1e9),
}
"""Lowest and highest value that a scan of a body can have, in the unit of the attribute (mm, s/mm², ms): orders of
magnitude beyond what scanners make (voxels of 0.1 to 10 mm, tables of 2 m, ADC maps in mm²/s with slopes of 1e-6,
activities of 1e6 Bq/ml, b-values to 5000 s/mm², frames of hours), so that only damage and slips are beyond them."""

COMMAND_GROUP = 0
"""Group of the attributes of network messages; a file has none, but zeroed bytes read as such."""


class UnreadableValue(ValueError):
    """An attribute whose value is not what its type says; the text names tag and value."""


def read_value(dataset: Dataset, name: str) -> Any:
    """A value as pydicom converts it when it is asked for, which fails in many ways on damaged ones.

    Raises:
        UnreadableValue: it fails.
    """
    try:
        return dataset.get(name)
    except Exception as error:
        raise UnreadableValue(f"{label(name)} ({type(error).__name__})") from None


def read_private(dataset: Dataset, creator: str, group: int, element: int) -> Any:
    """Value of a private attribute by its creator and the element of its block; None where there is none.

    Raises:
        UnreadableValue: its bytes are not of its type.
    """
    try:
        return dataset.private_block(group, creator)[element].value
    except KeyError:
        return None
    except Exception as error:
        raise UnreadableValue(f"{creator} ({group:04X},xx{element:02X}) ({type(error).__name__})") from None


def read_text(dataset: Dataset, name: str) -> str:
    """Value as text without blanks round it; "" where there is none.

    Raises:
        UnreadableValue: its bytes are not of its type.
    """
    value = read_value(dataset, name)
    return "" if value is None else _to_text(value, name)


def read_texts(dataset: Dataset, name: str) -> tuple[str, ...]:
    """All values of an attribute as texts; none where there is none.

    Raises:
        UnreadableValue: its bytes are not of its type.
    """
    value = read_value(dataset, name)
    if value is None or value == "":
        return ()
    parts = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(_to_text(part, name) for part in parts)


def read_number(dataset: Dataset, name: str) -> float | None:
    """A single number; None where there is none.

    Raises:
        UnreadableValue: the value is no plausible number, or there are several.
    """
    texts = [text for text in read_texts(dataset, name) if text]
    if not texts:
        return None
    if len(texts) > 1:
        raise UnreadableValue(describe(dataset, name))
    return _finite(texts[0], name)


def read_numbers(dataset: Dataset, name: str, count: int | None = None) -> tuple[float, ...] | None:
    """Numbers, of a fixed count where one is given; None where there is no value.

    Raises:
        UnreadableValue: one of them is no plausible number, or there are more or fewer.
    """
    texts = read_texts(dataset, name)
    if not texts:
        return None
    if count is not None and len(texts) != count:
        raise UnreadableValue(describe(dataset, name))
    return tuple(_finite(text, name) for text in texts)


def read_items(dataset: Dataset, name: str) -> list[Dataset]:
    """Items of a sequence; none where the attribute is missing or empty.

    Raises:
        UnreadableValue: it is no sequence, or its bytes are damaged.
    """
    from pydicom.sequence import Sequence

    value = read_value(dataset, name)
    if not value:
        return []
    if not isinstance(value, Sequence) or any(map(has_zeroed_bytes, value)):
        raise UnreadableValue(f"{label(name)}, whose items are damaged")
    return list(value)


def has_zeroed_bytes(dataset: Dataset) -> bool:
    """Whether some attributes are of the command group, which no file has."""
    return any(tag.group == COMMAND_GROUP for tag in dataset.keys())  # noqa: SIM118 - iteration reads the values


def describe(dataset: Dataset, name: str) -> str:
    r"""Name, tag and value of an attribute for a message: ``PatientWeight (0010,1030) '80,5'``."""
    try:
        texts = read_texts(dataset, name)
    except UnreadableValue as error:
        return str(error)
    return f"{label(name)} {repr(_shown(_BACKSLASH.join(texts))) if any(texts) else 'missing'}"


def label(name: str) -> str:
    """Name and tag of an attribute: ``PatientWeight (0010,1030)``."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(name)
    return name if tag is None else f"{name} ({Tag(tag).group:04X},{Tag(tag).element:04X})"


def unreadable(file: Path, found: str) -> UserError:
    """The refusal of a value that is no plausible number."""
    return UserError(
        "a value of the header cannot be read",
        file=file,
        expected="numbers with a decimal point, of a plausible size",
        found=found,
        remedy="Correct the header, or export the file again",
    )


def _finite(text: str, name: str) -> float:
    low, high = PLAUSIBLE.get(name, (-math.inf, math.inf))
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or not low <= number <= high:
        raise UnreadableValue(f"{label(name)} {_shown(text)!r}")
    return number


def _to_text(value: Any, name: str) -> str:
    from pydicom import Dataset
    from pydicom.sequence import Sequence

    if isinstance(value, Dataset | Sequence):  # damage made it one, and its text holds all that is in it
        raise UnreadableValue(f"{label(name)}, which is a sequence")
    return str(value).strip()


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
