import numpy as np
import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.postproc.criterion import parse_criterion

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


@pytest.mark.parametrize(
    "name", ["F1", "auc", "sensitivity", "sensitivity@fp", "precision@fp=1", "sensitivity@fp=-1"]
)
def test_unknown_lists_what_exists(name):
    with pytest.raises(UserError, match=r"unknown sweep criterion .* one of f1, sensitivity@precision=P"):
        parse_criterion(name)


def test_impossible_limit():
    with pytest.raises(UserError, match="precision from 0 to 1"):
        parse_criterion("sensitivity@precision=30")
