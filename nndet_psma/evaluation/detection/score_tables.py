"""All single-number scores of a set of records, for any weighting of the cases.

Keys are nnDetection's: ``AP_IoU_0.10_MaxDet_100``, ``mAP_IoU_0.10_0.50_0.05_MaxDet_100``,
``FROC_score_IoU_0.10``, each also with the prefix ``<class>_``; beside them ``paper_sensitivity``,
``paper_precision``, ``paper_f1``, ``paper_auc``, ``paper_auc_accepted`` and ``patient_auc``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from nndet_psma.evaluation.detection.accepted import rank_accepted
from nndet_psma.evaluation.detection.average_precision import average_precision, mean_of_defined
from nndet_psma.evaluation.detection.froc import froc_score
from nndet_psma.evaluation.detection.paper_protocol import PaperScores, SliceTable, paper_scores, slice_table
from nndet_psma.evaluation.detection.patient import PatientTable, patient_auc, patient_table
from nndet_psma.evaluation.detection.ranking import DetectionColumns, RankedDetections, Weights
from nndet_psma.evaluation.detection.record import DEFAULT_IOUS, OTHER_RULES, CaseRecord, iou_key

MAX_DETECTIONS = 100
REPORT_IOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
MAP_KEY = f"mAP_IoU_0.10_0.50_0.05_MaxDet_{MAX_DETECTIONS}"
PATIENT_KEY = "patient_auc"
PAPER_KEYS = tuple(f"paper_{each.name}" for each in fields(PaperScores))

ScoreValues = dict[str, float | None]


@dataclass(frozen=True)
class ScoreTables:
    """Everything that is computed once and then weighted.

    Attributes:
        by_class: class name to IoU to ranked predictions of that class.
        pooled: IoU to ranked predictions of all classes.
        slices: slice-wise part; None when a record has none.
        patients: patient-wise part.
        others: key of a further hit rule to ranked predictions of all classes.
        accepted: hit rule to accepted lesions of all classes; empty when a record does not know them.
    """

    by_class: dict[str, dict[float, RankedDetections]]
    pooled: dict[float, RankedDetections]
    slices: SliceTable | None
    patients: PatientTable
    others: dict[str, RankedDetections] = field(default_factory=dict)
    accepted: dict[str, RankedDetections] = field(default_factory=dict)


def ap_key(iou: float) -> str:
    """nnDetection's name of the average precision at ``iou``."""
    return f"AP_IoU_{iou_key(iou)}_MaxDet_{MAX_DETECTIONS}"


def froc_key(iou: float) -> str:
    """nnDetection's name of the FROC score at ``iou``."""
    return f"FROC_score_IoU_{iou_key(iou)}"


def other_key(rule: str) -> str:
    """Name of the FROC score under a further hit rule, by the rule's key."""
    return f"FROC_score_{rule}"


def build_tables(
    records: Sequence[CaseRecord], classes: Sequence[str], *, slice_threshold: float = 0.0
) -> ScoreTables:
    """Rank and gather ``records``.

    Args:
        records: cases, matched at every IoU of :data:`~nndet_psma.evaluation.detection.record.DEFAULT_IOUS`.
        classes: name of each class index.
        slice_threshold: lowest score of a slice-wise prediction that counts.

    Raises:
        ValueError: a record was not matched at one of the IoUs.
    """

    columns = DetectionColumns.of(records)

    def rank(ious: Sequence[float], label: int | None) -> dict[float, RankedDetections]:
        ranked = columns.rank([iou_key(iou) for iou in ious], label=label, max_detections=MAX_DETECTIONS)
        return dict(zip(ious, ranked, strict=True))

    others = [rule.key for rule in OTHER_RULES if all(rule.key in record.matches for record in records)]
    return ScoreTables(
        by_class={name: rank(DEFAULT_IOUS, label) for label, name in enumerate(classes)},
        pooled=rank(REPORT_IOUS, None),
        slices=slice_table(records, threshold=slice_threshold),
        patients=patient_table(records),
        others=dict(zip(others, columns.rank(others, max_detections=MAX_DETECTIONS), strict=True)),
        accepted=rank_accepted(records),
    )


def score_values(tables: ScoreTables, weights: Weights | None = None) -> ScoreValues:
    """Every score by its key; None where it is undefined.

    Args:
        tables: from :func:`build_tables`.
        weights: ``[C]`` how often each case counts.
    """
    precisions = {
        name: {iou: average_precision(ranked, weights) for iou, ranked in by_iou.items()}
        for name, by_iou in tables.by_class.items()
    }
    values: ScoreValues = {
        MAP_KEY: mean_of_defined(value for by_iou in precisions.values() for value in by_iou.values())
    }
    values |= {ap_key(iou): mean_of_defined(each[iou] for each in precisions.values()) for iou in REPORT_IOUS}
    values |= {froc_key(iou): froc_score(tables.pooled[iou], weights) for iou in REPORT_IOUS}
    for name, by_iou in precisions.items():
        values[f"{name}_{MAP_KEY}"] = mean_of_defined(by_iou.values())
        values |= {f"{name}_{ap_key(iou)}": by_iou[iou] for iou in REPORT_IOUS}
        values |= {
            f"{name}_{froc_key(iou)}": froc_score(tables.by_class[name][iou], weights) for iou in REPORT_IOUS
        }
    return values | _paper_values(tables, weights) | {PATIENT_KEY: patient_auc(tables.patients, weights)}


def why_undefined(key: str, tables: ScoreTables) -> str:
    """Reason that the score ``key`` has no value."""
    if len(tables.patients.scores) == 0:
        return "there are no cases"
    if key == PATIENT_KEY:
        return "every patient has a lesion, or none has"
    if key in PAPER_KEYS:
        if tables.slices is None:
            return "there are cases without slice-wise detections"
        if key == "paper_auc" and tables.slices.image_ranks is None:
            return "the records of an older version do not hold all candidates"
        if key.startswith("paper_auc"):
            return "every slice holds a lesion, or none does"
        return "there is no slice-wise prediction" if key == "paper_precision" else "there are no lesions"
    return (
        "there are no lesions" if key in (MAP_KEY, *_overall_keys()) else "there are no lesions of this class"
    )


def _overall_keys() -> list[str]:
    return [name(iou) for name in (ap_key, froc_key) for iou in REPORT_IOUS]


def _paper_values(tables: ScoreTables, weights: Weights | None) -> ScoreValues:
    if tables.slices is None:
        return dict.fromkeys(PAPER_KEYS)
    scores = paper_scores(tables.slices, weights)
    return {f"paper_{each.name}": getattr(scores, each.name) for each in fields(scores)}
