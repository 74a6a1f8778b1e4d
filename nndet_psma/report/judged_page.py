"""The report of a model that judges objects or cases: sections in their order, as one HTML text."""

from __future__ import annotations

from nndet_psma.report.judged_source import JudgedSource
from nndet_psma.report.page.content import Page
from nndet_psma.report.page.figures import own_style
from nndet_psma.report.page.page import render
from nndet_psma.report.sections.cost import training_section
from nndet_psma.report.sections.judged import (
    compared_section,
    curves_section,
    explained_section,
    judged_headline,
    judged_scores,
    objects_section,
)
from nndet_psma.report.sections.setup import data_section, plan_section, provenance_section
from nndet_psma.report.sections.shortcuts import shortcuts_section
from nndet_psma.report.texts import DISCLAIMER


@own_style()
def build_judged_page(source: JudgedSource) -> str:
    """The HTML page."""
    page = Page(
        f"Report: {source.task}",
        source.subtitle,
        DISCLAIMER,
        [
            *([] if source.shortcuts is None else [shortcuts_section(source.shortcuts)]),
            judged_headline(source),
            plan_section(source),
            data_section(source),
            training_section(source),
            judged_scores(source),
            curves_section(source),
            compared_section(source),
            objects_section(source),
            *([explained_section(source)] if source.shortcuts is not None else []),
            *(section(source) for section in source.own_sections),
            provenance_section(source),
        ],
        source.others,
    )
    return render(page)
