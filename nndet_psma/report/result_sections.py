"""Sections on the results: headline, scores, ablation, sweep, cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nndet_psma.evaluation.score_tables import MAP_KEY, PATIENT_KEY, ap_key, froc_key
from nndet_psma.evaluation.scores import OPERATING_THRESHOLDS, OperatingRow, Scores
from nndet_psma.inference.ablation import COLUMNS, AblationRow
from nndet_psma.report.content import Block, Folded, Gallery, Missing, Note, Section, Table, Tile, Tiles
from nndet_psma.report.findings import count_case
from nndet_psma.report.gallery import CasePictures
from nndet_psma.report.landscape import hu_landscape, voting_landscape, zone_values
from nndet_psma.report.score_charts import ablation_chart, filter_chart, froc_chart, landscape_chart
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import (
    count,
    interval,
    is_class_score,
    number,
    percent,
    score_cells,
    score_meaning,
    score_name,
)

HEADLINE = (ap_key(0.1), froc_key(0.1), "paper_sensitivity", "paper_precision")
CRITERIA = {
    "f1": "F1 (slice precision and lesion sensitivity)",
    "sensitivity": "lesion sensitivity",
    "precision": "slice precision",
}


def headline_section(source: ReportSource, pictures: CasePictures | None) -> Section:
    """Counts, the four numbers, warnings, one example."""
    scores = source.scores
    section = Section("headline", "In short")
    which = "test cases" if source.split == "test" else "validation cases"
    text = (
        f"Scored on {scores.num_cases} {which} of {count(scores.num_patients, 'patient')} with "
        f"{count(scores.num_lesions, 'lesion')}. Below each number its {percent(scores.level)} interval over patients."
    )
    section.blocks.append(Note(text))
    section.blocks.append(Tiles([_tile(scores, key) for key in HEADLINE if key in scores.scores]))
    section.blocks.extend(_warnings(source))
    if pictures is not None and pictures.example is not None:
        heading = {
            "hit": "One example: the most confident correct finding (not a typical one)",
            "miss": "One example: the largest lesion that was missed (nothing was found)",
        }.get(pictures.example.verdict, "One example: the most confident false alarm (nothing was found)")
        section.blocks.append(Gallery(heading, [pictures.example], legend=True))
    return section


def _tile(scores: Scores, key: str) -> Tile:
    score = scores.scores[key]
    value, spread = score_cells(score)
    text = spread if score.value is None or score.ci_low is None else f"{percent(scores.level)}: {spread}"
    return Tile(score_name(key), value, text, score_meaning(key))


def _warnings(source: ReportSource) -> list[Block]:
    texts = []
    if source.tuned_on_these:
        texts.append(
            "The thresholds were chosen on cases that are scored here, so these scores are optimistic. "
            "Scores of test cases are not."
        )
    if source.scores.num_patients < 10:
        texts.append(
            f"Only {count(source.scores.num_patients, 'patient')}: intervals from so few are rough, often too "
            "narrow. Do not compare models by them."
        )
    return [Note(text, warning=True) for text in texts]


def scores_section(source: ReportSource) -> Section:
    """Table of scores, FROC curve, operating points."""
    scores = source.scores
    section = Section("scores", "Scores")
    section.blocks.append(
        Note(
            "A box counts as a hit when it overlaps a lesion with an IoU (shared volume by joint volume) of at least "
            "the value given. AP and FROC rank all candidates by score and need no threshold; sensitivity and "
            "precision judge the accepted boxes slice by slice. The "
            f"{percent(scores.level)} interval comes from drawing patients anew {scores.bootstrap_draws} times."
        )
    )
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
    section.blocks.extend(_operating_table(scores))
    return section


def _ordered(keys: list[str]) -> list[str]:
    first = [*HEADLINE, "paper_f1", "paper_auc", PATIENT_KEY, MAP_KEY]
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


def _no_froc(source: ReportSource) -> Block:
    if source.records:
        return Missing("the FROC curve: no scored case holds a lesion.")
    return source.missing["records"]


def _operating_table(scores: Scores) -> list[Block]:
    used = [row for row in scores.operating_points if row.point.tp + row.point.fp > 0]
    rows = [_operating_row(f"{row.point.threshold:.2f}", row) for row in used]
    if scores.best_f1 is not None:
        rows.append(_operating_row(f"{scores.best_f1.point.threshold:.3f} (best F1)", scores.best_f1))
    if not rows:
        return [Missing("operating points: no candidate scores 0.05 or more.")]
    header = ("Score from", "Lesions found", "Sensitivity", "Precision", "F1", "False alarms per case")
    caption = "Operating points at IoU 0.10: what one gets when every candidate from this score on counts"
    left_out = [t for t in OPERATING_THRESHOLDS if t not in {row.point.threshold for row in used}]
    notes: list[Block] = [Table(caption, header, rows, [len(rows) - 1] if scores.best_f1 else [])]
    text = "The row of the best F1 was chosen on these very cases, so it is optimistic."
    if left_out:
        text += f" No candidate scores {min(left_out):.2f} or more."
    return [*notes, Note(text)]


def _operating_row(name: str, row: OperatingRow) -> list[str]:
    point = row.point

    def cell(value: float | None, low: float | None, high: float | None, digits: int) -> str:
        spread = interval(low, high, digits)
        return number(value, digits) + ("" if spread == "–" else f" ({spread})")

    return [
        name,
        f"{point.tp} of {point.tp + point.fn}",
        cell(point.sensitivity, row.sensitivity.low, row.sensitivity.high, 2),
        cell(point.ppv, row.ppv.low, row.ppv.high, 2),
        number(point.f1, 2),
        cell(point.fp_per_case, row.fp_per_case.low, row.fp_per_case.high, 1),
    ]


def ablation_section(source: ReportSource) -> Section:
    """What each step is worth."""
    section = Section("ablation", "What each step is worth")
    if not source.ablation:
        section.blocks.append(source.missing["ablation"])
        return section
    section.blocks.append(
        Note(
            "The same detections, scored three ways: one window's detector alone, with the zone and HU filters, and "
            "with the vote of all windows. All rows use the thresholds tuned for the whole."
        )
    )
    names = [_variant(row, source) for row in source.ablation]
    chart = ablation_chart(source.ablation, names)
    if chart is not None:
        section.blocks.append(chart)
    rows = []
    for name, row in zip(names, source.ablation, strict=True):
        cells = [score_cells(row.scores[key]) for key in COLUMNS]
        rows.append([name, *(f"{value} ({spread})" if spread else value for value, spread in cells)])
    header = ("Variant", *(score_name(key) for key in COLUMNS))
    section.blocks.append(Table("Ablation, with 95 % intervals", header, rows, [len(rows) - 1]))
    return section


def _variant(row: AblationRow, source: ReportSource) -> str:
    if row.bagging:
        return "all windows, filters + vote"
    windows = {window.name: window for window in source.plan.windows}
    stage = next((s for s in source.plan.voters if s.name == row.voters), None)
    name = row.voters
    if stage is not None and len(stage.windows) == 1 and stage.windows[0] in windows:
        window = windows[stage.windows[0]]
        name = f"{window.lower:g} to {window.upper:g} HU"
    return f"{name}, filters" if row.filters else f"{name}, alone"


def sweep_section(source: ReportSource) -> Section:
    """How the thresholds were chosen."""
    section = Section("sweep", "How the thresholds were chosen")
    if source.sweep is None:
        section.blocks.append(source.missing["sweep"])
        return section
    sweep = source.sweep
    goal = CRITERIA.get(sweep["criterion"], sweep["criterion"])
    text = (
        f"{sweep['num_settings']} settings were tried on {count(sweep['num_cases'], 'validation case')} with "
        f"{count(sweep['num_lesions'], 'lesion')}; the one with the best {goal} was taken. All values here come from "
        "the very cases the setting was chosen on: they are optimistic. A broad bright area is a good sign, a lone "
        "bright cell may be luck."
    )
    section.blocks.append(Note(text))
    if source.inference is not None and source.inference.cases:
        cases = Note(", ".join(source.inference.cases))
        section.blocks.append(Folded("The cases they were tuned on", [cases]))
    section.blocks.extend(_landscapes(sweep))
    section.blocks.append(Note(f"Ties: {sweep['tie_rule']}."))
    return section


def _landscapes(sweep: Mapping[str, Any]) -> list[Block]:
    name = {"f1": "F1"}.get(sweep["criterion"], sweep["criterion"])
    voting, hu = voting_landscape(sweep), hu_landscape(sweep)
    alone = Missing("the landscape of the vote: one window alone has nothing to vote with.")
    blocks: list[Block] = [landscape_chart(voting, name) if voting else alone]
    blocks.append(
        landscape_chart(hu, name) if hu else Missing("the landscape of the HU filter: it was not tried.")
    )
    zones, chosen = zone_values(sweep)
    if len(zones) > 1:
        blocks.append(filter_chart(zones, chosen, name))
    else:
        blocks.append(Note("The zone filter was not tuned: there is no search region to measure from."))
    return blocks


def cases_section(source: ReportSource, pictures: CasePictures | None) -> Section:
    """Table of all cases, and pictures of some."""
    section = Section("cases", "Case by case")
    if source.records:
        section.blocks.append(_case_table(source))
    else:
        section.blocks.append(source.missing["records"])
    if pictures is None:
        section.blocks.append(source.missing["raw"])
        return section
    text = (
        "Left: the searched region of one axial slice (soft-tissue window, −125 to 225 HU, where the image is CT), "
        "the patient's right on the left. Right: the white frame enlarged, numbers are scores; "
        "faint boxes overlap a better one. Blue outlines are the reference. Grey dashes show boxes that the zone "
        "filter, the HU filter or the vote removed; duplicates and low scores are only counted."
    )
    section.blocks.append(Note(text))
    shown, total = len(pictures.cases), len(source.predictions)
    which = f"All {total} cases" if shown == total else f"{shown} of {total} cases, evenly spread"
    section.blocks.append(Gallery(f"{which} from worst to best", pictures.cases, legend=True))
    for heading, items, none in (
        ("The largest lesions that were missed", pictures.misses, "No lesion was missed."),
        ("The most confident false alarms", pictures.false_alarms, "No accepted lesion is a false alarm."),
    ):
        section.blocks.append(Gallery(heading, items) if items else Note(none))
    return section


def _case_table(source: ReportSource) -> Table:
    counts = sorted((count_case(record) for record in source.records), key=lambda each: each.quality)
    rows = [
        [
            each.case_id,
            f"{each.found} of {each.lesions}",
            str(each.boxes),
            str(each.boxes - each.hits),
            number(each.best_score, 2),
        ]
        for each in counts
    ]
    header = ("Case", "Lesions found", "Accepted slice boxes", "of them false", "Best score")
    return Table("All scored cases, worst first", header, rows)
