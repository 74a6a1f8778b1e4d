"""Suspicious nodes, the largest node and the N stage."""

import math

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.nodes.measurement import NodeMeasurement
from nndet_psma.nodes.staging import THRESHOLD_SOURCE, StagingRule, stage_nodes


def node(number, short, in_plane=1.0, volume=100.0, zone=None):
    return NodeMeasurement(
        node=number, box=(0, 0, 0, 1, 1, 1), centre_mm=(0, 0, 0), volume_mm3=volume,
        box_sides_mm=(short + 2, short + 1, short), box_volume_mm3=1.0, in_plane_long_mm=in_plane + 1,
        in_plane_short_mm=in_plane, slice=0, slices=1, cut_off=False,
        box_short_zone_mm=None if zone is None else (short - zone, short + zone),
    )  # fmt: skip


def test_above_eight_millimetres_is_suspicious_and_eight_is_not():
    assert stage_nodes([node(1, 8.0)]).stage == "N0"
    result = stage_nodes([node(5, 8.0), node(2, math.nextafter(8.0, 9.0)), node(1, 12)])
    assert (result.stage, result.suspicious, result.largest, result.short_mm) == ("N1", [1, 2], 1, 12)


def test_no_nodes_are_n0():
    result = stage_nodes([])
    assert (result.stage, result.suspicious, result.largest, result.short_mm) == ("N0", [], None, 0.0)


def test_the_in_plane_short_axis_instead():
    nodes = [node(1, 9, in_plane=7), node(2, 5, in_plane=8.5)]
    assert stage_nodes(nodes).suspicious == [1]
    assert stage_nodes(nodes, StagingRule(diameter="in_plane")).suspicious == [2]
    assert stage_nodes(nodes, StagingRule(threshold_mm=4.5)).suspicious == [1, 2]


def test_what_makes_a_node_the_largest():
    nodes = [node(1, 9, volume=50), node(2, 7, volume=90), node(3, 9, volume=60)]
    assert stage_nodes(nodes).largest == 3  # short diameter first, then volume
    assert stage_nodes(nodes, StagingRule(largest_by="volume")).largest == 2
    assert stage_nodes([node(4, 9), node(2, 9)]).largest == 2  # all equal: the lower id


def test_the_stage_follows_from_the_largest_node():
    # as in the paper's report: with "diameter" the largest node is suspicious exactly in N1
    for shorts in ([3, 5], [3, 9], [8.0], [8.1, 20]):
        nodes = [node(i, short) for i, short in enumerate(shorts, 1)]
        result = stage_nodes(nodes)
        assert (result.stage == "N1") == (result.largest in result.suspicious) == (result.short_mm > 8)


def test_the_source_of_the_threshold_is_kept():
    assert StagingRule().source == THRESHOLD_SOURCE
    assert StagingRule(10.0).source == "chosen by the user"
    assert StagingRule(diameter="in_plane").source == "chosen by the user"
    assert StagingRule(10.0, source="RECIST 1.1").source == "RECIST 1.1"


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan, math.inf])
def test_senseless_thresholds(threshold):
    with pytest.raises(UserError, match="positive number of mm"):
        StagingRule(threshold)


def test_unknown_choices():
    with pytest.raises(UserError, match="box or in_plane"):
        StagingRule(diameter="sphere")
    with pytest.raises(UserError, match="diameter or volume"):
        StagingRule(largest_by="weight")


def test_borderline_is_a_zone_on_both_sides_of_the_threshold():
    rule = StagingRule()
    assert rule.is_borderline(node(1, 8.0, zone=0.1))  # not suspicious, but may be
    assert rule.is_borderline(node(1, 8.5, zone=0.5))  # exactly 8 would not be suspicious
    assert not rule.is_borderline(node(1, 8.5, zone=0.4))
    assert not rule.is_borderline(node(1, 7.5, zone=0.5))  # 8 at most: not suspicious in any case
    assert not rule.is_borderline(node(1, 8.0))  # a detected box
    assert not StagingRule(diameter="in_plane").is_borderline(node(1, 8.0, zone=1.0))


@pytest.mark.parametrize(
    ("nodes", "stage", "borderline", "hinges_on"),
    [
        ([], "N0", [], []),
        ([node(1, 8.2, zone=1), node(2, 5, zone=1)], "N1", [1], [1]),
        ([node(1, 8.2, zone=1), node(2, 12, zone=1)], "N1", [1], []),  # node 2 is enough
        ([node(3, 8.2, zone=1), node(2, 7.5, zone=1)], "N1", [2, 3], [3]),
        ([node(3, 7.9, zone=1), node(2, 5, zone=1)], "N0", [3], [3]),
        ([node(3, 6, zone=1), node(2, 5, zone=1)], "N0", [], []),
        ([node(3, 9), node(2, 7.9, zone=1)], "N1", [2], []),
    ],
)
def test_what_the_stage_hinges_on(nodes, stage, borderline, hinges_on):
    result = stage_nodes(nodes)
    assert (result.stage, result.borderline, result.hinges_on) == (stage, borderline, hinges_on)
