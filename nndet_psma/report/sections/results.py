"""Sections on the results: headline, ablation, cases, worst misses and false alarms."""

from __future__ import annotations

from nndet_psma.evaluation.detection.accepted import MAIN_RULE
from nndet_psma.evaluation.detection.score_tables import ap_key, froc_key
from nndet_psma.evaluation.detection.scores import SCHEMA_VERSION, Scores
from nndet_psma.evaluation.statistics.resampling import FEWEST_PATIENTS
from nndet_psma.inference.ablation import COLUMNS, AblationRow
from nndet_psma.report.charts.scores import ablation_chart
from nndet_psma.report.findings import count_case
from nndet_psma.report.page.content import Block, Gallery, Missing, Note, Section, Table, Tile, Tiles
from nndet_psma.report.sections.gallery import CasePictures
from nndet_psma.report.source import ReportSource
from nndet_psma.report.texts import (
    CHOSEN_ON,
    count,
    number,
    percent,
    score_cells,
    score_meaning,
    score_name,
    score_text,
)

HEADLINE = (ap_key(0.1), froc_key(0.1), "paper_sensitivity", "paper_precision")


def headline_section(source: ReportSource, pictures: CasePictures | None) -> Section:
    """Accepted lesions, counts, the four numbers, warnings, one example."""
    scores = source.scores
    section = Section("headline", "In short")
    section.blocks.append(_accepted_line(scores))
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


def _accepted_line(scores: Scores) -> Block:
    """What the tuned thresholds accept, in one sentence."""
    accepted = scores.accepted
    if accepted is None:
        return Missing(
            "what the tuned thresholds accept, in 3D: scores.json does not tell; run nndet_eval again."
        )
    rates = accepted.by_rule[MAIN_RULE]
    return Note(
        f"Accepted by the tuned thresholds (IoU 0.10 in 3D): {rates.tp} of {count(rates.tp + rates.fn, 'lesion')}, "
        f"sensitivity {score_text(rates.sensitivity)}; {count(rates.fp, 'false alarm')}, "
        f"{score_text(rates.fp_per_patient)} per patient; precision {score_text(rates.ppv)}, F1 "
        f"{score_text(rates.f1)}. Thresholds: {CHOSEN_ON.get(accepted.chosen_on, accepted.chosen_on)}."
    )


def _tile(scores: Scores, key: str) -> Tile:
    score = scores.scores[key]
    value, spread = score_cells(score)
    text = spread if score.value is None or score.ci_low is None else f"{percent(scores.level)}: {spread}"
    return Tile(score_name(key), value, text, score_meaning(key))


def _warnings(source: ReportSource) -> list[Block]:
    texts = []
    if source.scores.schema_version < SCHEMA_VERSION:
        texts.append(
            "scores.json is of an older version: its slice AUC is that of the accepted boxes alone and is named so, "
            "and accepted lesions were not scored in 3D. Run nndet_eval again."
        )
    if source.stale:
        again = (
            "nndet_predict" if source.split == "test" else "nndet_sweep or nndet_consolidate --sweep_boxes"
        )
        texts.append(
            "These predictions were made with other thresholds, or by another version, than the model has now: scores "
            "and accepted boxes belong to the old ones, removed boxes and thresholds are the new ones. "
            f"Run {again}, then nndet_eval again."
        )
    if source.tuned_on_these:
        texts.append(
            "The thresholds were chosen on cases that are scored here, so these scores are optimistic. "
            "Scores of test cases are not."
        )
    if source.scores.num_patients < FEWEST_PATIENTS:
        texts.append(
            f"Only {count(source.scores.num_patients, 'patient')}: intervals from so few are rough, often too "
            "narrow. Do not compare models by them."
        )
    return [Note(text, warning=True) for text in texts]


def ablation_section(source: ReportSource) -> Section:
    """What each step is worth."""
    section = Section("ablation", "What each step is worth")
    if not source.ablation:
        unknown = Missing("the ablation: boxes of another framework have no raw predictions.")
        section.blocks.append(source.missing.get("ablation", unknown))
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
    columns = [key for key in COLUMNS if all(key in row.scores for row in source.ablation)]
    rows = []
    for name, row in zip(names, source.ablation, strict=True):
        cells = [score_cells(row.scores[key]) for key in columns]
        rows.append([name, *(f"{value} ({spread})" if spread else value for value, spread in cells)])
    header = ("Variant", *(score_name(key) for key in columns))
    section.blocks.append(Table("Ablation, with 95 % intervals", header, rows, [len(rows) - 1]))
    if "paper_auc" not in columns:
        text = "ablation.json is of an older version: its slice AUC is that of the accepted boxes alone."
        section.blocks.append(Note(text, warning=True))
    return section


def _variant(row: AblationRow, source: ReportSource) -> str:
    if row.bagging:
        return "all windows, filters + vote"
    name = source.facts.voters.get(row.voters, row.voters)
    return f"{name}, filters" if row.filters else f"{name}, alone"


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
        "First the searched region of one axial slice, the patient's right on the left; then the white frame "
        "enlarged, numbers are scores, faint boxes overlap a better one; then the coronal and the sagittal plane "
        "through its middle, and PET where the task has it. Letters name the sides (H head, F feet, A front, P back). "
        "Blue outlines are the reference. Grey dashes show boxes that the zone filter, the HU filter or the vote "
        "removed; duplicates and low scores are only counted."
    )
    section.blocks.append(Note(text))
    shown, total = len(pictures.cases), len(source.predictions)
    which = f"All {total} cases" if shown == total else f"{shown} of {total} cases, evenly spread"
    section.blocks.append(Gallery(f"{which} from worst to best", pictures.cases, legend=True))
    return section


def extremes_section(source: ReportSource, pictures: CasePictures | None) -> Section:
    """The largest missed lesions and the most certain false alarms, in pictures."""
    section = Section("extremes", "Worst misses and false alarms")
    if pictures is None:
        section.blocks.append(source.missing["raw"])
        return section
    text = (
        "Look here for what a score does not tell: why a large lesion was missed (never proposed, or removed, and by "
        "which step), and what the detector takes for a lesion."
    )
    section.blocks.append(Note(text))
    legend = True
    for heading, items, total, none in (
        (
            "lesions that were missed, largest first",
            pictures.misses,
            pictures.num_misses,
            "No lesion was missed.",
        ),
        (
            "false alarms, most certain first",
            pictures.false_alarms,
            pictures.num_false_alarms,
            "No accepted lesion is a false alarm.",
        ),
    ):
        if items:
            section.blocks.append(Gallery(f"{len(items)} of {total} {heading}", items, legend=legend))
            legend = False
        else:
            section.blocks.append(Note(none if total == 0 else f"None of {total} {heading} is shown."))
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
