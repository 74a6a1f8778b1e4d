"""Figures of a fingerprint as PNG files: what was measured, and what the plan makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.core.atomic import atomic_file
from nndet_psma.report.charts.analysis import (
    hu_figure,
    image_size_figure,
    lesion_size_figure,
    margin_figure,
    slice_size_figure,
    spacing_figure,
)
from nndet_psma.report.page.figures import own_style
from nndet_psma.systems.system import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURES: dict[str, Callable[[Fingerprint, Facts | None], Figure | None]] = {
    "spacing.png": spacing_figure,
    "image_sizes.png": image_size_figure,
    "lesion_sizes.png": lesion_size_figure,
    "lesion_slices.png": slice_size_figure,
    "hu_histograms.png": hu_figure,
    "margin_coverage.png": margin_figure,
}


@own_style()
def draw_analysis(fingerprint: Fingerprint, facts: Facts | None, folder: Path) -> list[Path]:
    """Draw every figure that the data allow into ``folder``.

    Figures without data (HU without CT, margins without CTV, sizes without lesions) are left out, and a file of that
    name from an earlier run is removed.

    Args:
        fingerprint: of the training cases.
        facts: of the plan, whose spacing, windows and margin are marked; None marks nothing.
        folder: where the files go; made when missing.

    Returns:
        the files, in a fixed order.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    files = []
    for name, draw in _FIGURES.items():
        file = folder / name
        figure = draw(fingerprint, facts)
        if figure is None:
            file.unlink(missing_ok=True)
            continue
        with atomic_file(file) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
        files.append(file)
    return files
