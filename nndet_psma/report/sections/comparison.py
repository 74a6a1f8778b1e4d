"""This model against others on the same cases: paired differences."""

from __future__ import annotations

from nndet_psma.evaluation.detection.compare import Comparison, Difference, PatientTest
from nndet_psma.evaluation.detection.score_tables import MAP_KEY, PATIENT_KEY, ap_key, froc_key
from nndet_psma.evaluation.statistics.resampling import FEWEST_PATIENTS
from nndet_psma.report.charts.scores import difference_chart
from nndet_psma.report.page.content import Block, Folded, Note, Section, Table
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import count, is_class_score, number, percent, score_name

MAIN = (
    "accepted_sensitivity",
    "accepted_ppv",
    "accepted_f1",
    ap_key(0.1),
    froc_key(0.1),
    "paper_sensitivity",
    "paper_precision",
    "paper_f1",
    "paper_auc",
    PATIENT_KEY,
    MAP_KEY,
)


def comparison_section(source: ReportSource) -> Section:
    """One chart and table for each model that was compared."""
    section = Section("comparison", "Against another model")
    if "comparison" in source.missing:
        section.blocks.append(source.missing["comparison"])
    for comparison in source.comparisons:
        section.blocks.extend(_blocks(comparison))
    return section


def _blocks(comparison: Comparison) -> list[Block]:
    keys = [key for key in MAIN if key in comparison.scores]
    rest = [key for key in comparison.scores if key not in keys and not is_class_score(key)]
    text = (
        f"{comparison.first} minus {comparison.second} on the same {count(comparison.num_cases, 'case')} of "
        f"{count(comparison.num_patients, 'patient')}: above 0 this model is better. Every draw takes the same "
        f"patients for both, so that hard patients cancel out. {_multiplicity(comparison, keys)}"
    )
    blocks: list[Block] = [Note(text)]
    chart = difference_chart({key: comparison.scores[key] for key in keys}, comparison.level)
    if chart is not None:
        blocks.append(chart)
    blocks.append(_table(comparison, keys, f"{comparison.first} minus {comparison.second}"))
    if rest:
        blocks.append(Folded("Differences of the other scores", [_table(comparison, rest, "Other scores")]))
    if comparison.patients is not None:
        blocks.append(Note(_patients(comparison, comparison.patients)))
    return blocks


def _multiplicity(comparison: Comparison, keys: list[str]) -> str:
    tested = sum(comparison.scores[key].p is not None for key in keys)
    if tested == 0:
        return f"No p-values: they would mean nothing with fewer than {FEWEST_PATIENTS} patients."
    return (
        f"p-values are not corrected: with the {tested} scores of the first table, Bonferroni's limit for 0.05 is "
        f"{0.05 / tested:.4f}."
    )


def _table(comparison: Comparison, keys: list[str], caption: str) -> Table:
    rows = [[score_name(key), *_cells(comparison.scores[key])] for key in keys]
    header = ("Score", "This", "Other", "Difference", f"{percent(comparison.level)} interval", "p")
    return Table(f"{caption} (other: {comparison.second})", header, rows)


def _cells(each: Difference) -> list[str]:
    low, high = each.ci_low, each.ci_high
    return [
        number(each.first),
        number(each.second),
        _signed(each.difference),
        "–" if low is None or high is None else f"{_signed(low)} to {_signed(high)}",
        number(each.p),
    ]


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _patients(comparison: Comparison, test: PatientTest) -> str:
    return (
        f"Patients called rightly with or without lesions: by both {test.both_right}, only by {comparison.first} "
        f"{test.only_first}, only by {comparison.second} {test.only_second}, by neither {test.both_wrong} "
        + (f"(McNemar p {test.p:.3f})." if test.p is not None else "(too few for a test).")
    )
