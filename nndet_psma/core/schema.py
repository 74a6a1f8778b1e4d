"""Typed JSON: dataclasses to plain dictionaries and back, with errors that name the key.

Understands what artefacts need: nested dataclasses, ``list``, ``tuple``, ``dict`` with string keys, ``X | None``,
``Literal``, ``int``, ``float``, ``bool``, ``str`` and ``Any``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class SchemaError(ValueError):
    """A value does not fit its declared type; ``key`` is the path to it (``stages[1].iterations``)."""

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        self.problem = problem
        super().__init__(f"{key or 'top level'}: {problem}")


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and NumPy scalars to what ``json`` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return value.tolist()
    return value


def from_plain(cls: type[T], content: Any, key: str = "") -> T:
    """Build the dataclass ``cls`` from parsed JSON.

    Raises:
        SchemaError: a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(content, dict):
        raise SchemaError(key, f"expected an object, found {type(content).__name__}")
    hints = _hints(cast(Any, cls))
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = sorted(set(content) - set(fields))
    if unknown:
        raise SchemaError(_join(key, unknown[0]), _unknown_key(unknown[0], sorted(fields)))
    values = {}
    for name, field in fields.items():
        if name in content:
            values[name] = _convert(hints[name], content[name], _join(key, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SchemaError(_join(key, name), "missing key")
    return cls(**values)


def _unknown_key(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    meant = f"did you mean {near[0]}? Known" if near else "known"
    return f"unknown key; {meant} keys are {', '.join(known)}"


def _convert(hint: Any, value: Any, key: str) -> Any:
    if hint is Any or isinstance(hint, TypeVar):  # of a type that the caller has built already
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_optional(hint, value, key)
    if origin is Literal:
        if value not in get_args(hint):
            raise SchemaError(key, f"expected one of {list(get_args(hint))}, found {value!r}")
        return value
    if origin in (list, tuple, dict):
        return _convert_container(origin, get_args(hint), value, key)
    if dataclasses.is_dataclass(hint):
        return from_plain(cast(type, hint), value, key)
    return _convert_scalar(hint, value, key)


def _convert_optional(hint: Any, value: Any, key: str) -> Any:
    options = get_args(hint)
    if value is None and type(None) in options:
        return None
    problems = []
    for option in options:
        if option is not type(None):
            try:
                return _convert(option, value, key)
            except SchemaError as error:
                problems.append(error)
    if len(problems) > 1 and problems[0].key == problems[-1].key:
        raise SchemaError(
            key,
            f"expected {' or '.join(map(_expected, problems))}, found {value!r}",
        )
    raise problems[-1]


def _expected(error: SchemaError) -> str:
    return error.problem.partition(", found")[0].removeprefix("expected ")


def _convert_container(origin: type, args: tuple[Any, ...], value: Any, key: str) -> Any:
    if origin is dict:
        if not isinstance(value, dict):
            raise SchemaError(key, f"expected an object, found {type(value).__name__}")
        return {name: _convert(args[1], item, _join(key, name)) for name, item in value.items()}
    if not isinstance(value, list):
        raise SchemaError(key, f"expected a list, found {type(value).__name__}")
    if origin is list or (len(args) == 2 and args[1] is Ellipsis):
        return origin(_convert(args[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if len(args) != len(value):
        raise SchemaError(key, f"expected {len(args)} values, found {len(value)}")
    return tuple(
        _convert(arg, item, f"{key}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _convert_scalar(hint: Any, value: Any, key: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):  # Python reads NaN and Infinity, which are no JSON and compare falsely
            raise SchemaError(key, f"expected a finite number, found {value}")
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise SchemaError(key, f"expected {hint.__name__}, found {value!r}")
    return value


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
