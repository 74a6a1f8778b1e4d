"""A configuration as commented YAML: every key, its value, and what the docstring of its dataclass says of it."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

_WIDTH = 110
_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n(?:        .*|)(?!\n?\w))*)", re.MULTILINE)


def config_text(config: Any) -> str:
    """The configuration, each key under a comment that explains it."""
    return "\n".join(_lines(config, "")) + "\n"


def attribute_texts(kind: type[Any]) -> dict[str, str]:
    """What the section ``Attributes`` of a class and its bases says of each attribute, on one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        documentation = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, _, section = documentation.partition("Attributes:\n")
        for name, text in _ATTRIBUTE.findall(section):
            found[name] = " ".join(text.split())
    return found


def _lines(part: Any, indent: str) -> Iterator[str]:
    texts = attribute_texts(type(part))
    for each in dataclasses.fields(part):
        value = getattr(part, each.name)
        for line in textwrap.wrap(texts.get(each.name, ""), _WIDTH - len(indent)):
            yield f"{indent}# {line}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield f"{indent}{each.name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{each.name}: {_value(value)}"


def _value(value: Any) -> str:
    from nndet_psma.core.schema import to_plain

    text: str = yaml.safe_dump(to_plain(value), default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()
