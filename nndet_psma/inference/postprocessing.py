"""From raw predictions to the prediction of a case: post-processing and the way back to the image's own grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nndet_psma.artifacts.box_plan import BoxPlan
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.artifacts.raw_predictions import RawMeta, RawPrediction
from nndet_psma.boxes.box import Boxes, box_centres, box_sizes
from nndet_psma.boxes.geometry import map_boxes
from nndet_psma.core.errors import UserError
from nndet_psma.core.hashing import hash_json
from nndet_psma.core.schema import from_plain, to_plain
from nndet_psma.postproc.steps.order import step_order
from nndet_psma.postproc.steps.ranking import MAX_CANDIDATES, ranking_settings
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.steps import CaseResult, postprocess_case

__all__ = ["MAX_CANDIDATES", "make_prediction", "ranking_settings", "read_settings", "tuned_settings"]


def read_settings(inference: InferencePlan) -> PostprocSettings:
    """The thresholds of a model, types and ranges checked; its steps may be those of another framework.

    Raises:
        UserError: names the key.
    """
    try:
        return from_plain(PostprocSettings, inference.settings, "settings")
    except ValueError as error:
        raise _senseless(error) from None


def tuned_settings(plan: BoxPlan, inference: InferencePlan) -> PostprocSettings:
    """The thresholds of a model that predicts: steps that exist, too, and nothing accepted where nothing is seen.

    Raises:
        UserError: names the key; a step is code that nobody vouches for.
    """
    settings = read_settings(inference)
    try:
        plan.check_zone(settings.zone_mm)
    except ValueError as error:
        raise _senseless(error) from None
    step_order(settings.steps, plan.box_dim)
    return settings


def _senseless(error: ValueError) -> UserError:
    return UserError(f"the thresholds make no sense: {error}", remedy="Tune them again with nndet_sweep")


def make_prediction(raw: RawPrediction, settings: PostprocSettings, classes: dict[str, str]) -> Prediction:
    """Apply ``settings`` to the raw predictions of a case.

    Images searched without CTV have one voter (the whole-slice detector) and no zone; there ``min_votes`` is capped
    at the number of voters and the zone filter has nothing to measure.
    """
    settings = replace(settings, min_votes=min(settings.min_votes, len(raw.voters)))
    accepted = postprocess_case(raw.voters, settings, spacing=raw.meta.store.spacing)
    ranked = postprocess_case(raw.voters, ranking_settings(settings), spacing=raw.meta.store.spacing)
    examined = map_boxes(np.array([raw.meta.examined]), raw.meta.store, raw.meta.image)[0]
    return Prediction(
        case_id=raw.meta.case_id,
        made_from=hash_json([raw.meta.made_from, to_plain(settings)]),
        search_region=raw.meta.region,
        image=raw.meta.image,
        examined=tuple(examined.tolist()),
        lesions=_lesions(accepted, raw.meta, classes),
        candidates=_lesions(ranked, raw.meta, classes)[:MAX_CANDIDATES],
    )


def _lesions(result: CaseResult, meta: RawMeta, classes: dict[str, str]) -> list[PredictedLesion]:
    boxes = map_boxes(result.lesions.boxes, meta.store, meta.image)
    slices = map_boxes(_thin(result), meta.store, meta.image)
    owners = result.slices.columns.get("lesion", np.zeros(0, dtype=np.int64))
    votes = result.slices.columns.get("votes", np.ones(len(result.slices), dtype=np.int64))
    centres = meta.image.to_patient(box_centres(boxes)) if len(boxes) else np.zeros((0, 3))
    sizes = box_sizes(boxes) * np.array(meta.image.spacing)
    lesions = []
    for index in range(len(boxes)):
        rows = np.flatnonzero(owners == index)
        label = int(result.lesions.labels[index])
        lesions.append(
            PredictedLesion(
                score=round(float(result.lesions.scores[index]), 6),
                label=label,
                name=classes[str(label)],
                box=_rounded(boxes[index]),
                centre_mm=_rounded(centres[index]),  # type: ignore[arg-type]
                size_mm=_rounded(sizes[index]),  # type: ignore[arg-type]
                slices=[
                    SliceBox(_rounded(slices[r]), round(float(result.slices.scores[r]), 6), int(votes[r]))
                    for r in rows
                ],
            )
        )
    return lesions


def _thin(result: CaseResult) -> Boxes:
    """Slice boxes as 3D boxes one store slice thick."""
    z = result.slices.columns["slice"][:, None].astype(np.float64)
    flat = result.slices.boxes
    return np.concatenate([z, flat[:, :2], z + 1, flat[:, 2:]], axis=1)


def _rounded(values: Boxes) -> tuple[float, ...]:
    return tuple(round(float(v), 4) for v in values)
