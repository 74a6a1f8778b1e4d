"""The first section of a classifier's report: does the image add anything to what is simpler?"""

from __future__ import annotations

from nndet_psma.evaluation.judgements.shares import Share
from nndet_psma.evaluation.judgements.shortcuts import ShortcutRow, ShortcutTable
from nndet_psma.report.page.content import Note, Section, Table
from nndet_psma.report.texts import interval, number, percent


def shortcuts_section(shortcuts: ShortcutTable) -> Section:
    """The verdict in one sentence, then all models; the best simple one and the network are stressed."""
    sentence = shortcuts.sentence[0].upper() + shortcuts.sentence[1:] + "."
    rows = shortcuts.rows
    strong = [i for i, row in enumerate(rows) if row.difference is None or row.name == shortcuts.best]
    header = ("Model", "AUC", f"{percent(shortcuts.level)} interval", "Sensitivity", "Specificity", "Accuracy",
              "Network minus it", "Its interval")  # fmt: skip
    return Section(
        "shortcuts",
        "Shortcuts",
        [
            Note(sentence, warning=shortcuts.adds is not True),
            *(Note(f"{text[0].upper()}{text[1:]}.", warning=True) for text in shortcuts.warnings),
            Table(
                "Simple models in the same folds, and the network",
                header,
                [_cells(row) for row in rows],
                strong,
            ),
            *(
                [Table("The network under controls", header, list(map(_cells, shortcuts.controls)))]
                if shortcuts.controls
                else []
            ),
            Note(
                "Models on the table were fitted on the training cases alone and decide at the threshold with the best "
                "Youden index there. Differences are of AUC, paired over draws of patients; the best simple model was "
                "chosen on these objects, which favours it."
            ),
        ],
    )


def _cells(row: ShortcutRow) -> list[str]:
    found = row.difference
    difference = "" if found is None or found.difference is None else f"{found.difference:+.3f}"
    ends = "" if found is None else interval(found.ci_low, found.ci_high)
    shares = [_share(each) for each in (row.sensitivity, row.specificity, row.accuracy)]
    return [
        row.name,
        number(row.auc.value),
        interval(row.auc.ci_low, row.auc.ci_high),
        *shares,
        difference,
        ends,
    ]


def _share(share: Share) -> str:
    return f"{number(share.value)} ({share.hits} of {share.total})"
