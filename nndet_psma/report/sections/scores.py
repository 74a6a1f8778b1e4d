"""Section on the scores: tables, FROC curve, hit rules, operating points."""

from __future__ import annotations

from nndet_psma.evaluation.detection.score_tables import MAP_KEY, PATIENT_KEY
from nndet_psma.evaluation.detection.scores import OPERATING_THRESHOLDS, OperatingRow, Scores
from nndet_psma.evaluation.statistics.bootstrap import Interval
from nndet_psma.report.charts.scores import froc_chart
from nndet_psma.report.page.content import Block, Folded, Missing, Note, Section, Table
from nndet_psma.report.sections.results import HEADLINE
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import (
    CHOSEN_ON,
    INTERVALS,
    hit_name,
    hit_rule,
    interval,
    is_class_score,
    number,
    percent,
    score_cells,
    score_meaning,
    score_name,
    score_text,
)


def scores_section(source: ReportSource) -> Section:
    """Table of scores, FROC curve, operating points."""
    scores = source.scores
    section = Section("scores", "Scores")
    section.blocks.append(
        Note(
            "A box counts as a hit when it overlaps a lesion with an IoU (shared volume by joint volume) of at least "
            "the value given. AP, FROC and AUC rank all candidates by score and need no threshold; sensitivity and "
            "precision judge the accepted boxes slice by slice, or as lesions in 3D. The "
            f"{percent(scores.level)} interval comes from drawing patients anew {scores.bootstrap_draws} times: "
            f"{INTERVALS[scores.intervals]}."
        )
    )
    section.blocks.extend(_accepted_table(scores))
    pooled = [key for key in scores.scores if not is_class_score(key)]
    section.blocks.append(_score_table(scores, _ordered(pooled), "Scores over all classes"))
    section.blocks.append(_meanings(pooled))
    by_class = [key for key in scores.scores if is_class_score(key)]
    if len(scores.classes) > 1:
        section.blocks.append(
            Folded("Scores of each class", [_score_table(scores, by_class, "Scores by class")])
        )
    chart = froc_chart(source.records, scores.froc_curves, scores.seed) if source.records else None
    section.blocks.append(chart or _no_froc(source))
    section.blocks.append(_other_hits(source))
    section.blocks.extend(_operating_table(scores))
    return section


def _accepted_table(scores: Scores) -> list[Block]:
    """What the tuned thresholds accept, by the meaning of a hit, and on which cases they were chosen."""
    accepted = scores.accepted
    if accepted is None:
        return [
            Missing("scores of the accepted lesions in 3D: scores.json does not tell; run nndet_eval again.")
        ]
    rows = []
    for key, rates in accepted.by_rule.items():
        values = (rates.sensitivity, rates.ppv, rates.f1, rates.fp_per_patient, rates.fp_per_case)
        found = f"{rates.tp} of {rates.tp + rates.fn}"
        rows.append([hit_name(key), found, *(score_text(value) for value in values)])
    header = (
        "A hit is",
        "Lesions found",
        "Sensitivity",
        "Precision (PPV)",
        "F1",
        "False alarms per patient",
        "False alarms per case",
    )
    where = CHOSEN_ON.get(accepted.chosen_on, accepted.chosen_on)
    source = f" ({accepted.source})" if accepted.source else ""
    return [Table("Accepted lesions in 3D", header, rows, [0]), Note(f"Thresholds: {where}{source}.")]


def _ordered(keys: list[str]) -> list[str]:
    first = [*HEADLINE, "paper_f1", "paper_auc", "paper_auc_accepted", PATIENT_KEY, MAP_KEY]
    return [key for key in first if key in keys] + [key for key in keys if key not in first]


def _score_table(scores: Scores, keys: list[str], caption: str) -> Table:
    rows = [[score_name(key), *score_cells(scores.scores[key])] for key in keys]
    header = ("Score", "Value", f"{percent(scores.level)} interval, or why undefined")
    strong = [index for index, key in enumerate(keys) if key in HEADLINE]
    return Table(caption, header, rows, strong)


