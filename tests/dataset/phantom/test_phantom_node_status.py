"""Nodes whose status shows in one thing only."""

import numpy as np
import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom.node_status import (
    CONTRAST_HU,
    LARGE_MM,
    SMALL_MM,
    NodeStatusOptions,
    draw_node_status,
    plan_node_status,
)

COARSE = {"size": (14, 56, 72), "spacing": (6.0, 3.0, 3.0), "noise": 0.0}


def nodes_of(signal, cases=2, **options):
    for index in range(cases):
        case = draw_node_status(plan_node_status(0, "train", index), NodeStatusOptions(signal, **options))
        for number, node in case.nodes.items():
            yield case, number, node


def test_texture_has_the_same_histogram_and_another_order():
    """Core and rim have the same volume: of 1 negative and 1 positive node only their places differ."""
    medians, cores = {0: [], 1: []}, {0: [], 1: []}
    for case, number, node in nodes_of("texture", cases=3, noise=0.0):
        inside = case.labels == number
        values = case.images[0][inside]
        medians[node.status].append(values.mean())
        assert abs(node.core_hu - node.rim_hu) == pytest.approx(2 * CONTRAST_HU)
        cores[node.status].append(node.core_hu - node.rim_hu)
        assert set(np.unique(values)) <= {round(node.core_hu), round(node.rim_hu)}
    assert set(np.round(cores[0])) == {2 * CONTRAST_HU}  # negative: bright core
    assert set(np.round(cores[1])) == {-2 * CONTRAST_HU}
    assert abs(np.mean(medians[0]) - np.mean(medians[1])) < 5


def test_station_tells_the_status_and_nothing_else_does():
    found = [(node.station, node.status) for _, _, node in nodes_of("station", cases=40, **COARSE)]
    for station, share in (
        ("inguinal", 0.05),
        ("axillary", 0.05),
        ("iliac", 0.95),
        ("retroperitoneal", 0.95),
    ):
        own = [status for name, status in found if name == station]
        assert len(own) > 40
        assert np.mean(own) == pytest.approx(share, abs=0.1)


def test_size_tells_the_status():
    for _, _, node in nodes_of("size", cases=3, **COARSE):
        low, high = LARGE_MM if node.status else SMALL_MM
        assert low <= node.radius <= high


def test_the_same_specification_gives_the_same_case():
    first, second = (
        draw_node_status(plan_node_status(3, "test", 1), NodeStatusOptions(nodes=5, **COARSE))
        for _ in range(2)
    )
    assert np.array_equal(first.images[0], second.images[0])
    assert first.nodes == second.nodes
    assert len(first.nodes) == 5
    assert first.classes == {number: node.status for number, node in first.nodes.items()}
    assert first.notes() == {"stations": {str(k): node.station for k, node in first.nodes.items()}}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"signal": "colour"}, "unknown signal"),
        ({"nodes": 0}, "number of nodes"),
        ({"noise": -1.0}, "negative"),
    ],
)
def test_wrong_options_are_refused(given, words):
    with pytest.raises(UserError, match=words):
        NodeStatusOptions(**given)
