"""Hard negatives: slices without a lesion in which the detector of an earlier stage sees one nevertheless."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.progress import progress_bar
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.systems.psma25d.plan import PSMA25DPlan
from nndet_psma.systems.psma25d.predict import predict_slices

HARD_SHARE = (
    0.25  # of the slices without a lesion: enough variety not to train on a handful of vessels. Our choice.
)
MIN_SCORE = 0.05  # torchvision's detectors call anything below no detection
_FILE = "hard_negatives.json"


def hard_negatives(scores: Mapping[str, float], share: float = HARD_SHARE) -> list[str]:
    """The ``share`` best-scored slices (at least one, if any scores ``MIN_SCORE``), best first, ties by name."""
    ranked = sorted((name for name in scores if scores[name] >= MIN_SCORE), key=lambda n: (-scores[n], n))
    return ranked[: max(1, round(share * len(scores)))]


def mine(
    model: nn.Module,
    store: Path,
    case_ids: Sequence[str],
    plan: PSMA25DPlan,
    seen: Stage,
    wanted: Stage,
    *,
    device: torch.device,
    batch_size: int,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Highest score of a detection in each slice without a lesion, by ``case:z``.

    Args:
        model: detector of stage ``seen`` in evaluation mode on ``device``.
        store: preprocessed cases.
        case_ids: training cases of the fold; validation cases must not be among them.
        plan: of both stages.
        seen: how the model looks at a slice.
        wanted: the stage that is going to be trained: its slices are scored, and only boxes in its region count.
        device: where the model is.
        batch_size: slices per forward pass.
        advance: called after every case.
    """
    scores: dict[str, float] = {}
    with progress_bar(f"hard negatives for {wanted.name}", len(case_ids)) as show:
        for number, case_id in enumerate(case_ids, start=1):
            case = read_case(store, case_id)
            scores |= _score_case(model, case, plan, seen, wanted, device, batch_size)
            show(number, case_id)
            advance()
    return scores


def mined_before(folder: Path, made_from: str) -> dict[str, float] | None:
    """Scores that :func:`keep_scores` wrote for the same weights and data; None otherwise."""
    file = folder / _FILE
    content = read_json(file) if file.is_file() else None
    if not isinstance(content, dict) or content.get("made_from") != made_from:
        return None
    return {str(name): float(score) for name, score in content["scores"].items()}


def keep_scores(folder: Path, made_from: str, scores: Mapping[str, float]) -> None:
    """Write the scores beside the weights they come from, the hardest first, so that a person can look at them."""
    ranked = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
    write_json(folder / _FILE, {"made_from": made_from, "scores": ranked})


def _score_case(
    model: nn.Module,
    case: PreparedCase,
    plan: PSMA25DPlan,
    seen: Stage,
    wanted: Stage,
    device: torch.device,
    batch_size: int,
) -> dict[str, float]:
    region = stage_region(case, plan, wanted)
    instances = case.instances
    negative = [z for z in region.slices.tolist() if instances is None or not instances[z].any()]
    if not negative:
        return {}
    found = predict_slices(
        model, case, plan, seen, device=device, batch_size=batch_size, only=np.array(negative)
    )
    scores = {f"{case.case_id}:{z}": 0.0 for z in negative}
    for z, box, score in zip(
        found.columns["slice"].tolist(), found.boxes, found.scores.tolist(), strict=True
    ):
        y, x = (int((low + high) / 2) for low, high in zip(box[:2], box[2:], strict=True))
        if region.mask is None or region.mask[z, y, x]:
            name = f"{case.case_id}:{z}"
            scores[name] = max(scores[name], float(score))
    return scores
