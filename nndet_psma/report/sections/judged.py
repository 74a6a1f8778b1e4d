"""Sections on judgements: headline, scores, curves, comparison, every object with the worst mistakes first."""

from __future__ import annotations

from collections.abc import Sequence

from nndet_psma.evaluation.detection.compare import Difference
from nndet_psma.evaluation.detection.score import Score
from nndet_psma.evaluation.judgements.compare import JudgementComparison
from nndet_psma.evaluation.judgements.row import JudgedRow, scored_rows
from nndet_psma.evaluation.judgements.scores import JudgementScores
from nndet_psma.evaluation.judgements.shares import Share
from nndet_psma.evaluation.statistics.resampling import FEWEST_PATIENTS
from nndet_psma.report.charts.judged import decision_chart, probability_chart, reliability_chart, roc_chart
from nndet_psma.report.judged_source import JudgedSource
from nndet_psma.report.page.content import Block, Gallery, Missing, Note, Section, Shown, Table, Tile, Tiles
from nndet_psma.report.texts import count, interval, number, percent

_SHOWN = 100
_AUC = (
    "Chance that an object of the class gets a higher probability of it than another one (0.5 is guessing)."
)
_ACCURACY = "Share of right decisions."
_BALANCED = (
    "Mean over the classes of the share of right decisions: frequent classes weigh no more than rare ones."
)


def judged_headline(source: JudgedSource) -> Section:
    """Counts, AUC and accuracy with intervals, the baseline, warnings."""
    scores = source.scores
    section = Section("headline", "In short")
    which = "test cases" if source.split == "test" else "validation cases"
    section.blocks.append(
        Note(
            f"Scored on {count(scores.num_objects, scores.unit)} in {scores.num_cases} {which} of "
            f"{count(scores.num_patients, 'patient')}. Below each number its {percent(scores.level)} interval."
        )
    )
    tiles = [_score_tile(f"AUC of {name}", scores.by_class[name].auc, _AUC) for name in scores.shown]
    tiles += [
        _tile("Accuracy", scores.accuracy.value, *_ends(scores.accuracy), _ACCURACY),
        _score_tile("Balanced accuracy", scores.balanced_accuracy, _BALANCED),
    ]
    section.blocks.append(Tiles(tiles))
    section.blocks.append(Note(_baseline_text(scores)))
    section.blocks.extend(Note(f"Not scored: {reason}.") for reason in scores.left_out.told())
    section.blocks.extend(Note(text, warning=True) for text in _warnings(source))
    return section


def _baseline_text(scores: JudgementScores) -> str:
    if scores.majority is None:
        return "There is no baseline: nothing is scored."
    always = scores.majority.accuracy
    return (
        f"Baseline: whoever always says '{scores.majority.decision}' is right in {always.hits} of {always.total} "
        f"({number(always.value)}) and has a balanced accuracy of 1 / number of classes and an AUC of 0.5."
    )


def _warnings(source: JudgedSource) -> list[str]:
    texts = []
    if source.stale:
        texts.append(
            "These decisions were taken with other settings than the model has now. Run nndet_predict, then nndet_eval "
            "again."
        )
    if source.tuned_on_these:
        texts.append(
            "The decision was tuned on cases that are scored here, so all scores of decisions are optimistic; AUC and "
            "Brier score do not depend on it. Scores of test cases are not."
        )
    if source.scores.num_patients < FEWEST_PATIENTS:
        texts.append(
            f"Only {count(source.scores.num_patients, 'patient')}: intervals from so few are rough. Do not compare "
            "models by them."
        )
    return texts


def judged_scores(source: JudgedSource) -> Section:
    """All scores of all classes, and the confusion of truth and decision."""
    scores = source.scores
    section = Section("scores", "Scores")
    clustered = scores.num_patients < scores.num_objects
    how = (
        "Intervals are over draws of patients, who have several objects; those of Clopper and Pearson and of DeLong "
        "take objects for independent."
        if clustered
        else "Intervals of shares are exact (Clopper and Pearson), the others over draws of patients."
    )
    section.blocks.append(Note(f"Each class against the rest. {how}"))
    rows = [
        ["all", "accuracy", *_share_cells(scores.accuracy)],
        ["all", "balanced accuracy", *_score_cells(scores.balanced_accuracy)],
        ["all", "Brier score (0 is best)", *_score_cells(scores.brier)],
    ]
    for name in scores.shown:
        of_class = scores.by_class[name]
        delong = of_class.auc_delong
        rows.append([name, "AUC", *_score_cells(of_class.auc)[:3], interval(*(delong or (None, None)))])
        for title, share in (
            ("sensitivity", of_class.sensitivity),
            ("specificity", of_class.specificity),
            ("PPV", of_class.ppv),
            ("NPV", of_class.npv),
        ):
            rows.append([name, title, *_share_cells(share)])
        rows.append([name, "F1", *_score_cells(of_class.f1)])
    header = ("Class", "Score", "Value", "Counts", f"{percent(scores.level)} interval", "Exact, or DeLong's")
    section.blocks.append(Table("Scores of the tuned decision and of the probabilities", header, rows))
    confusion = [[true, *map(str, row.values())] for true, row in scores.confusion.items()]
    section.blocks.append(
        Table("Truth (rows) and decision (columns)", ("Truth", *scores.confusion), confusion)
    )
    return section


