"""What reaches the screen: text of files and names cannot give the terminal orders.

File names, ROI names and texts of archives may hold escape sequences (which move the cursor, set the clipboard, hide
lines) and bytes that are not UTF-8. Every command prints through :func:`shown_safely`, which writes them out as
``\\x1b``; tables and bars of rich, whose own sequences must pass, through :func:`safe_console`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console

# control characters but tab and line feed, marks that turn the direction of text, separators of lines, lone surrogates
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with what a terminal would obey, or cannot show, written out (``\\x1b``)."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_quiet = False


def is_quiet() -> bool:
    """Whether the user asked for no progress on the screen (``-q``)."""
    return _quiet


@contextmanager
def verbosity(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Within the block progress is hidden (``quiet``), or the lines of the log files are shown, too (``verbose``)."""
    global _quiet
    before, _quiet = _quiet, quiet
    logger, handler = logging.getLogger("nndet_psma"), logging.StreamHandler(sys.stderr)
    level = logger.level
    if verbose:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        _quiet = before


@contextmanager
def shown_safely() -> Iterator[None]:
    """Within the block standard output and error take :func:`printable` text only."""
    out, error = _Screen(sys.stdout), _Screen(sys.stderr)
    with redirect_stdout(cast(IO[str], out)), redirect_stderr(cast(IO[str], error)):
        yield


def safe_console(stream: IO[str], **options: Any) -> Console:
    """A console of rich whose texts are printable and whose own colours and moves pass.

    Args:
        stream: where to.
        options: of rich's class.
    """
    from rich.console import Console
    from rich.text import Text

    class _SafeConsole(Console):
        def render_str(self, text: str, **settings: Any) -> Text:
            return super().render_str(printable(text), **settings)

        def on_broken_pipe(self) -> None:
            # rich would end the whole program here
            raise BrokenPipeError

    return _SafeConsole(file=stream.bare if isinstance(stream, _Screen) else stream, **options)


class _Screen:
    """A stream that takes printable text only; everything else about it is that of the stream itself."""

    def __init__(self, bare: IO[str]) -> None:
        self.bare: IO[str] = bare.bare if isinstance(bare, _Screen) else bare

    def write(self, text: str) -> int:
        self.bare.write(printable(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)
