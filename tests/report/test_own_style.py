"""Figures look the same whatever another package has done to matplotlib's defaults."""

from __future__ import annotations

import matplotlib
from artifact_samples import FINGERPRINT, PLAN

from nndet_psma.report.analysis import draw_analysis
from nndet_psma.systems.system import system_of

FACTS = system_of(PLAN).facts(PLAN)


def test_defaults_of_others_do_not_reach_our_figures(tmp_path):
    first = [file.read_bytes() for file in draw_analysis(FINGERPRINT, FACTS, tmp_path / "a")]
    with matplotlib.rc_context({"axes.facecolor": "#ff0000", "lines.linewidth": 9.0, "font.size": 30.0}):
        second = [file.read_bytes() for file in draw_analysis(FINGERPRINT, FACTS, tmp_path / "b")]
        assert matplotlib.rcParams["font.size"] == 30.0  # and theirs stay as they were
    assert first
    assert first == second
