"""The sweep's table folded onto two axes."""

import numpy as np

from nndet_psma.report.charts.landscape import hu_landscape, voting_landscape, zone_values
from nndet_psma.report.charts.scores import filter_chart, landscape_chart


def test_voting_takes_the_best_over_the_rest(sweep_table):
    # phase 2 of the tiny sweep: 1 vote 0.6, 2 votes 0.7, one overlap; a worse row of 2 votes must not win
    worse = list(sweep_table["rows"][-1])
    worse[-1] = 0.1
    sweep_table["rows"].append(worse)
    landscape = voting_landscape(sweep_table)
    np.testing.assert_allclose(landscape.values, [[0.6], [0.7]])
    assert (landscape.row_labels, landscape.column_labels) == (["1", "2"], ["0.5"])
    assert landscape.chosen == (1, 0)
    assert landscape.chosen_text == "Chosen (red frame): 2 votes at IoU 0.5."


def test_hu_filter_leaves_out_off_but_names_it(sweep_table):
    landscape = hu_landscape(sweep_table)
    np.testing.assert_allclose(landscape.values, [[0.5, 0.45]])  # 100 HU and 120 HU at quantile 0.5
    assert landscape.chosen == (0, 0)
    assert "Without HU filter the best value is 0.300." in landscape.caption  # 0.2 and 0.3 were seen


def test_a_filter_that_was_switched_off_is_not_framed(sweep_table):
    sweep_table["best"]["hu_threshold"] = None
    landscape = hu_landscape(sweep_table)
    assert landscape.chosen is None
    assert landscape.chosen_text == "Chosen: HU filter off."


def test_one_window_has_no_voting_landscape(sweep_table):
    sweep_table["rows"] = [row for row in sweep_table["rows"] if row[0] == 1]
    assert voting_landscape(sweep_table) is None


def test_zones_in_order_with_the_chosen_one(sweep_table):
    assert zone_values(sweep_table) == ({"off": 0.4, "3": 0.5}, "3")


def test_rows_of_a_joint_sweep_serve_every_map(sweep_table):
    """Each row is a whole setting: the best over everything else is its best row."""
    place = {name: index for index, name in enumerate(sweep_table["columns"])}
    for row in sweep_table["rows"]:
        row[place["phase"]] = 0
        row[place["vote_iou"]] = row[place["vote_iou"]] or 0.5
        row[place["min_votes"]] = row[place["min_votes"]] or 1
    np.testing.assert_allclose(voting_landscape(sweep_table).values, [[0.6], [0.7]])
    np.testing.assert_allclose(
        hu_landscape(sweep_table).values, [[0.7, 0.45]]
    )  # 100 HU: now with the votes, too
    assert "all zone filters, votes and score thresholds." in hu_landscape(sweep_table).caption
    assert voting_landscape(sweep_table).caption == (
        "Voting: best value over all filters and score thresholds."
    )
    assert zone_values(sweep_table) == ({"off": 0.4, "3": 0.7}, "3")


def test_joint_sweep_of_one_window(sweep_table):
    sweep_table["rows"] = [[0, *row[1:]] for row in sweep_table["rows"] if row[0] == 1]
    assert voting_landscape(sweep_table) is None
    np.testing.assert_allclose(hu_landscape(sweep_table).values, [[0.5, 0.45]])


def test_charts_of_flat_and_negative_values(sweep_table):
    # a missed limit makes values negative; one value alone has no range
    for row in sweep_table["rows"]:
        row[-1] = -0.5
    assert landscape_chart(voting_landscape(sweep_table), "F1").uri.startswith("data:image/png;base64,")
    assert filter_chart({"off": -0.5}, "off", "F1").size[0] == 960


def test_rows_that_hold_all_thresholds_belong_to_every_landscape(sweep_table):
    # a joint row (phase 0) and one of a search (phase 3): both count for the vote, the HU filter and the zone
    for phase, value in ((0, 0.8), (3, 0.9)):
        sweep_table["rows"].append([phase, 3.0, 120.0, 0.5, 0.6, 1, 0.1, 1.0, 1.0, 1.0, 0.0, value])
    assert voting_landscape(sweep_table).values.tolist()[0][1] == 0.9  # 1 vote at IoU 0.6
    np.testing.assert_allclose(hu_landscape(sweep_table).values, [[0.5, 0.9]])
    assert zone_values(sweep_table)[0] == {"off": 0.4, "3": 0.9}


def test_a_joint_row_without_vote_is_left_out_of_the_landscape_of_the_vote(sweep_table):
    sweep_table["rows"] = [[0, 3.0, 120.0, 0.5, None, None, 0.1, 1.0, 1.0, 1.0, 0.0, 0.8]]
    assert voting_landscape(sweep_table) is None
    assert "over all zone filters, votes" in hu_landscape(sweep_table).caption
