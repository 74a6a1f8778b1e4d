"""Value of weights on validation patients: every case predicted and matched once, pooled average precision."""

from __future__ import annotations

import numpy as np
import pytest

from nndet_psma.boxes.detections import Detections
from nndet_psma.preprocess.store import read_case
from nndet_psma.trainers.selection import BoxHits, find_hits, lesion_boxes


def test_average_precision_by_hand():
    """Scores 0.9 hit, 0.8 miss, 0.7 hit of 2 lesions: precision 1 up to recall 0.5 (51 points), then 2/3 (50 points).

    The second class has one lesion and no box, value 0; the third has no lesion and does not count.
    """
    hits = BoxHits({0: [0.7, 0.9], 1: [], 2: [0.3]}, {0: [True, True], 1: [], 2: [False]}, {0: 1, 1: 1, 2: 0})
    hits.add(BoxHits({0: [0.8], 1: [], 2: []}, {0: [False], 1: [], 2: []}, {0: 1, 1: 0, 2: 0}))
    first = (51 * 1 + 50 * 2 / 3) / 101
    assert hits.average_precision() == pytest.approx((first + 0) / 2)
    assert BoxHits.none(2).average_precision() is None


def test_every_case_is_predicted_and_matched(tiny_task):
    cases, seen = ["case_0", "case_5"], []

    def match(found, case):
        assert found is seen[-1][1]
        return BoxHits({0: [0.5]}, {0: [case.case_id == "case_0"]}, {0: 1})

    def predict(case):
        seen.append((case.case_id, Detections.empty(3)))
        return seen[-1][1]

    found = find_hits(tiny_task.store, cases, predict, match, classes=1, advance=lambda: seen.append(None))
    assert [each and each[0] for each in seen] == ["case_0", None, "case_5", None]
    assert (found.scores, found.hits, found.lesions) == ({0: [0.5, 0.5]}, {0: [True, False]}, {0: 2})


def test_lesions_have_the_classes_of_the_case(tiny_task):
    case = read_case(tiny_task.store, "case_0")
    boxes, labels = lesion_boxes(case, np.asarray(case.instances))
    assert boxes.shape == (2, 6)
    assert labels.tolist() == [case.classes[1], case.classes[2]]
