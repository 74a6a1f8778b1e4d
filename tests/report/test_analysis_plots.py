"""Figures of a fingerprint: which are drawn, what is marked in them, no identifiers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import FINGERPRINT, LESION, PLAN

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint, Histogram
from nndet_psma.core.errors import UserError
from nndet_psma.report import analysis
from nndet_psma.report.analysis import draw_analysis
from nndet_psma.report.charts.analysis import (
    hu_figure,
    image_size_figure,
    lesion_size_figure,
    margin_figure,
    slice_size_figure,
    spacing_figure,
)
from nndet_psma.systems.system import system_of

ALL = [
    "spacing.png", "image_sizes.png", "lesion_sizes.png", "lesion_slices.png", "hu_histograms.png",
    "margin_coverage.png",
]  # fmt: skip

FACTS = system_of(PLAN).facts(PLAN)


def data_set(cases: int = 4, lesions: int = 3) -> Fingerprint:
    made: list[CaseFingerprint] = []
    for i in range(cases):
        found = [
            replace(LESION, instance=n + 1, short_axis_mm=4.0 + n + i, outside_ctv_mm=3.0 * n)
            for n in range(lesions)
        ]
        made.append(
            replace(
                FINGERPRINT.cases[0],
                case_id=f"SECRET_{i}",
                patient_id=f"SECRET_{i}",
                spacing=(3.0 + i, 1.0, 1.0),
                ctv_box=(0.0, 1.0, 1.0, 3.0, 4.0, 5.0),
                lesions=found,
                lesion_hu=Histogram(20, [5, 5]) if found else Histogram(),
                region_hu=Histogram(-100, [9]),
            )
        )
    return replace(FINGERPRINT, cases=made)


def texts(figure) -> list[str]:
    import matplotlib.text

    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def lines_at(axes) -> list[float]:
    """Positions of the vertical marks."""
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "--"]


def test_every_figure_is_written_as_a_png(tmp_path: Path):
    files = draw_analysis(data_set(), FACTS, tmp_path / "analysis")
    assert [file.name for file in files] == ALL
    assert sorted(file.name for file in (tmp_path / "analysis").iterdir()) == sorted(ALL)
    for file in files:
        content = file.read_bytes()
        assert content.startswith(b"\x89PNG")
        width = int.from_bytes(content[16:20], "big")
        assert width == 960
        assert b"SECRET" not in content


def test_what_has_no_data_is_left_out_and_an_old_figure_goes(tmp_path: Path):
    draw_analysis(data_set(), None, tmp_path)
    files = draw_analysis(data_set(lesions=0), None, tmp_path)
    assert [file.name for file in files] == ALL[:2]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(ALL[:2])


def test_a_single_case_with_one_lesion_is_drawn_with_and_without_plan(tmp_path: Path):
    one = data_set(cases=1, lesions=1)
    assert len(draw_analysis(one, None, tmp_path)) == len(draw_analysis(one, FACTS, tmp_path)) == len(ALL)


def test_the_plan_is_marked():
    made = data_set()
    assert lines_at(margin_figure(made, FACTS).axes[0]) == [PLAN.margin_mm]
    assert [lines_at(axes) for axes in spacing_figure(made, FACTS).axes] == [
        [PLAN.spacing[0]],
        [PLAN.spacing[2]],
    ]
    bars = hu_figure(made, FACTS).axes[0].patches
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars] == [
        (window.lower, window.upper) for window in PLAN.windows
    ]
    for draw in (margin_figure, spacing_figure):
        assert all(not lines_at(axes) for axes in draw(made, None).axes)
    assert len(hu_figure(made, None).axes) == 1


def test_margin_coverage_by_hand():
    """Four cases with lesions 0, 3 and 6 mm outside: a third, two thirds, all."""
    axes = margin_figure(data_set(), FACTS).axes[0]
    x, y = axes.lines[0].get_data()
    assert np.interp([0.0, 3.0, 6.0], x, y, left=0) == pytest.approx([100 / 3, 200 / 3, 100])
    assert "planned 6.48 mm: 100.0 %" in texts(axes)


@pytest.mark.parametrize(
    "draw",
    [spacing_figure, image_size_figure, lesion_size_figure, slice_size_figure, hu_figure, margin_figure],
)
def test_axes_name_units_and_titles_name_nobody(draw):
    figure = draw(data_set(), FACTS)
    assert not any("SECRET" in text for text in texts(figure))
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert labels
    assert all(any(unit in label for unit in ("mm", "ml", "HU", "slices")) for label in labels)


def test_a_lesion_of_many_slices_and_a_wide_range_of_volumes():
    long = [
        replace(LESION, slices=60 + n, volume_mm3=10.0 ** (n + 1), slice_sizes_mm=[(2.0, 3.0)] * 500)
        for n in range(5)
    ]
    made = replace(FINGERPRINT, cases=[replace(FINGERPRINT.cases[0], lesions=long)])
    right = lesion_size_figure(made, None).axes[1]
    assert sum(patch.get_height() for patch in right.patches) == 5
    assert slice_size_figure(made, FACTS) is not None


def test_no_half_written_figure_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def savefig(self, file: Path, **_: object) -> None:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(analysis._FIGURES, "spacing.png", lambda *_: Broken())
    with pytest.raises(UserError, match="the disk is full"):
        draw_analysis(data_set(), None, tmp_path)
    assert list(tmp_path.iterdir()) == []
