"""How the thresholds were chosen, and how optimistic their value is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nndet_psma.postproc.sweep.result import LESIONS
from nndet_psma.report.charts.landscape import (
    hu_landscape,
    is_joint,
    overlap_landscape,
    voting_landscape,
    zone_values,
)
from nndet_psma.report.charts.scores import filter_chart, landscape_chart
from nndet_psma.report.page.content import Block, Folded, Missing, Note, Section, Table
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import THRESHOLDS, count, criterion_name, number

_METRICS = ("sensitivity", "precision", "f1", "fp_per_case")
_SEARCHES = {
    "two_phase": "first the filters for each window alone, then the vote",
    "coarse": "from a coarse grid to a fine one",
    "optuna": "sampled by Optuna",
}


def sweep_section(source: ReportSource) -> Section:
    """Plain and nested value, landscapes, rule of ties."""
    section = Section("sweep", "How the thresholds were chosen")
    if source.sweep is None:
        section.blocks.append(source.missing["sweep"])
        return section
    sweep = source.sweep
    text = (
        f"{sweep['num_settings']:,} settings were tried on {count(sweep['num_cases'], 'validation case')} with "
        f"{count(sweep['num_lesions'], 'lesion')} ({_search(sweep)}); the one with the best "
        f"{criterion_name(sweep['criterion'], lesions=_of_lesions(sweep))} was taken."
    )
    section.blocks.append(Note(text))
    section.blocks.extend(_honesty(sweep))
    if source.inference is not None and source.inference.cases:
        cases = Note(", ".join(source.inference.cases))
        section.blocks.append(Folded("The cases they were tuned on", [cases]))
    section.blocks.append(
        Note(
            "The landscapes show values on the very cases the setting was chosen on: they are optimistic. A broad "
            "bright area is a good sign, a lone bright cell may be luck."
        )
    )
    section.blocks.extend(_landscapes(sweep))
    section.blocks.append(Note(f"Ties: {sweep['tie_rule']}."))
    return section


def _of_lesions(sweep: Mapping[str, Any]) -> bool:
    """Whether lesions in 3D were counted, not slice boxes."""
    return bool(sweep.get("judged") == LESIONS)


def _search(sweep: Mapping[str, Any]) -> str:
    search = str(sweep.get("search", ""))
    if search == "joint" or (not search and is_joint(sweep)):
        return "all thresholds together, every combination"
    return _SEARCHES.get(search, search or _SEARCHES["two_phase"])


def _honesty(sweep: Mapping[str, Any]) -> list[Block]:
    """The plain value beside the nested one, or why there is none."""
    if "nested" not in sweep:
        return [Missing("the nested value (tuned on the other patients): this sweep was made without it.")]
    nested = sweep["nested"]
    if nested is None:
        why = "the nested value: the cases could not be parted by patients, or the sweep was told not to."
        return [Missing(why)]
    blocks: list[Block] = [_honest_table(sweep, nested), Note(_honest_text(nested))]
    settings = _group_table(nested, sweep["best"])
    if settings is not None:
        blocks.append(Folded("What was chosen when each group was held out", [settings]))
    return blocks


def _honest_table(sweep: Mapping[str, Any], nested: Mapping[str, Any]) -> Table:
    goal = criterion_name(sweep["criterion"], short=True)
    rows = []
    for name, found in (
        ("Plain", sweep["best"]),
        ("Nested", nested),
    ):
        rows.append([name, number(found.get("value")), *(number(found.get(key)) for key in _METRICS)])
    false = "False lesions per case" if _of_lesions(sweep) else "False alarms per case"
    header = ("How", f"Tuned for: {goal}", "Sensitivity", "Precision", "F1", false)
    return Table(
        "Plain: tuned and scored on the same cases. Nested: each group scored with thresholds tuned on the others",
        header,
        rows,
        [1],
    )


def _honest_text(nested: Mapping[str, Any]) -> str:
    groups = nested.get("groups", [])
    text = f"{count(len(groups), 'group')} of cases were held out in turn, no patient in two."
    optimism = nested.get("optimism")
    if optimism is None:
        return text
    if optimism < 0:
        return f"{text} The nested value is even better, by {-optimism:.3f}; that is chance."
    return f"{text} The plain value is optimistic by {optimism:.3f}."


def _group_table(nested: Mapping[str, Any], best: Mapping[str, Any]) -> Table | None:
    """Thresholds of each group beside those of all; thresholds that never differ are left out."""
    settings: Sequence[Mapping[str, Any]] = nested.get("settings", [])
    names = [
        name
        for name in THRESHOLDS
        if name in best and any(each.get(name) != best[name] for each in settings) and name != "hit_iou"
    ]
    if not names:
        return None
    rows = [["all groups", *(_setting(best[name]) for name in names)]]
    for index, each in enumerate(settings):
        rows.append([f"without group {index + 1}", *(_setting(each.get(name)) for name in names)])
    header = ("Tuned on", *(THRESHOLDS[name][0] for name in names))
    return Table(
        "Thresholds that differ: the more they jump, the less they can be trusted", header, rows, [0]
    )


def _setting(value: Any) -> str:
    return "off" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _landscapes(sweep: Mapping[str, Any]) -> list[Block]:
    name = criterion_name(sweep["criterion"], short=True)
    voting, hu, overlaps = voting_landscape(sweep), hu_landscape(sweep), overlap_landscape(sweep)
    alone = Missing("the landscape of the vote: one window alone has nothing to vote with.")
    blocks: list[Block] = [landscape_chart(overlaps, name)] if overlaps else []
    if voting or not overlaps:
        blocks.append(landscape_chart(voting, name) if voting else alone)
    blocks.append(
        landscape_chart(hu, name) if hu else Missing("the landscape of the HU filter: it was not tried.")
    )
    zones, chosen = zone_values(sweep)
    if len(zones) > 1:
        blocks.append(filter_chart(zones, chosen, name, joint=is_joint(sweep)))
    else:
        blocks.append(Note("The zone filter was not tuned: there is no search region to measure from."))
    return blocks