def curves_section(source: JudgedSource) -> Section:
    """ROC curve, and the histogram of the probabilities with the threshold."""
    section = Section("curves", "Probabilities")
    rows, scores = scored_rows(source.rows), source.scores
    if not rows:
        section.blocks.append(source.missing.get("objects") or Missing("curves: nothing is scored."))
        return section
    section.blocks.append(
        roc_chart(rows, scores) or Missing("the ROC curve: all that is scored is of one class.")
    )
    settings = source.inference.settings if source.inference else {}
    positive, threshold = settings.get("positive"), settings.get("threshold")
    shown = positive if positive in scores.classes else scores.shown[0]
    cut = float(threshold) if positive in scores.classes and isinstance(threshold, int | float) else None
    charts = (
        probability_chart(rows, shown, cut, scores.unit),
        reliability_chart(rows, shown, scores.unit),
        decision_chart(rows, shown),
    )
    section.blocks.extend(chart for chart in charts if chart is not None)
    return section


def explained_section(source: JudgedSource) -> Section:
    """The most certain mistakes in pictures, with the maps of where the network looked."""
    section = Section("explained", "Worst mistakes in pictures")
    wrong = [row for row in worst_first(source.rows) if row.truth is not None and not row.right]
    if not wrong:
        section.blocks.append(Note("There are none: every decision whose truth is known is right."))
        return section
    items = [
        Shown(
            f"Case {row.case_id}, {source.scores.unit} {row.object_id}",
            "miss",
            f"{row.truth}, called {row.decision}",
            [source.explained[row.case_id, row.object_id]],
            [", ".join(f"P({name}) {value:.2f}" for name, value in row.probabilities.items())],
        )
        for row in wrong
        if row.object_id is not None and (row.case_id, row.object_id) in source.explained
    ]
    if not items:
        section.blocks.append(
            source.missing.get("explained")
            or Missing("pictures of where the network looked.", "nndet_predict TASK MODEL --explain")
        )
        return section
    text = (
        "CT with the outline of the object; occlusion (red: the probability falls where this is painted over) and "
        "Grad-CAM (red: speaks for the positive class) over it."
    )
    section.blocks.extend([Note(text), Gallery(f"{len(items)} of {count(len(wrong), 'mistake')}", items)])
    return section


def compared_section(source: JudgedSource) -> Section:
    """One table for each model that was compared."""
    section = Section("comparison", "Against another model")
    if "comparison" in source.missing:
        section.blocks.append(source.missing["comparison"])
    for comparison in source.comparisons:
        section.blocks.extend(_compared(comparison, source.scores.unit))
    return section


def _compared(comparison: JudgementComparison, unit: str) -> list[Block]:
    text = (
        f"{comparison.first} minus {comparison.second} on the same {count(comparison.num_objects, unit)} of "
        f"{count(comparison.num_patients, 'patient')}. Every draw takes the same patients for both. Judged rightly by "
        f"both {comparison.both_right}, only by {comparison.first} {comparison.only_first}, only by "
        f"{comparison.second} {comparison.only_second}, by neither {comparison.both_wrong} (exact McNemar p "
        f"{comparison.mcnemar_p:.3f}, which takes {unit}s for independent)."
    )
    rows = [[f"AUC of {name}", *_difference_cells(each)] for name, each in comparison.auc.items()]
    rows.append(["accuracy", *_difference_cells(comparison.accuracy)])
    header = ("Score", "This", "Other", "Difference", f"{percent(comparison.level)} interval", "p")
    return [Note(text), Table(f"{comparison.first} minus {comparison.second}", header, rows)]


def _difference_cells(each: Difference) -> list[str]:
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


def objects_section(source: JudgedSource) -> Section:
    """Every object, the worst mistakes first."""
    unit = source.scores.unit
    section = Section("objects", f"{unit.capitalize()} by {unit}")
    if not source.rows:
        section.blocks.append(source.missing.get("objects") or Missing("the table: nothing was judged."))
        return section
    rows = worst_first(source.rows)
    cells = [
        [
            row.case_id,
            "–" if row.object_id is None else str(row.object_id),
            row.truth or "not known",
            row.decision,
            "–" if row.truth is None else "right" if row.right else "wrong",
            *(number(row.probabilities.get(name), 2) for name in source.scores.classes),
        ]
        for row in rows[:_SHOWN]
    ]
    header = ("Case", "Object", "Truth", "Decision", "", *(f"P({name})" for name in source.scores.classes))
    caption = f"All {len(rows)}" if len(rows) <= _SHOWN else f"{_SHOWN} of {len(rows)} (objects.csv has all)"
    wrong = [index for index, row in enumerate(rows[:_SHOWN]) if row.truth is not None and not row.right]
    section.blocks.append(Table(f"{caption}, mistakes first, the most certain on top", header, cells, wrong))
    return section


def worst_first(rows: Sequence[JudgedRow]) -> list[JudgedRow]:
    """Mistakes, the less probable the truth the earlier; then right decisions in the same order; unknown truth last."""

    def key(row: JudgedRow) -> tuple[int, float]:
        if row.truth is None:
            return 2, 0.0
        return int(row.right), row.probabilities.get(row.truth, 0.0)

    return sorted(rows, key=key)


def _tile(name: str, value: float | None, low: float | None, high: float | None, meaning: str) -> Tile:
    return Tile(name, "undefined" if value is None else number(value), interval(low, high), meaning)


def _score_tile(name: str, score: Score, meaning: str) -> Tile:
    if score.value is None:
        return Tile(name, "undefined", score.why or "–", meaning)
    return _tile(name, score.value, score.ci_low, score.ci_high, meaning)


def _ends(share: Share) -> tuple[float | None, float | None]:
    return share.ci_low, share.ci_high


def _share_cells(share: Share) -> list[str]:
    return [
        "undefined" if share.value is None else number(share.value),
        f"{share.hits} of {share.total}",
        interval(*_ends(share)),
        interval(share.exact_low, share.exact_high),
    ]


def _score_cells(score: Score) -> list[str]:
    if score.value is None:
        return ["undefined", "", score.why or "–", ""]
    return [number(score.value), "", interval(score.ci_low, score.ci_high), ""]
