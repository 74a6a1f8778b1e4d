"""Raw predictions of several folds or models of one case put together, before any post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.steps import RawPredictions


def join_folds(folds: Sequence[RawPredictions]) -> dict[str, list[Detections]]:
    """One prediction of several folds of the same model: voters of one name become parts of one voter.

    A voter that a fold was not asked for has fewer parts; its fused scores are divided by the parts it has. The order
    of voters is that of their first appearance.
    """
    joined: dict[str, list[Detections]] = {}
    for fold in folds:
        for voter, parts in fold.items():
            joined.setdefault(voter, []).extend(parts)
    return joined


def join_models(models: Mapping[str, RawPredictions]) -> dict[str, list[Detections]]:
    """One prediction of different models: every voter of every model is a voter of its own, called ``model/voter``.

    They vote like windows do. Scores of different models must mean the same: nothing is rescaled. A model that was not
    asked about the case has no voters and lowers no score.
    """
    return {f"{model}/{voter}": list(parts) for model, raw in models.items() for voter, parts in raw.items()}
