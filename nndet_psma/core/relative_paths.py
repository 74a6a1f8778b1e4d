"""Texts that are handed on: paths in them begin at the task, for folders above it may name a user or a patient."""

from __future__ import annotations

import re
from pathlib import Path


def relative_text(text: str, *folders: Path) -> str:
    """``text`` with every path at or below one of ``folders`` relative to it; ``.`` for the folder itself.

    Args:
        text: a message.
        folders: absolute; an inner one before its parent.
    """
    for folder in (spelled for one in folders for spelled in (one, one.resolve())):
        text = re.sub(rf"{re.escape(str(folder))}(/|(?![\w-]|\.\w))", lambda end: "" if end[1] else ".", text)
    return text
