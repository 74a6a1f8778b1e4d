"""The report as a whole: sections in their order, as one HTML text."""

from __future__ import annotations

from dataclasses import replace

from nndet_psma.core.errors import UserError
from nndet_psma.report.page.content import Missing, Page
from nndet_psma.report.page.figures import own_style
from nndet_psma.report.page.page import render
from nndet_psma.report.sections.comparison import comparison_section
from nndet_psma.report.sections.cost import training_section
from nndet_psma.report.sections.gallery import EXTREMES, CasePictures, picture_cases
from nndet_psma.report.sections.results import (
    ablation_section,
    cases_section,
    extremes_section,
    headline_section,
)
from nndet_psma.report.sections.scores import scores_section
from nndet_psma.report.sections.setup import data_section, plan_section, provenance_section
from nndet_psma.report.sections.strata import strata_section
from nndet_psma.report.sections.sweep import sweep_section
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import DISCLAIMER


@own_style()
def build_report(source: ReportSource, max_cases: int, worst: int = EXTREMES) -> str:
    """The HTML page.

    Args:
        source: everything that was read.
        max_cases: cases shown in pictures.
        worst: missed lesions shown on top, and as many false alarms.
    """
    source, pictures = _pictures(source, max_cases, worst)
    page = Page(
        f"Detection report: {source.task}",
        source.subtitle,
        DISCLAIMER,
        [
            headline_section(source, pictures),
            plan_section(source),
            data_section(source),
            training_section(source),
            scores_section(source),
            strata_section(source),
            comparison_section(source),
            ablation_section(source),
            sweep_section(source),
            cases_section(source, pictures),
            extremes_section(source, pictures),
            *(section(source) for section in source.own_sections),
            provenance_section(source),
        ],
        source.others,
    )
    return render(page)


def _pictures(source: ReportSource, max_cases: int, worst: int) -> tuple[ReportSource, CasePictures | None]:
    """Pictures, or the reason that there are none put into ``source.missing``: a page without them is of use, too."""
    if source.raw is None:
        return source, None
    if not source.predictions:
        what = Missing("pictures: the predicted boxes of the cases are not there.")
    else:
        try:
            return source, picture_cases(source, source.raw, max_cases, worst)
        except UserError as error:
            what = Missing(f"pictures: {error}")
    return replace(source, missing={**source.missing, "raw": what}), None
