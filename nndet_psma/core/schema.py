"""Typed JSON: dataclasses to plain dictionaries and back, with errors that name the key.

Understands what artefacts need: nested dataclasses, ``list``, ``tuple``, ``dict`` with string keys, ``X | None``,
``Literal``, ``int``, ``float``, ``bool``, ``str`` and ``Any``. ``Annotated`` types bound what may stand there:
``Annotated[int, Within(1, 4096)]``, ``Id``, ``Label``. Files come from anywhere, so every number that sets the size of
something and every text that becomes a path or a part of a page has its bound where it is declared.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")

MOST_INT = 2**53
"""Whole numbers beyond are not what they seem once they were a float."""
MOST_TEXT = 100_000  # characters: the longest of ours is the evidence of a decision


class Rule(Protocol):
    """What an ``Annotated`` type asks of a value beyond its type."""

    def problem(self, value: Any) -> str | None:
        """What is wrong, as "expected ..."; None where nothing is."""
        ...


@dataclasses.dataclass(frozen=True)
class Within:
    """A number from ``least`` to ``most``, both included."""

    least: float
    most: float

    def problem(self, value: Any) -> str | None:
        """Out of range."""
        if self.least <= value <= self.most:
            return None
        return f"expected a number in [{self.least:g}, {self.most:g}], found {_shown(value)}"


@dataclasses.dataclass(frozen=True)
class AtMost:
    """A list, mapping or text of so many items."""

    most: int

    def problem(self, value: Any) -> str | None:
        """Too long."""
        return None if len(value) <= self.most else f"expected at most {self.most} items, found {len(value)}"


class IdRule:
    """A name that becomes a file's: letters, digits and ``_.+-`` in one word of at most 150 characters."""

    pattern = re.compile(r"\w[\w.+-]{0,149}")  # file systems end at 255 bytes, and endings are added

    def problem(self, value: Any) -> str | None:
        """No such name."""
        return None if self.pattern.fullmatch(value) else f"expected a name, found {_shown(value)}"


class LabelRule:
    """A name that is shown and may become part of a file's: one line without characters of paths or of HTML."""

    most = 100
    forbidden = frozenset('/\\<>&"')

    def problem(self, value: Any) -> str | None:
        """Blank, too long, or with a character that means something elsewhere."""
        plain = value.isprintable() and not self.forbidden & set(value)
        if value.strip() and len(value) <= self.most and plain:
            return None
        wanted = f"a name of 1 to {self.most} characters without {' '.join(sorted(self.forbidden))}"
        return f"expected {wanted} or control characters, found {_shown(value)}"


Id = Annotated[str, IdRule()]
Label = Annotated[str, LabelRule()]
MOST_CLASSES = 1000
"""Classes of lesions, modalities; what has more is no description of lesions."""
Number = Annotated[int, Within(0, 10_000)]
"""Of a fold, a modality, a class."""


class SchemaError(ValueError):
    """A value does not fit its declared type; ``key`` is the path to it (``stages[1].iterations``)."""

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        self.problem = problem
        super().__init__(f"{key or 'top level'}: {problem}")


_ADDED = "added"


def added(default: Any) -> Any:
    """A field of a dataclass that :func:`to_plain` leaves out while it holds its ``default``.

    For what is added to a format in use: files and hashes of before stay, and with them models that were trained.
    """
    return dataclasses.field(default=default, metadata={_ADDED: True})


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and NumPy scalars to what ``json`` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (_ADDED in field.metadata and getattr(value, field.name) == field.default)
        }
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
        name = _shown(unknown[0]).strip("'")
        raise SchemaError(_join(key, name), _unknown_key(unknown[0], sorted(fields)))
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
    if origin is Annotated:
        return _checked(_convert(hint.__origin__, value, key), hint.__metadata__, key)
    if origin in (Union, types.UnionType):
        return _convert_optional(hint, value, key)
    if origin is Literal:
        if value not in get_args(hint):
            raise SchemaError(key, f"expected one of {list(get_args(hint))}, found {_shown(value)}")
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
            f"expected {' or '.join(map(_expected, problems))}, found {_shown(value)}",
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
    if isinstance(value, int) and abs(value) > MOST_INT:
        raise SchemaError(
            key, f"expected a number of at most {MOST_INT}, found one of {value.bit_length()} bits"
        )
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):  # Python reads NaN and Infinity, which are no JSON and compare falsely
            raise SchemaError(key, f"expected a finite number, found {value}")
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return _convert_scalar(hint, int(value), key)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise SchemaError(key, f"expected {hint.__name__}, found {_shown(value)}")
    if isinstance(value, str) and len(value) > MOST_TEXT:
        raise SchemaError(key, f"expected at most {MOST_TEXT} characters, found {len(value)}")
    return value


def _checked(value: Any, rules: tuple[Rule, ...], key: str) -> Any:
    for rule in rules:
        problem = rule.problem(value)
        if problem is not None:
            raise SchemaError(key, problem)
    return value


def _shown(value: Any) -> str:
    """As Python writes it, and not more of it than a line holds."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)
