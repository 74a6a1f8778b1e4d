"""Values of DICOM attributes as they are found in the wild: missing, empty, of another type, with a decimal comma.

A value that is no number raises :class:`UnreadableValue`, which names the tag and what stands there; units and decimal
marks are never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nndet_psma.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset

_LONGEST = 40
"""Characters of a value that a message shows."""


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


def read_text(dataset: Dataset, name: str) -> str:
    """Value as text without blanks round it; "" where there is none.

    Raises:
        UnreadableValue: its bytes are not of its type.
    """
    value = read_value(dataset, name)
    return "" if value is None else str(value).strip()


def read_texts(dataset: Dataset, name: str) -> tuple[str, ...]:
    """All values of an attribute as texts; none where there is none.

    Raises:
        UnreadableValue: its bytes are not of its type.
    """
    value = read_value(dataset, name)
    if value is None or value == "":
        return ()
    parts = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    return tuple(str(part).strip() for part in parts)


def read_number(dataset: Dataset, name: str) -> float | None:
    """A single number; None where there is none.

    Raises:
        UnreadableValue: the value is no finite number, or there are several.
    """
    texts = [text for text in read_texts(dataset, name) if text]
    if not texts:
        return None
    if len(texts) > 1:
        raise UnreadableValue(describe(dataset, name))
    return _finite(texts[0], dataset, name)


def read_numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    """A fixed count of numbers; None where there is no value.

    Raises:
        UnreadableValue: one of them is no finite number, or there are more or fewer.
    """
    texts = read_texts(dataset, name)
    if not texts:
        return None
    if len(texts) != count:
        raise UnreadableValue(describe(dataset, name))
    return tuple(_finite(text, dataset, name) for text in texts)


def read_items(dataset: Dataset, name: str) -> list[Dataset]:
    """Items of a sequence; none where the attribute is missing or no sequence."""
    from pydicom.sequence import Sequence

    value = read_value(dataset, name)
    return list(value) if isinstance(value, Sequence) else []


def describe(dataset: Dataset, name: str) -> str:
    r"""Name, tag and value of an attribute for a message: ``PatientWeight (0010,1030) '80,5'``."""
    try:
        texts = read_texts(dataset, name)
    except UnreadableValue as error:
        return str(error)
    value = "\\".join(texts)
    shown = value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "..."
    return f"{label(name)} {repr(shown) if any(texts) else 'missing'}"


def label(name: str) -> str:
    """Name and tag of an attribute: ``PatientWeight (0010,1030)``."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(name)
    return name if tag is None else f"{name} ({Tag(tag).group:04X},{Tag(tag).element:04X})"


def unreadable(file: Path, found: str) -> UserError:
    """The refusal of a value that is no number."""
    return UserError(
        "a value of the header cannot be read",
        file=file,
        expected="numbers with a decimal point",
        found=found,
        remedy="Correct the header, or export the file again",
    )


def _finite(text: str, dataset: Dataset, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise UnreadableValue(describe(dataset, name)) from None
    if not math.isfinite(number):
        raise UnreadableValue(describe(dataset, name))
    return number
