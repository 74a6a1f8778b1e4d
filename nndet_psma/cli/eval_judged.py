"""What ``nndet_eval`` prints of judgements."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nndet_psma.cli.arguments import console, say

if TYPE_CHECKING:
    from nndet_psma.artifacts.results import Result
    from nndet_psma.evaluation.detection.compare import Difference
    from nndet_psma.evaluation.detection.score import Score
    from nndet_psma.evaluation.judgements.compare import JudgementComparison
    from nndet_psma.evaluation.judgements.scores import ClassScores, JudgementScores
    from nndet_psma.evaluation.judgements.shares import Share
    from nndet_psma.evaluation.judgements.shortcuts import ShortcutTable
    from nndet_psma.stages.evaluate_judged import JudgedEvaluation


def refuse_boxes(args: argparse.Namespace, result_type: type[Result]) -> None:
    """Refuse what is printed of boxes where there are none.

    Raises:
        UserError: it was asked for.
    """
    from nndet_psma.artifacts.results import Call, Judged
    from nndet_psma.core.errors import UserError

    if not issubclass(result_type, Judged | Call):
        return
    unit = "cases" if issubclass(result_type, Call) else "objects"
    names = ("boxes", "analyze_boxes") if unit == "cases" else ("boxes", "case", "analyze_boxes")
    for name in names:
        if getattr(args, name):
            raise UserError(
                f"--{name} has nothing to print: this model judges {unit}", remedy=f"Leave --{name} out"
            )


def print_judged(evaluation: JudgedEvaluation) -> None:
    """Scores of all classes together and of each, what was left out, and the comparison."""
    from rich.table import Table

    scores = evaluation.scores
    title = f"{scores.num_objects} {scores.unit}s of {scores.num_cases} cases, {scores.num_patients} patients"
    table = Table("class", "score", "value", "counts", "95 % interval", title=title)
    for row in [*_overall(scores), *(row for name in scores.shown for row in _of_class(name, scores))]:
        table.add_row(*row)
    console().print(table)
    if scores.majority is not None:
        text = _share(scores.majority.accuracy)
        say(f"always '{scores.majority.decision}' would be right in {text[1]} ({text[0]})")
    for reason in scores.left_out.told():
        say(f"not scored: {reason}")
    if evaluation.shortcuts is not None:
        _print_shortcuts(evaluation.shortcuts)
    if evaluation.comparison is not None:
        _print_comparison(evaluation.comparison)


def _overall(scores: JudgementScores) -> list[tuple[str, ...]]:
    return [
        ("all", "accuracy", *_share(scores.accuracy)),
        ("all", "balanced accuracy", *_score(scores.balanced_accuracy)),
        ("all", "Brier score", *_score(scores.brier)),
    ]


def _of_class(name: str, scores: JudgementScores) -> list[tuple[str, ...]]:
    found: ClassScores = scores.by_class[name]
    delong = found.auc_delong
    value, counts, spread = _score(found.auc)
    if delong is not None:
        spread += f" (DeLong {delong[0]:.3f} to {delong[1]:.3f})"
    return [
        (name, "AUC", value, counts, spread),
        (name, "sensitivity", *_share(found.sensitivity)),
        (name, "specificity", *_share(found.specificity)),
        (name, "PPV", *_share(found.ppv)),
        (name, "NPV", *_share(found.npv)),
        (name, "F1", *_score(found.f1)),
    ]


def _share(share: Share) -> tuple[str, str, str]:
    counts = f"{share.hits} of {share.total}"
    if share.value is None:
        return "undefined", counts, ""
    return f"{share.value:.3f}", counts, _interval(share.ci_low, share.ci_high)


def _score(score: Score) -> tuple[str, str, str]:
    if score.value is None:
        return "undefined", "", score.why or ""
    return f"{score.value:.3f}", "", _interval(score.ci_low, score.ci_high) or score.why or ""


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _print_comparison(comparison: JudgementComparison) -> None:
    from rich.table import Table

    title = f"{comparison.first} minus {comparison.second}, {comparison.num_patients} patients"
    table = Table("score", "first", "second", "difference", "95 % interval (patients)", "p", title=title)
    named = {f"AUC of {name}": each for name, each in comparison.auc.items()}
    for name, each in (named | {"accuracy": comparison.accuracy}).items():
        table.add_row(name, *_difference(each))
    console().print(table)
    say(
        f"judged rightly: by both {comparison.both_right}, only by the first {comparison.only_first}, only by the "
        f"second {comparison.only_second}, by neither {comparison.both_wrong}; McNemar p {comparison.mcnemar_p:.3f}"
    )
    if comparison.only_one:
        say(f"not compared: {comparison.only_one} that only one of the models judged")


def _print_shortcuts(shortcuts: ShortcutTable) -> None:
    from rich.table import Table

    table = Table(
        "model", "AUC", "95 % interval", "sensitivity", "specificity", "network minus it", title="shortcuts"
    )
    for row in [*shortcuts.rows, *shortcuts.controls]:
        value, _, spread = _score(row.auc)
        shares = [_share(share)[0] for share in (row.sensitivity, row.specificity)]
        difference = [] if row.difference is None else _difference(row.difference)[2:4]
        table.add_row(row.name, value, spread, *shares, " ".join(f"{each}" for each in difference))
    console().print(table)
    for text in (shortcuts.sentence, *shortcuts.warnings):
        say(text)


def _difference(each: Difference) -> list[str]:
    values = [each.first, each.second]
    first, second = ("undefined" if value is None else f"{value:.3f}" for value in values)
    spread = "" if each.ci_low is None else f"{each.ci_low:+.3f} to {each.ci_high:+.3f}"
    difference = "" if each.difference is None else f"{each.difference:+.3f}"
    return [first, second, difference, spread, "" if each.p is None else f"{each.p:.3f}"]
