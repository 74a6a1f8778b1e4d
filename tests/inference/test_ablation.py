"""Each row of the ablation: which voters, which steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_models import boxes_2d, raw_of

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.evaluation.detection.record import truth_from_instances
from nndet_psma.inference.ablation import COLUMNS, ablation
from nndet_psma.inference.records import make_record
from nndet_psma.postproc.steps.settings import PostprocSettings

GRID = Geometry((4, 10, 12), (4.0, 2.0, 2.0))
TRUE, FALSE, FAR = (1, 2, 3, 5, 7, 0.8), (3, 6, 8, 8, 10, 0.7), (0, 6, 0, 8, 2, 0.6)
SETTINGS = PostprocSettings(score_threshold=0.5, zone_mm=3.0, min_votes=2, vote_iou=0.5)


@pytest.fixture
def raw():
    """Both voters find the lesion; a also has a false box, b one 5 mm outside the CTV."""
    far = boxes_2d([TRUE, FAR]).with_columns(zone_mm=np.array([0.0, 5.0]))
    return [raw_of({"a": [boxes_2d([TRUE, FALSE])], "b": [far]}, GRID)]


def _rows(raw, settings=SETTINGS):
    instances = np.zeros(GRID.shape, np.uint8)
    instances[1, 2:5, 3:7] = 1
    truth = truth_from_instances(instances, {1: 0}, GRID.spacing)
    return ablation(
        raw, settings, {"0": "node"},
        lambda p: make_record(p, truth, GRID, p.case_id, slice_iou=0.1),
        bootstrap_draws=0, seed=0,
    )  # fmt: skip


def test_rows_by_hand(raw):
    """Slice precision: the lesion's box is right, the false and the far one are wrong while they stay."""
    rows = {(r.voters, r.filters, r.bagging): r.scores["paper_precision"].value for r in _rows(raw)}
    assert rows == {
        ("a", False, False): 0.5,
        ("b", False, False): 0.5,
        ("a", True, False): 0.5,  # the false box lies inside the zone
        ("b", True, False): 1.0,  # the far one does not
        ("all", True, True): 1.0,  # only the lesion has two votes
    }


def test_images_are_ranked_by_what_the_threshold_drops(raw):
    """Above 0.65 voter b keeps the lesion alone, and its image too: 1 in either way. Above 0.85 nothing is left: the
    four images tie (1/2), while the candidates still rank slice 1 (0.8) over slice 0 (0.6) and the empty ones."""
    for threshold, cut in ((0.65, 1.0), (0.85, 0.5)):
        rows = {
            (r.voters, r.filters): r.scores for r in _rows(raw, replace(SETTINGS, score_threshold=threshold))
        }
        assert rows["b", False]["paper_auc"].value == 1.0
        assert rows["b", False]["paper_auc_accepted"].value == cut


def test_detector_alone_means_without_any_filter(raw):
    """Boxes of 8 x 6 mm and less: the size filter takes all of them, and only rows with filters feel it."""
    rows = _rows(raw, replace(SETTINGS, min_size_mm=50.0))
    found = {(r.voters, r.filters): r.scores["paper_sensitivity"].value for r in rows}
    assert found == {
        ("a", False): 1.0, ("b", False): 1.0, ("a", True): 0.0, ("b", True): 0.0, ("all", True): 0.0
    }  # fmt: skip


def test_every_row_has_the_columns(raw):
    assert all(tuple(row.scores) == COLUMNS for row in _rows(raw))
    assert [row.scores["paper_sensitivity"].value for row in _rows(raw)] == [1.0] * 5


def test_one_voter_has_nothing_to_bag(raw):
    alone = [raw_of({"a": raw[0].voters["a"]}, GRID)]
    assert [(r.voters, r.bagging) for r in _rows(alone)] == [("a", False), ("a", False)]


def test_no_raw_predictions():
    assert _rows([]) == []
