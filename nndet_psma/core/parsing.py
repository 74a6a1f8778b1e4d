"""JSON and YAML from anywhere, parsed within limits: what is too large, too deep or without end is refused as a fault
of the file, not met as a full memory or a full stack.
"""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

MAX_BYTES = 256 << 20
"""A thousand times the largest file of ours, the fingerprint of a large data set."""
MAX_DEPTH = 60
"""Our deepest file has 8 levels; Python's stack ends at some 500 of what walks through them."""
MAX_PARTS = 2_000_000
"""Lists and mappings on one level. YAML can name one many times, so that a few lines stand for millions."""


def read_text(file: Path) -> str:
    """The text of a file (UTF-8) that is small enough to parse.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is too large, or no text.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes, which is too large: at most {MAX_BYTES}")
    return file.read_text(encoding="utf-8-sig")  # editors of Windows write a mark first


def parse_json(text: str | bytes) -> Any:
    """The value that JSON stands for.

    Raises:
        ValueError: it is not JSON (names line and column), is nested too deeply, or has numbers of thousands of digits.
    """
    try:
        return _bounded(json.loads(text))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value that YAML stands for; plain values only, no objects.

    Raises:
        ValueError: it is not such YAML, is nested too deeply, or unfolds to too much.
    """
    import yaml  # comes with omegaconf, hydra's configuration library

    try:
        return _bounded(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _bounded(content: Any) -> Any:
    """``content``, walked through level by level."""
    level = [content]
    for _ in range(MAX_DEPTH):
        items = chain.from_iterable(
            part.values() if isinstance(part, dict) else part
            for part in level
            if isinstance(part, dict | list)
        )
        level = list(islice((item for item in items if isinstance(item, dict | list)), MAX_PARTS + 1))
        if not level:
            return content
        if len(level) > MAX_PARTS:
            raise ValueError("unfolds to too many lists and mappings")
    raise ValueError(f"nested too deeply: at most {MAX_DEPTH} levels")
