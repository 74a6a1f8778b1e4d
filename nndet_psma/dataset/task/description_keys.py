"""The keys of ``dataset.json``, each read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nndet_psma.core.schema import MOST_CLASSES, LabelRule
from nndet_psma.dataset.faults.kinds import Fault


def _wrong_type(what: str, expected: str, value: Any, file: Path) -> Fault:
    kind, remedy = "description key of wrong type", "Correct the key"
    return Fault(kind, what, file=file, expected=expected, found=repr(value), remedy=remedy)


def text_key(content: Mapping[str, Any], key: str, file: Path, default: str | None = None) -> str:
    """A text that is not blank; ``default`` where the key is absent.

    Raises:
        Fault: the key is missing or holds something else.
    """
    value = content.get(key, default)
    if value is None:
        raise Fault("description key missing", f"key '{key}' is missing", file=file, remedy=f"Add '{key}'")
    if not isinstance(value, str) or not value.strip():
        raise _wrong_type(f"key '{key}' has the wrong type", "a text", value, file)
    return value


def dim_key(content: Mapping[str, Any], file: Path) -> int:
    """2 or 3.

    Raises:
        Fault: the key is missing or holds something else.
    """
    if "dim" not in content:
        raise Fault(
            "description key missing", "key 'dim' is missing", file=file, remedy="Add 'dim': 3 (or 2)"
        )
    value = content["dim"]
    if isinstance(value, bool) or value not in (2, 3):
        raise Fault(
            "wrong dim",
            "key 'dim' is wrong",
            file=file,
            expected="2 or 3",
            found=repr(value),
            remedy="Write 3 for volumes, 2 for single slices",
        )
    return int(value)


def numbered_key(content: Mapping[str, Any], key: str, file: Path) -> dict[int, str]:
    """Names by number from 0, ascending.

    Raises:
        Fault: the key is missing or holds something else.
    """
    example = f'{{"0": "{"lesion" if key == "labels" else "CT"}"}}'
    if key not in content:
        raise Fault(
            "description key missing", f"key '{key}' is missing", file=file, remedy=f"Add '{key}': {example}"
        )
    value = content[key]
    if not isinstance(value, dict) or not value:
        raise _wrong_type(f"key '{key}' has the wrong type", example, value, file)
    if len(value) > MOST_CLASSES:
        raise _wrong_type(f"key '{key}' has {len(value)} names", f"at most {MOST_CLASSES}", example, file)
    if not all(isinstance(name, str) and name.strip() for name in value.values()):
        raise _wrong_type(f"a name in '{key}' is not a text", example, value, file)
    problem = next((found for name in value.values() if (found := LabelRule().problem(name))), None)
    if problem is not None:
        expected, _, found = problem.removeprefix("expected ").partition(", found ")
        raise _wrong_type(f"a name in '{key}' cannot be used", expected, found, file)
    numbers = sorted(_number(number, key, file) for number in value)
    if numbers != list(range(len(numbers))):
        raise Fault(
            f"{key} not from 0",
            f"the keys of '{key}' are not consecutive numbers from 0",
            file=file,
            expected=", ".join(f'"{index}"' for index in range(len(numbers))),
            found=", ".join(f'"{number}"' for number in value),
            remedy="Number them anew; classes count from 0, for there is no background class"
            if key == "labels"
            else "Number them anew, here and in the file names",
        )
    by_number = {_number(number, key, file): name for number, name in value.items()}
    return {number: by_number[number] for number in numbers}


def _number(value: Any, key: str, file: Path) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _wrong_type(f"a key of '{key}' is not a number", '"0", "1", ...', value, file)
    return int(text)


def target_class_key(content: Mapping[str, Any], file: Path) -> int | None:
    """A class number or None.

    Raises:
        Fault: the key is missing or holds something else.
    """
    value = content.get("target_class")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise _wrong_type("key 'target_class' has the wrong type", "a number or null", value, file)
    return value


def boolean_key(content: Mapping[str, Any], key: str, file: Path) -> bool:
    """True or false; false where the key is absent.

    Raises:
        Fault: the key is missing or holds something else.
    """
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise _wrong_type(f"key '{key}' has the wrong type", "true or false", value, file)
    return value


def mapping_key(content: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    """A mapping; empty where the key is absent.

    Raises:
        Fault: the key is missing or holds something else.
    """
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise _wrong_type(f"key '{key}' has the wrong type", "a mapping", value, file)
    return dict(value)
