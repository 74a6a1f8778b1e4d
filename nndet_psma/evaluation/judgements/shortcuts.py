"""Table of shortcuts: what simple models reach on the same objects, and whether a network adds anything to the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nndet_psma.evaluation.detection.compare import Difference
from nndet_psma.evaluation.detection.score import Score
from nndet_psma.evaluation.judgements.compare import compare_judgements
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.scores import score_judgements
from nndet_psma.evaluation.judgements.shares import Share


@dataclass(frozen=True)
class ShortcutRow:
    """One model of the table.

    Attributes:
        name: of the model.
        auc: of the positive class, interval over draws of patients.
        sensitivity: of its decision.
        specificity: of its decision.
        accuracy: of its decision.
        difference: AUC of the network minus that of this model, paired over patients; None for the network itself.
    """

    name: str
    auc: Score
    sensitivity: Share
    specificity: Share
    accuracy: Share
    difference: Difference | None


@dataclass(frozen=True)
class ShortcutTable:
    """All models, the network last.

    Attributes:
        rows: in the order they are told.
        best: name of the simple model with the highest AUC; None where none has one.
        adds: whether the interval of the difference to the best lies above 0; None where there is no interval.
        sentence: the same in words.
        controls: the network with something taken away from what it sees; differences as above.
        warnings: what the controls give away, in sentences.
        bootstrap_draws: draws of patients.
        seed: of the draws.
        level: of the intervals.
    """

    rows: list[ShortcutRow]
    best: str | None
    adds: bool | None
    sentence: str
    controls: list[ShortcutRow]
    warnings: list[str]
    bootstrap_draws: int
    seed: int
    level: float


NETWORK = "network"
SURROUND, ONLY, EQUAL_SIZE = "surroundings only", "object only", "objects of equal size"
"""Names of the controls."""

LEAK_AUC = 0.65
"""AUC from which on what a control leaves is told to be enough to guess the class: that of the core's specification for
table features to be looked at apart."""


def shortcut_table(
    network: Sequence[JudgedRow],
    simple: Mapping[str, Sequence[JudgedRow]],
    classes: Sequence[str],
    controls: Mapping[str, Sequence[JudgedRow]] = MappingProxyType({}),
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> ShortcutTable:
    """Score all models on the same objects, and the network against the best of the others.

    Args:
        network: judged objects.
        simple: the same objects, judged by every simple model.
        classes: both names, the positive one last.
        controls: the same objects, judged by the network under every control.
        draws: of patients.
        seed: of the draws.
        level: of the intervals.
    """
    rows = [_row(name, own, classes, network, draws, seed, level) for name, own in simple.items()]
    rows.append(_row(NETWORK, network, classes, None, draws, seed, level))
    ranked = [row for row in rows[:-1] if row.auc.value is not None]
    best = max(ranked, key=lambda row: row.auc.value or 0.0, default=None)
    adds, sentence = _verdict(rows[-1], best, level)
    kept = [_row(name, own, classes, network, draws, seed, level) for name, own in controls.items()]
    warnings = [text for row in kept for text in _warnings(row)]
    name = None if best is None else best.name
    return ShortcutTable(rows, name, adds, sentence, kept, warnings, draws, seed, level)


def _row(
    name: str,
    own: Sequence[JudgedRow],
    classes: Sequence[str],
    network: Sequence[JudgedRow] | None,
    draws: int,
    seed: int,
    level: float,
) -> ShortcutRow:
    scores = score_judgements(own, classes, draws=draws, seed=seed, level=level)
    positive = scores.by_class[classes[-1]]
    difference = None
    if network is not None:
        compared = compare_judgements(
            network, own, classes, names=(NETWORK, name), draws=draws, seed=seed, level=level
        )
        difference = compared.auc[classes[-1]]
    return ShortcutRow(
        name, positive.auc, positive.sensitivity, positive.specificity, scores.accuracy, difference
    )


def _warnings(row: ShortcutRow) -> list[str]:
    """A control that takes the object away must leave nothing; one that leaves it must take nothing away."""
    found, auc = row.difference, row.auc.value
    if found is None or auc is None or found.difference is None:
        return []
    if row.name == SURROUND and auc >= LEAK_AUC:
        enough = "what lies round an object (and its outline, where the mask is a channel) is enough to guess"
        return [f"leakage: {row.name} still reach an AUC of {auc:.3f}: {enough}"]
    if row.name == EQUAL_SIZE and found.ci_low is not None and found.ci_low > 0:
        fall = f"falls by {found.difference:.3f} to {auc:.3f}"
        return [f"size: with {row.name} the AUC {fall}, so the network reads size"]
    return []


def _verdict(network: ShortcutRow, best: ShortcutRow | None, level: float) -> tuple[bool | None, str]:
    if best is None or best.difference is None or best.difference.ci_low is None:
        return None, "whether the image adds anything beyond simple models cannot be told from these objects"
    found = best.difference
    numbers = (
        f"AUC {network.auc.value:.3f} against {best.auc.value:.3f}, difference {found.difference:+.3f}, "
        f"{100 * level:.0f} % interval {found.ci_low:+.3f} to {found.ci_high:+.3f}"
    )
    if (found.ci_low or 0.0) > 0:
        return True, f"the image adds to the best simple model, {best.name} ({numbers})"
    return False, f"the image adds nothing that could be shown beyond {best.name} ({numbers})"
