"""The report as a whole: sections in their order, as one HTML text."""

from __future__ import annotations

from dataclasses import replace

from nndet_psma.core.errors import UserError
from nndet_psma.report.content import Missing, Page
from nndet_psma.report.gallery import CasePictures, picture_cases
from nndet_psma.report.page import render
from nndet_psma.report.result_sections import (
    ablation_section,
    cases_section,
    headline_section,
    scores_section,
    sweep_section,
)
from nndet_psma.report.setup_sections import (
    data_section,
    plan_section,
    provenance_section,
    training_section,
)
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import DISCLAIMER


def build_report(source: ReportSource, max_cases: int) -> str:
    """The HTML page.

    Args:
        source: everything that was read.
        max_cases: cases shown in pictures (the worst misses and false alarms come on top).
    """
    source, pictures = _pictures(source, max_cases)
    fold = "consolidated model" if source.fold < 0 else f"fold {source.fold}"
    page = Page(
        f"Detection report: {source.task}",
        f"{source.model}, {fold}, {source.split} predictions. Written {source.date}.",
        DISCLAIMER,
        [
            headline_section(source, pictures),
            plan_section(source),
            data_section(source),
            training_section(source),
            scores_section(source),
            ablation_section(source),
            sweep_section(source),
            cases_section(source, pictures),
            provenance_section(source),
        ],
    )
    return render(page)


def _pictures(source: ReportSource, max_cases: int) -> tuple[ReportSource, CasePictures | None]:
    """Pictures, or the reason that there are none put into ``source.missing``: a page without them is of use, too."""
    if source.raw is None:
        return source, None
    if not source.predictions:
        what = Missing("pictures: the predicted boxes of the cases are not there.")
    else:
        try:
            return source, picture_cases(source, source.raw, max_cases)
        except UserError as error:
            what = Missing(f"pictures: {error}")
    return replace(source, missing={**source.missing, "raw": what}), None
