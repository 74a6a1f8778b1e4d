"""One look for all figures, and the way from a figure to a data URI.

Figures are drawn on :class:`matplotlib.figure.Figure` objects; pyplot and its global state are not used. They are 960
pixels wide with letters that stay readable when a phone shrinks them to 360.
"""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nndet_psma.report.page.content import Picture

Place = Literal["best", "upper left", "upper right", "lower left", "lower right"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9660a", "#1d7f4e", "#7a828c"
CYCLE = (BLUE, ORANGE, GREEN, "#8a4fb0", "#b8860b", "#0f8b8d", "#b0305c", "#555555")
LETTERS = 12  # points
_WIDTH_INCHES = 6.0
_DPI = 160


@contextmanager
def own_style() -> Iterator[None]:
    """matplotlib's own defaults for a while: other packages (nnU-Net's logger) change those of the whole process."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(
    height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure ``height`` inches high with ``rows`` x ``columns`` axes, row by row; ``heights`` are their shares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI, layout="constrained", facecolor="white")
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    return figure, list(grid.ravel())


def finish(axes: Axes, x: str, y: str, title: str = "", *, grid: bool = True) -> None:
    """Labels (with units), letters, and no frame where none is needed."""
    axes.set_xlabel(x, fontsize=LETTERS)
    axes.set_ylabel(y, fontsize=LETTERS)
    axes.tick_params(labelsize=LETTERS - 1.5)
    if title:
        axes.set_title(title, fontsize=LETTERS, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(color="#e3e6ea", linewidth=0.8)
        axes.set_axisbelow(True)


def whole_numbers(axes: Axes, which: str) -> None:
    """Ticks at whole numbers only, on the axes named in ``which`` ("x", "y" or "xy")."""
    from matplotlib.ticker import MaxNLocator

    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def legend(axes: Axes, place: Place = "best", columns: int = 1) -> None:
    """A legend without frame, in the letters of the axes."""
    axes.legend(loc=place, fontsize=LETTERS - 2, frameon=False, ncols=columns)


def png(figure: Figure, alt: str, caption: str = "") -> Picture:
    """The figure as an embedded PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return Picture(_uri("png", buffer), _pixels(figure, _DPI), alt, caption)


def jpeg(figure: Figure, dpi: int, alt: str, caption: str = "") -> Picture:
    """The figure as an embedded JPEG: for photographs, which a CT slice is."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, pil_kwargs={"quality": 84, "optimize": True})
    return Picture(_uri("jpeg", buffer), _pixels(figure, dpi), alt, caption)


def picture_of(file: Path, alt: str) -> Picture:
    """A PNG that is there already."""
    content = file.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the first chunk, IHDR
    return Picture(_uri("png", io.BytesIO(content)), (width, height), alt)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _pixels(figure: Figure, dpi: int) -> tuple[int, int]:
    width, height = figure.get_size_inches()
    return round(width * dpi), round(height * dpi)
