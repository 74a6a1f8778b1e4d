"""Small cases of a detector on volumes and the evident way to score a setting, shared by the tests of its sweep."""

import numpy as np
from sweep_cases import slow_ranking

from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.average_precision import average_precision, mean_of_defined
from nndet_psma.evaluation.detection.froc import froc_score
from nndet_psma.evaluation.detection.operating_points import operating_points
from nndet_psma.evaluation.detection.ranking import rank_detections
from nndet_psma.evaluation.detection.record import DEFAULT_IOUS, build_record
from nndet_psma.evaluation.detection.truth import Truth
from nndet_psma.postproc.steps.ranking import MAX_CANDIDATES, ranking_settings
from nndet_psma.postproc.steps.settings import VOLUME_STEPS, PostprocSettings
from nndet_psma.postproc.steps.steps import postprocess_case
from nndet_psma.postproc.sweep.case import SweepCase

SPACING = (3.0, 1.0, 1.0)
BASE = PostprocSettings(steps=VOLUME_STEPS, hit_iou=0.2, score_threshold=0.0)


def volume_boxes(*rows, zone=0.0, hu=50.0):
    """3D detections from (box, score) or (box, score, label) rows with the columns of raw predictions."""
    return Detections.build(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] if len(row) > 2 else 0 for row in rows],
        zone_mm=np.broadcast_to(np.asarray(zone, dtype=float), len(rows)),
        hu_quantiles=np.broadcast_to(np.asarray(hu, dtype=np.float32).reshape(-1, 1), (len(rows), 10)),
    )


def volume_case(raw, boxes, labels=None, name="a"):
    truth = Detections.build(boxes, np.ones(len(boxes)), labels)
    return SweepCase(name, raw, truth, len(truth), 20, SPACING)


def random_volumes(seed, num_cases=3, folds=2, voters=1, most=9):
    """Crowded boxes, tied scores, two labels, a lesion lost to the crop, a case without lesions."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner, side = rng.integers(0, 5, (count, 3)), rng.integers(2, 6, (count, 3))
        return np.hstack([corner, corner + side]), rng.integers(0, 2, count)

    def fold():
        count = int(rng.integers(0, most))
        at, label = boxes(count)
        return Detections.build(
            at,
            rng.choice((0.2, 0.4, 0.6, 0.8), count),
            label,
            zone_mm=rng.integers(0, 5, count).astype(float),
            hu_quantiles=np.sort(rng.integers(60, 180, (count, 10)), axis=1).astype(np.float32),
        )

    cases = []
    for index in range(num_cases):
        at, label = boxes(0 if index == 1 else 4)
        at[:1] = 0
        raw = {f"v{v}": [fold() for _ in range(folds)] for v in range(voters)}
        cases.append(volume_case(raw, at, label, f"case{index}"))
    return cases


def slow_records(cases, settings):
    """Records of the accepted lesions, as the evaluation makes them; ``settings`` are one or one for each case."""
    own = settings if isinstance(settings, list) else [settings] * len(cases)
    records = []
    for case, each in zip(cases, own, strict=True):
        none = np.zeros(0, dtype=np.int64)
        truth = Truth(case.truth.labels, case.truth.boxes, none, none, np.zeros((0, 4)), 20)
        lesions = postprocess_case(case.raw, each, spacing=case.spacing).lesions
        ious = (*DEFAULT_IOUS, each.hit_iou)
        records.append(build_record(case.case_id, case.case_id, truth, lesions, ious=ious, rules=()))
    return records


def slow_candidates(cases, settings):
    """Records of the ranked candidates, the best hundred of every case."""
    own = settings if isinstance(settings, list) else [settings] * len(cases)
    records = slow_records(cases, [ranking_settings(each) for each in own])
    assert max(len(record.predictions) for record in records) <= MAX_CANDIDATES
    return records


def slow_metrics(cases, settings):
    """Sensitivity, precision, F1, false positives per case of the accepted lesions."""
    iou = (settings[0] if isinstance(settings, list) else settings).hit_iou
    ranked = rank_detections(slow_records(cases, settings), iou=iou, max_detections=None)
    point = operating_points(ranked, [0.0])[0]
    return {
        "sensitivity": point.sensitivity or 0.0,
        "precision": point.ppv or 0.0,
        "f1": point.f1 or 0.0,
        "fp_per_case": point.fp_per_case,
    }


def slow_curve(cases, settings, metric):
    """mAP, AP or FROC score by the functions of the evaluation; AUC by plain loops."""
    if metric in ("auc", "patient_auc"):
        return slow_ranking(cases, settings, metric)
    iou = (settings[0] if isinstance(settings, list) else settings).hit_iou
    records = slow_candidates(cases, settings)
    if metric == "froc":
        return froc_score(rank_detections(records, iou=iou)) or 0.0
    ious = DEFAULT_IOUS if metric == "map" else (iou,)
    labels = sorted({int(label) for case in cases for label in case.truth.labels})
    values = [average_precision(rank_detections(records, iou=t, label=c)) for c in labels for t in ious]
    return mean_of_defined(values) or 0.0
