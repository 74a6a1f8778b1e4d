"""Which lesions are found: scores by size, by distance to the CTV, by class and by station."""

from __future__ import annotations

from collections.abc import Sequence

from nndet_psma.evaluation.detection.strata import Stratum
from nndet_psma.report.charts.scores import strata_chart
from nndet_psma.report.page.content import Missing, Note, Section, Table
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import percent, score_text

GROUPS = {
    "short_axis_mm": "Short axis, mm",
    "outside_ctv_mm": "Distance outside the CTV, mm",
    "class": "Class",
    "station": "Station",
}
_RATE = "1"  # false positives per case that a column is for


def strata_section(source: ReportSource) -> Section:
    """A chart over all strata, and one table for each way to tell lesions apart."""
    section = Section("strata", "Which lesions are found")
    strata = source.scores.strata
    if not strata:
        section.blocks.append(_none(source))
        return section
    section.blocks.append(
        Note(
            "Lesions told apart by what they are. False alarms belong to no lesion: each row counts those of all cases "
            "(a class: those of the class). Rows of few lesions say little; look at their intervals."
        )
    )
    groups = by_group(strata)
    section.blocks.append(strata_chart(groups))
    for group, members in groups.items():
        section.blocks.append(_table(group, members, source.scores.level))
    absent = [name for name in ("Short axis, mm", "Distance outside the CTV, mm") if name not in groups]
    if absent:
        section.blocks.append(Note(f"Not known for these lesions: {'; '.join(absent)}."))
    return section


def by_group(strata: Sequence[Stratum]) -> dict[str, list[Stratum]]:
    """Strata by the name of their group, in a fixed order; unknown groups come last."""
    order = [*GROUPS, *(s.group for s in strata if s.group not in GROUPS)]
    groups: dict[str, list[Stratum]] = {}
    for key in dict.fromkeys(order):
        members = [stratum for stratum in strata if stratum.group == key]
        if members:
            groups[GROUPS.get(key, key)] = members
    return groups


def _none(source: ReportSource) -> Missing:
    if source.scores.num_lesions == 0:
        return Missing("scores by kind of lesion: no scored case holds a lesion.")
    return source.missing.get("strata") or Missing(
        "scores by kind of lesion: nothing is known of the lesions."
    )


def _table(group: str, members: Sequence[Stratum], level: float) -> Table:
    rows = [
        [
            stratum.name,
            str(stratum.lesions),
            score_text(stratum.paper_sensitivity),
            score_text(stratum.sensitivity_at_fp.get(_RATE)),
            score_text(stratum.froc),
            f"{stratum.found} of {stratum.lesions}",
        ]
        for stratum in members
    ]
    header = (
        group,
        "Lesions",
        "Hit by an accepted box",
        "Found at 1 false alarm per case",
        "FROC score",
        "Found at any score",
    )
    caption = f"By {group[0].lower()}{group[1:]}, with {percent(level)} intervals"
    return Table(caption, header, rows)
