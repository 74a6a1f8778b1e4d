import numpy as np
import pytest

from nndet_psma.postproc.sweep.candidates import SweepGrid

GRID = SweepGrid((2.0, 1.0), (100.0,), (0.5, 0.3), (0.5,), (2, 5))


def test_paper_grid_is_table_3():
    grid = SweepGrid.paper_grid()
    assert grid.zone_mm[0] == 0.648  # 1 pixel
    assert grid.zone_mm[-1] == 6.48  # 10 pixels, the whole margin
    assert grid.hu_threshold == (80, 100, 120, 140, 160)
    assert grid.hu_quantile == grid.vote_iou == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert grid.min_votes == (1, 2, 3, 4, 5)
    assert grid.hit_iou == grid.vote_iou


def test_paper_grid_in_other_pixels():
    assert SweepGrid.paper_grid(pixel_mm=1.0).zone_mm == tuple(range(1, 11))


def test_one_vote_is_always_a_candidate():
    assert GRID.votes(5) == [1, 2, 5]
    assert SweepGrid((), (), (), (0.5,), ()).votes(3) == [1]


def test_other_settings_and_options_of_steps():
    grid = SweepGrid((), (), (), (0.5,), (), others={"nms_iou": (0.3, 0.5), "Texture.limit": (1, 2)})
    assert grid.candidates()["nms_iou"] == (0.3, 0.5)
    assert grid.candidates()["Texture.limit"] == (1, 2)
    with pytest.raises(ValueError, match="there is no setting 'tau7'"):
        SweepGrid((), (), (), (0.5,), (), others={"tau7": (1,)})


def test_votes_end_at_the_number_of_voters():
    assert GRID.votes(3) == [1, 2]


def test_every_score_is_tried():
    assert GRID.score_thresholds(np.array([0.5, 0.2, 0.5])).tolist() == [0, 0.2, 0.5]
    assert GRID.score_thresholds(np.zeros(0)).tolist() == [0]


def test_many_scores_are_thinned_to_scores_that_occur():
    scores = np.random.default_rng(0).random(1000)
    tried = GRID.score_thresholds(scores)
    assert len(tried) == 65
    assert set(tried[1:]) <= set(scores)
    assert tried[1] == scores.min()
    assert tried[-1] == scores.max()


def test_given_scores():
    grid = SweepGrid((), (), (), (0.5,), (), score_threshold=(0.6, 0.3))
    assert grid.score_thresholds(np.array([0.1])).tolist() == [0, 0.3, 0.6]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (((-1.0,), (), (), (0.5,), ()), "zone_mm must"),
        (((), (), (0.25,), (0.5,), ()), "hu_quantile must"),
        (((), (), (), (0.0,), ()), "vote_iou must"),
        (((), (), (), (), ()), "vote_iou needs at least one candidate"),
        (((), (), (), (0.5,), (0,)), "min_votes must"),
        (((), (), (), (0.5,), (), (2.0,)), "score_threshold must"),
    ],
)
def test_candidates_out_of_range(values, match):
    with pytest.raises(ValueError, match=match):
        SweepGrid(*values)
