"""Measured against reference sizes as one HTML page of correlation and Bland-Altman plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nndet_psma.evaluation.statistics.bland_altman import LimitsOfAgreement, bland_altman
from nndet_psma.evaluation.statistics.pearson import Correlation, pearson
from nndet_psma.report.page.content import Block, Note, Page, Section, Table
from nndet_psma.report.page.figures import own_style
from nndet_psma.report.page.page import render
from nndet_psma.report.structured.agreement_charts import agreement_chart
from nndet_psma.report.texts import DISCLAIMER, interval, number

Columns = tuple[Sequence[float], Sequence[float]]
_TITLES = {"all": "All nodes", "suspicious": "Suspicious nodes", "largest": "Largest nodes"}


@own_style()
def agreement_page(
    groups: Mapping[str, Mapping[str, Columns]], quantities: Mapping[str, tuple[str, str]]
) -> str:
    """The page as HTML.

    Args:
        groups: by group and quantity the paired values (automated ``[N]``, manual ``[N]``).
        quantities: by key (title, unit).
    """
    sections = []
    for group, columns in groups.items():
        blocks: list[Block] = []
        for key, (title, unit) in quantities.items():
            blocks += _quantity(columns[key], title, unit)
        sections.append(Section(group, _TITLES.get(group, group), blocks))
    subtitle = "Automated against manual sizes of the same nodes; a pair shares most voxels, one to one."
    return render(Page("Agreement of node sizes", subtitle, DISCLAIMER, sections))


def _quantity(columns: Columns, title: str, unit: str) -> list[Block]:
    chart = agreement_chart(*columns, title, unit)
    if chart is None:
        return [Note(f"{title}: no node of this group is found on both sides.")]
    correlation, limits = pearson(*columns), bland_altman(*columns)
    return [chart, Table(f"{title}, {unit}", ["What", "Value", "95 % interval"], _rows(correlation, limits))]


def _rows(correlation: Correlation, limits: LimitsOfAgreement) -> list[list[str]]:
    bias, lower, upper = (
        "–" if pair is None else interval(pair[0], pair[1], 2)
        for pair in (limits.bias_ci, limits.lower_ci, limits.upper_ci)
    )
    return [
        ["Pearson r", number(correlation.r), interval(correlation.ci_low, correlation.ci_high)],
        ["Bias, automated - manual", number(limits.bias, 2), bias],
        ["Lower limit of agreement", number(limits.lower, 2), lower],
        ["Upper limit of agreement", number(limits.upper, 2), upper],
        ["Share of pairs inside the limits", number(limits.inside), "–"],
        ["p of the paired t-test of no bias", number(limits.p), "–"],
    ]
