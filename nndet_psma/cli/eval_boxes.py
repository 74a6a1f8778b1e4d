"""What ``nndet_eval`` prints of boxes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import console, say

if TYPE_CHECKING:
    from nndet_psma.evaluation.detection.compare import Comparison
    from nndet_psma.evaluation.detection.scores import OperatingRow, Score
    from nndet_psma.stages.evaluate_boxes import BoxEvaluation


def print_boxes(args: argparse.Namespace, evaluation: BoxEvaluation) -> None:
    """The tables that were asked for; the scores where nothing was."""
    if args.boxes or not (args.case or args.analyze_boxes):
        _print_scores(evaluation)
    if args.case:
        _print_cases(evaluation)
    if args.analyze_boxes:
        _print_operating_points(evaluation)
        _print_strata(evaluation)
        print_ablation(evaluation)
    for comparison in (evaluation.comparison, evaluation.both_stages):
        if comparison is not None:
            print_comparison(evaluation, comparison)


def _print_scores(evaluation: BoxEvaluation) -> None:
    from rich.table import Table

    from nndet_psma.stages.evaluate_boxes import summary_rows

    scores = evaluation.scores
    title = f"{scores.num_cases} cases, {scores.num_patients} patients, {scores.num_lesions} lesions"
    table = Table("score", "value", "95 % interval (patients)", title=title)
    for row in summary_rows(evaluation):
        table.add_row(*row)
    console().print(table)
    _print_thresholds(evaluation)


def _print_cases(evaluation: BoxEvaluation) -> None:
    for name, value in evaluation.cases.items():
        say(f"{name}: {'undefined' if value is None else f'{value:.3f}'}")


def _print_thresholds(evaluation: BoxEvaluation) -> None:
    """On which cases the thresholds behind the ``accepted_`` and ``paper_`` scores were chosen."""
    accepted = evaluation.scores.accepted
    if accepted is not None:
        source = f" ({accepted.source})" if accepted.source else ""
        say(f"thresholds of the accepted boxes were chosen on {accepted.chosen_on}{source}")


def _print_operating_points(evaluation: BoxEvaluation) -> None:
    """The tuned thresholds, fixed ones, and one chosen on the scored cases: a table each."""
    from nndet_psma.stages.evaluate_boxes import accepted_by_name

    scores = evaluation.scores
    if scores.accepted is not None:
        accepted = [score.value for score in accepted_by_name(evaluation).values()]
        title = f"accepted lesions, IoU 0.1; thresholds chosen on {scores.accepted.chosen_on}"
        _print_points(title, [("tuned", accepted)])
    _print_points(
        "all candidates, IoU 0.1; fixed thresholds, chosen on no cases",
        [(f"{row.point.threshold:.2f}", _rates(row)) for row in scores.operating_points],
    )
    best = scores.best_f1
    if best is not None:
        title = f"optimistic: threshold chosen on {scores.optimistic.chosen_on}"
        _print_points(title, [(f"{best.point.threshold:.3f} (best F1)", _rates(best))])


def _rates(row: OperatingRow) -> list[float | None]:
    point = row.point
    return [point.sensitivity, point.ppv, point.f1, point.fp_per_case, point.fp_per_patient]


def _print_points(title: str, rows: list[tuple[str, list[float | None]]]) -> None:
    from rich.table import Table

    columns = ("sensitivity", "PPV", "F1", "FP per case", "FP per patient")
    table = Table("score from", *columns, title=title)
    for name, values in rows:
        table.add_row(name, *("-" if v is None else f"{v:.3f}" for v in values))
    console().print(table)


def _print_strata(evaluation: BoxEvaluation) -> None:
    from rich.table import Table

    if not evaluation.scores.strata:
        return
    columns = ("lesions", "found at any score", "at 1 FP per case", "FROC score", "among accepted boxes")
    table = Table("lesions by", "", *columns, title="strata, IoU 0.1; 95 % intervals (patients)")
    for stratum in evaluation.scores.strata:
        scores = (
            stratum.sensitivity,
            stratum.sensitivity_at_fp["1"],
            stratum.froc,
            stratum.paper_sensitivity,
        )
        table.add_row(stratum.group, stratum.name, str(stratum.lesions), *map(_cell, scores))
    console().print(table)


def _cell(score: Score) -> str:
    if score.value is None:
        return "-"
    text = f"{score.value:.3f}"
    return text if score.ci_low is None else f"{text} ({score.ci_low:.3f} to {score.ci_high:.3f})"


def print_comparison(evaluation: BoxEvaluation, comparison: Comparison) -> None:
    """Differences of all scores as a table, and McNemar's test."""
    from rich.table import Table

    from nndet_psma.stages.evaluate_boxes import repeats_the_only_class

    title = f"{comparison.first} minus {comparison.second}, {comparison.num_patients} patients"
    table = Table("score", "first", "second", "difference", "95 % interval (patients)", "p", title=title)
    for key, row in comparison.scores.items():
        if row.difference is None or repeats_the_only_class(key, evaluation):
            continue
        spread = "" if row.ci_low is None else f"{row.ci_low:+.3f} to {row.ci_high:+.3f}"
        p = "" if row.p is None else f"{row.p:.3f}"
        table.add_row(key, f"{row.first:.3f}", f"{row.second:.3f}", f"{row.difference:+.3f}", spread, p)
    console().print(table)
    test = comparison.patients
    if test is not None:
        say(
            f"patients judged rightly: by both {test.both_right}, only by the first {test.only_first}, only by the "
            f"second {test.only_second}, by neither {test.both_wrong}"
            + (f"; McNemar p {test.p:.3f}" if test.p is not None else "; too few for a test")
        )


def print_ablation(evaluation: BoxEvaluation) -> None:
    """The ablation as a table."""
    from rich.table import Table

    from nndet_psma.inference.ablation import COLUMNS

    table = Table("voters", "filters", "bagging", *COLUMNS, title="ablation")
    for row in evaluation.ablation:
        values = [row.scores[name].value for name in COLUMNS]
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(row.voters, "yes" if row.filters else "", "yes" if row.bagging else "", *cells)
    console().print(table)