def _meanings(keys: list[str]) -> Table:
    """One sentence for each kind of score."""
    sentences: dict[str, str] = {}
    for key in _ordered(keys):
        sentences.setdefault(score_meaning(key), score_name(key).partition(" at IoU")[0].partition(",")[0])
    rows = [[name, sentence] for sentence, name in sentences.items() if sentence]
    return Table("What the scores mean", ("Score", "In plain words"), rows)


def _other_hits(source: ReportSource) -> Block:
    """FROC score when a hit means something else than an overlap."""
    scores = source.scores
    if not scores.other_hits:
        return source.missing.get("strata") or Missing("other meanings of a hit: nothing was scored by them.")
    rows = []
    for key, score in scores.other_hits.items():
        name, meaning = hit_rule(key)
        rows.append([name, *score_cells(score), meaning])
    header = ("A hit is", "FROC score", f"{percent(scores.level)} interval", "In plain words")
    return Table(
        "Other meanings of a hit: small lesions are found although their boxes fit badly", header, rows
    )


def _no_froc(source: ReportSource) -> Block:
    if source.records:
        return Missing("the FROC curve: no scored case holds a lesion.")
    return source.missing["records"]


def _operating_table(scores: Scores) -> list[Block]:
    """Fixed thresholds in one table; what was chosen on the scored cases in another."""
    used = [row for row in scores.operating_points if row.point.tp + row.point.fp > 0]
    best = scores.best_f1
    if not used and best is None:
        return [Missing("operating points: no candidate scores 0.05 or more.")]
    blocks: list[Block] = []
    if used:
        rows = [_operating_row(f"{row.point.threshold:.2f}", row, scores) for row in used]
        caption = "Operating points at IoU 0.10: what one gets when every candidate from this score on counts"
        blocks += [Table(caption, _operating_header(scores), rows), Note(_fixed_thresholds(used))]
    if best is not None:
        row = _operating_row(f"{best.point.threshold:.3f} (best F1)", best, scores)
        caption = "Optimistic operating point: its threshold was chosen on the very cases that are scored"
        blocks.append(Table(caption, _operating_header(scores), [row]))
    return blocks


def _fixed_thresholds(used: list[OperatingRow]) -> str:
    text = "These thresholds are fixed and were chosen on no cases; votes do not count here."
    left_out = [t for t in OPERATING_THRESHOLDS if t not in {row.point.threshold for row in used}]
    return f"{text} No candidate scores {min(left_out):.2f} or more." if left_out else text


def _operating_header(scores: Scores) -> tuple[str, ...]:
    header: tuple[str, ...] = (
        "Score from",
        "Lesions found",
        "Sensitivity",
        "Precision (PPV)",
        "F1",
        "False alarms per patient",
    )
    return header if scores.num_cases == scores.num_patients else (*header, "False alarms per case")


def _operating_row(name: str, row: OperatingRow, scores: Scores) -> list[str]:
    point = row.point
    per_case = _cell(point.fp_per_case, row.fp_per_case, 1)
    same = scores.num_cases == scores.num_patients
    cells = [
        name,
        f"{point.tp} of {point.tp + point.fn}",
        _cell(point.sensitivity, row.sensitivity, 2),
        _cell(point.ppv, row.ppv, 2),
        _cell(point.f1, row.f1, 2),
        per_case if same else _cell(point.fp_per_patient, row.fp_per_patient, 1),
    ]
    return cells if same else [*cells, per_case]


def _cell(value: float | None, spread: Interval | None, digits: int) -> str:
    """A value with its interval; older files lack some intervals."""
    text = "–" if spread is None else interval(spread.low, spread.high, digits)
    return number(value, digits) + ("" if text == "–" else f" ({text})")
