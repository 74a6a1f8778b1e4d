"""Cases small enough to score by hand.

A case is a row of voxels. A lesion is one voxel; a prediction is one voxel too, so its IoU with a lesion is 1 or 0.
"""

import numpy as np
from hypothesis import strategies as st

from nndet_psma.boxes.detections import Detections
from nndet_psma.evaluation.detection.record import CaseRecord, Truth, build_record


def voxel_boxes(positions):
    """Boxes of single voxels at x = position."""
    x = np.asarray(positions, dtype=np.float64).reshape(-1)
    zeros, ones = np.zeros_like(x), np.ones_like(x)
    return np.stack([zeros, zeros, x, ones, ones, x + 1], axis=1)


def row_case(case_id, lesions, predictions, *, patient=None, labels=None, prediction_labels=None, **truth):
    """Record of lesions at positions, and predictions (score, position); a position without lesion is a miss."""
    scores = [score for score, _ in predictions]
    detections = Detections.build(voxel_boxes([place for _, place in predictions]), scores, prediction_labels)
    lesion_labels = np.zeros(len(lesions), dtype=np.int64) if labels is None else np.asarray(labels)
    return build_record(
        case_id, patient or case_id, Truth(lesion_labels, voxel_boxes(lesions), **truth), detections
    )


def row_cases(*cases):
    """Records of (lesions, predictions) pairs, every case its own patient."""
    return [row_case(f"case{index}", *case) for index, case in enumerate(cases)]


@st.composite
def random_records(draw, *, min_cases=0, max_cases=5, distinct_scores=False) -> list[CaseRecord]:
    """Up to five cases of up to three lesions and six predictions; positions 3 to 5 hold no lesion."""
    score = st.integers(1, 1000) if distinct_scores else st.integers(1, 8)
    sizes = draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=min_cases, max_size=max_cases)
    )
    total = sum(count for _, count in sizes)
    scores = draw(st.lists(score, min_size=total, max_size=total, unique=distinct_scores))
    places = draw(st.lists(st.integers(0, 5), min_size=total, max_size=total))
    rows = [(value / 1000, place) for value, place in zip(scores, places, strict=True)]
    cases = []
    for lesions, count in sizes:
        cases.append((range(lesions), rows[:count]))
        rows = rows[count:]
    return row_cases(*cases)
