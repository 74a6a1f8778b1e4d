"""Table 1 of Hartenstein et al. 2020 (Sci Rep 10:3398), recomputed: 65 positive and 65 negative nodes."""

import pytest
from scipy.stats import binomtest

from nndet_psma.evaluation.statistics.printed_counts import (
    METRICS,
    MatchingCounts,
    counts_from_percentages,
    mcnemar_bounds,
)

TABLE = {  # (TP, TN): accuracy, sensitivity, specificity, PPV, NPV, F1 as printed
    "CNN status": ((56, 60), (89, 86, 92, 91, 86, 88)),
    "CNN location": ((47, 58), (80, 72, 89, 87, 76, 78)),
    "CNN xMask": ((50, 50), (76, 76, 76, 76, 76, 76)),
    "RF status": ((55, 62), (90, 84, 95, 94, 86, 89)),
    "RF location": ((46, 39), (65, 70, 60, 63, 67, 67)),
    "expert 1": ((52, 61), (86, 80, 93, 92, 82, 85)),
    "expert 2": ((33, 64), (74, 50, 98, 97, 66, 66)),
}


@pytest.mark.parametrize("row", TABLE)
def test_every_row_of_the_paper_has_one_pair_of_counts_and_only_by_cutting(row):
    counts, printed = TABLE[row]
    found = counts_from_percentages(65, 65, dict(zip(METRICS, printed, strict=True)))
    assert found == [MatchingCounts(*counts, modes=("cut",))]


def test_printed_digits_and_ways_of_shortening():
    # 1 of 3 is 33.3 either way; 2 of 3 is cut to 66.6 and rounded to 66.7
    assert counts_from_percentages(3, 1, {"sensitivity": 66.7}, decimals=1) == [
        MatchingCounts(2, 0, ("round",)),
        MatchingCounts(2, 1, ("round",)),
    ]
    assert counts_from_percentages(3, 1, {"sensitivity": 33.3, "specificity": 100}, decimals=1) == [
        MatchingCounts(1, 1, ("cut", "round"))
    ]
    # 29 of 100 must not be cut to 28 by binary fractions; 1 of 8 is 12.5: a half goes either way
    assert [m.tp for m in counts_from_percentages(100, 1, {"sensitivity": 29, "specificity": 0})] == [29]
    assert [m.modes for m in counts_from_percentages(8, 1, {"sensitivity": 13, "specificity": 0})] == [
        ("round",)
    ]
    assert counts_from_percentages(10, 10, {"ppv": 99}) == []  # undefined without a call


def test_what_cannot_be_asked():
    for printed in ({}, {"auc": 90}):
        with pytest.raises(ValueError, match="expected some of accuracy"):
            counts_from_percentages(5, 5, printed)


def test_mcnemar_from_margins():
    # 14 errors of the network on status, 33 of expert 2, of 130 nodes
    bounds = mcnemar_bounds(14, 33, 130)
    assert (bounds.fewest_shared, bounds.most_shared, len(bounds.p_of_shared)) == (0, 14, 15)
    assert bounds.p_of_shared[0] == pytest.approx(0.0079, abs=5e-5)
    assert bounds.p_of_shared[3] == pytest.approx(binomtest(11, 41).pvalue)
    assert bounds.shared_below(0.005) == 3  # so "not significant" needs at most two shared errors
    assert bounds.shared_below(1e-9) is None
    assert mcnemar_bounds(3, 3, 4).fewest_shared == 2  # 6 errors in 4 rows: two rows have both
    with pytest.raises(ValueError, match="5 and 1 errors in 4 rows"):
        mcnemar_bounds(5, 1, 4)
