import numpy as np
import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.sweep.criterion import parse_criterion

METRICS = {
    "sensitivity": np.array([0.9, 0.8, 0.5]),
    "precision": np.array([0.2, 0.3, 0.6]),
    "f1": np.array([0.3, 0.4, 0.5]),
    "fp_per_case": np.array([8.0, 4.0, 0.0]),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f1", [0.3, 0.4, 0.5]),
        ("sensitivity@precision=0.3", [0.2 - 0.3, 0.8, 0.5]),  # the first misses by 0.1
        ("sensitivity@fp=4", [4 / 8 - 1, 0.8, 0.5]),  # twice too many: -0.5
        ("sensitivity@fp=0", [-1, -1, 0.5]),
        ("precision@sensitivity=.8", [0.2, 0.3, 0.5 - 0.8]),
    ],
)
def test_value(name, expected):
    np.testing.assert_allclose(parse_criterion(name).value(METRICS), expected)


def test_average_precision():
    # best precision at a sensitivity or above: 0.6 up to 0.5, 0.3 up to 0.8, 0.2 up to 0.9
    area = 0.5 * 0.6 + 0.3 * 0.3 + 0.1 * 0.2
    np.testing.assert_allclose(parse_criterion("ap").value(METRICS), [area] * 3)


def test_average_precision_of_equal_and_falling_sensitivities():
    # a consensus box that hits only once a vote has gone: sensitivity rises with the threshold
    metrics = {
        "sensitivity": np.array([0.5, 1.0, 0.5]),
        "precision": np.array([0.2, 0.4, 1.0]),
        "f1": np.zeros(3),
        "fp_per_case": np.zeros(3),
    }
    # up to 0.5 at precision 1, from there to 1 at 0.4
    np.testing.assert_allclose(parse_criterion("ap").value(metrics), [0.5 * 1 + 0.5 * 0.4] * 3)


def test_froc():
    # at most 1/8, 1/4, 1/2, 1, 2 false positives: 0.5; at most 4: 0.8; at most 8: 0.9
    np.testing.assert_allclose(parse_criterion("froc").value(METRICS), [(5 * 0.5 + 0.8 + 0.9) / 7] * 3)


@pytest.mark.parametrize(
    "name", ["F1", "AUC", "sensitivity", "sensitivity@fp", "precision@fp=1", "sensitivity@fp=-1"]
)
def test_unknown_lists_what_exists(name):
    with pytest.raises(UserError, match=r"unknown sweep criterion .* one of f1, sensitivity@precision=P"):
        parse_criterion(name)


def test_impossible_limit():
    with pytest.raises(UserError, match="precision from 0 to 1"):
        parse_criterion("sensitivity@precision=30")


def test_map_is_a_curve_that_slices_do_not_have():
    goal = parse_criterion("map")
    assert goal.of_curve
    with pytest.raises(UserError, match=r"criterion map judges boxes in 3D.*sweep.criterion=ap"):
        goal.value({"f1": np.zeros(1)})


@pytest.mark.parametrize("name", ["auc", "patient_auc"])
def test_rankings_are_curves_that_counts_do_not_tell(name):
    goal = parse_criterion(name)
    assert goal.of_ranking
    assert goal.of_curve  # the score threshold is taken by F1
    with pytest.raises(ValueError, match=f"criterion {name} ranks candidates"):
        goal.value(METRICS)
    assert not parse_criterion("ap").of_ranking
