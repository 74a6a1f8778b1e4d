"""The b-value of a diffusion-weighted MR image, which every vendor stores elsewhere."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

from nndet_psma.dataset.dicom.values import (
    PLAUSIBLE,
    UnreadableValue,
    read_number,
    read_private,
    read_text,
    read_texts,
)

if TYPE_CHECKING:
    from pydicom import Dataset

# private creator, group, element in its block; from the vendors' conformance statements
_PRIVATE_B_VALUES = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("Image Private Header", 0x0065, 0x09),  # United Imaging
)
_PRIVATE_DIRECTIONS = ("SIEMENS MR HEADER", 0x0019, 0x0D)
_SEQUENCE_NAME = re.compile(
    r"b(\d+)(?:t|#\d+)?$"
)  # Siemens: *ep_b800t is a trace image, *ep_b800#3 one direction
_GE_OFFSET = 1_000_000
_GE_MODULUS = 100_000


def b_value(dataset: Dataset) -> float | None:
    """b-value in s/mm²: the standard attribute, else the vendor's, else the name of a Siemens sequence; or None.

    Raises:
        UnreadableValue: a value is damaged or no b-value.
    """
    standard = read_number(dataset, "DiffusionBValue")
    if standard is not None:
        return standard
    for creator, group, element in _PRIVATE_B_VALUES:
        found = _to_number(read_private(dataset, creator, group, element))
        if found is not None:
            # GE adds 1e9 to the b-value in some versions
            return _checked(found % _GE_MODULUS if found >= _GE_OFFSET else found, creator)
    name = _SEQUENCE_NAME.search(read_text(dataset, "SequenceName"))
    return None if name is None else float(name[1])


def is_isotropic(dataset: Dataset) -> bool:
    """Whether a diffusion-weighted image is the mean over directions (trace-weighted), as is read clinically.

    Raises:
        UnreadableValue: a value is damaged.
    """
    if {"TRACEW", "TRACE"} & set(read_texts(dataset, "ImageType")):
        return True
    direction = read_text(dataset, "DiffusionDirectionality") or read_private(dataset, *_PRIVATE_DIRECTIONS)
    text = direction.decode("ascii", "ignore") if isinstance(direction, bytes) else str(direction or "")
    return text.strip() == "ISOTROPIC"


def _checked(value: float, creator: str) -> float:
    low, high = PLAUSIBLE["DiffusionBValue"]
    if not low <= value <= high:
        raise UnreadableValue(f"the b-value {value:g} of {creator}")
    return value


def _to_number(value: Any) -> float | None:
    """First number of a value that may be a number, a list, a text, or bytes of a type that the file does not state."""
    if value is None or isinstance(value, int | float):
        return None if value is None else float(value)
    if isinstance(value, bytes):
        return _from_bytes(value)
    if not isinstance(value, str):
        parts = list(value)
        return _to_number(parts[0]) if parts else None
    try:
        return float(value.split("\\")[0])
    except ValueError:
        return None


def _from_bytes(value: bytes) -> float | None:
    try:
        return float(value.decode("ascii").strip("\0 ").split("\\")[0])
    except (UnicodeDecodeError, ValueError):
        formats = {4: "<f", 8: "<d"}
        return None if len(value) not in formats else float(struct.unpack(formats[len(value)], value)[0])
