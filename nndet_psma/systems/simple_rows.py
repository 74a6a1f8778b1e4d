"""Objects of a classifier judged by simple models that were fitted in the same folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.candidate_table import Candidate
from nndet_psma.artifacts.classified import Classified, ClassifiedObject
from nndet_psma.artifacts.classifier_plan import ClassifierPlan
from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.postproc.calibration import CalibratedCutoff
from nndet_psma.postproc.cutoff import tuned_cutoff
from nndet_psma.trainers.classifier.baselines import SimpleModel, simple_models
from nndet_psma.trainers.classifier.controls import BLIND


def simple_rows(
    plan: ClassifierPlan,
    training: Sequence[tuple[Sequence[Candidate], Sequence[Classified]]],
    rows: Mapping[tuple[str, int], JudgedRow],
) -> dict[str, list[JudgedRow]]:
    """Rows of every simple model.

    Args:
        plan: of the classifier.
        training: rows to fit on, and results whose objects are judged by what was fitted; one pair per fold.
        rows: of the network by case and object: they tell patient and truth.
    """
    positive, negative = list(plan.classes.values())[-1], next(iter(plan.classes.values()))
    found: dict[str, list[JudgedRow]] = {}
    for table, results in training:
        asked = [(result.case_id, each) for result in results for each in result.objects]
        known = [row for row in table if row.label is not None]
        if len({row.label for row in known}) == 2:
            for model in simple_models(plan.features):
                said, threshold = _judged(
                    model, known, [each for _, each in asked], plan, (negative, positive)
                )
                found.setdefault(model.name, []).extend(
                    _row(rows[case_id, each.object_id], float(p), threshold, negative, positive)
                    for (case_id, each), p in zip(asked, said, strict=True)
                )
    return found


def control_rows(
    plan: ClassifierPlan,
    results: Sequence[Classified],
    rows: Mapping[tuple[str, int], JudgedRow],
    cutoff: CalibratedCutoff,
) -> dict[str, list[JudgedRow]]:
    """Rows of the network by control, calibrated and decided as the network's own.

    The network that was trained without an image was never tuned: it calls from the prevalence on.
    """
    negative = next(iter(plan.classes.values()))
    blind = CalibratedCutoff(cutoff.positive, plan.prevalence, 1.0, plan.prevalence)
    found: dict[str, list[JudgedRow]] = {}
    for result in results:
        for each in result.objects:
            for name, logits in each.controls.items():
                own = blind if name == BLIND else cutoff
                p = own.calibrated(logits)[0]
                row = _row(rows[result.case_id, each.object_id], p, own.threshold, negative, cutoff.positive)
                found.setdefault(name, []).append(row)
    return found


def _judged(
    model: SimpleModel,
    known: Sequence[Candidate],
    asked: Sequence[ClassifiedObject],
    plan: ClassifierPlan,
    names: tuple[str, str],
) -> tuple[NDArray[np.float64], float]:
    """Probabilities of the asked objects; threshold: the model's own, or the best by Youden on the training rows."""
    ask = model.fit(known, plan.seed)
    if model.threshold is not None:
        return ask(asked), model.threshold
    own = [
        JudgedRow(
            r.case_id, r.patient_id, r.object_id, names[int(r.label == 1)], names[0], _pair(float(p), names)
        )
        for r, p in zip(known, ask(known), strict=True)
    ]
    return ask(asked), tuned_cutoff(own, names[1])[0].threshold


def _row(row: JudgedRow, p: float, threshold: float, negative: str, positive: str) -> JudgedRow:
    decision = positive if p >= threshold else negative
    pair = _pair(p, (negative, positive))
    return JudgedRow(row.case_id, row.patient_id, row.object_id, row.truth, decision, pair)


def _pair(p: float, names: tuple[str, str]) -> dict[str, float]:
    return {names[0]: 1 - p, names[1]: p}
