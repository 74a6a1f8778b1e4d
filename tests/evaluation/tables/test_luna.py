import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from nndet_psma.evaluation.detection.froc import FP_RATES
from nndet_psma.evaluation.tables.luna import Marks, luna_ranking, luna_scores


def marks(*rows):
    """Marks of (case, x, value); y and z are 0."""
    return Marks(
        [case for case, *_ in rows],
        np.array([[x, 0.0, 0.0] for _, x, _ in rows]).reshape(-1, 3),
        np.array([value for *_, value in rows], dtype=float),
    )


def score(truth, candidates, cases, **options):
    return luna_scores(luna_ranking(truth, candidates, cases, **options))


def counts(truth, candidates, cases, **options):
    result = score(truth, candidates, cases, **options)
    return result["true_positives"], result["false_positives"], result["n_lesions"]


def test_a_curve_by_hand():
    # two scans, three findings of 10 mm. Scores: hit 0.9, false 0.8, hit 0.7, false 0.6; one finding missed.
    # Points (FP per scan, sensitivity): (0, 1/3), (1/2, 1/3) -> at 0.7 (1/2, 2/3), (1, 2/3)
    truth = marks(("a", 0, 10), ("a", 100, 10), ("b", 0, 10))
    candidates = marks(("a", 1, 0.9), ("a", 50, 0.8), ("a", 99, 0.7), ("b", 50, 0.6))
    result = score(truth, candidates, ["a", "b"])
    sensitivities = [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert list(result["sensitivity_at_fp"]) == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]
    assert list(result["sensitivity_at_fp"].values()) == pytest.approx(sensitivities)
    assert result["cpm"] == pytest.approx(sum(sensitivities) / 7)
    assert (result["n_cases"], result["n_lesions"]) == (2, 3)
    assert (result["true_positives"], result["false_positives"]) == (2, 2)


def test_the_best_of_several_hits_counts_and_the_others_are_ignored():
    truth = marks(("a", 0, 10))
    ranked = luna_ranking(truth, marks(("a", 1, 0.2), ("a", 2, 0.9), ("a", -1, 0.5)), ["a"])
    assert (ranked.scores.tolist(), ranked.hits.tolist()) == ([0.9], [True])


def test_one_candidate_finds_two_findings():
    assert counts(marks(("a", 0, 10), ("a", 6, 10)), marks(("a", 3, 0.9)), ["a"]) == (2, 0, 2)


def test_the_radius_itself_is_no_hit():
    assert counts(marks(("a", 0, 10)), marks(("a", 5, 0.9)), ["a"]) == (0, 1, 1)
    assert counts(marks(("a", 0, 10)), marks(("a", 4.99, 0.9)), ["a"]) == (1, 0, 1)
    assert counts(marks(("a", 0, 10)), marks(("a", 5, 0.9)), ["a"], radius_mm=6) == (1, 0, 1)


def test_excluded_findings_count_neither_way():
    excluded = marks(("a", 50, -1), ("a", 100, 4))  # unknown: 10 mm
    candidates = marks(("a", 54.9, 0.9), ("a", 55, 0.8), ("a", 101, 0.7), ("a", 103, 0.6))
    # 54.9 and 101 are ignored, 55 and 103 lie outside, nothing is missed
    assert counts(marks(), candidates, ["a"], excluded=excluded) == (0, 2, 0)
    # a candidate that hits both kinds is a hit
    assert counts(marks(("a", 52, 10)), marks(("a", 51, 0.9)), ["a"], excluded=excluded) == (1, 0, 1)


def test_scans_that_are_not_listed_are_left_out_and_scans_without_anything_count():
    truth, candidates = (
        marks(("a", 0, 10), ("x", 0, 10)),
        marks(("a", 50, 0.9), ("x", 50, 0.9), ("a", 1, 0.5)),
    )
    result = score(truth, candidates, ["a", "empty1", "empty2", "empty3"])
    assert (result["n_cases"], result["n_lesions"], result["false_positives"]) == (4, 1, 1)
    # the only false positive: 1/4 per scan, where the curve rises to 1; halfway there it is 0 still (upright)
    assert result["sensitivity_at_fp"]["0.125"] == 0.0
    assert result["sensitivity_at_fp"]["0.25"] == 1.0


def test_only_the_best_candidates_of_a_scan():
    candidates = marks(("a", 50, 0.1), ("a", 1, 0.1), ("a", 60, 0.9), ("b", 50, 0.05))
    assert counts(marks(("a", 0, 10)), candidates, ["a", "b"], max_per_case=2) == (
        0,
        3,
        1,
    )  # 0.1: the first stays
    assert counts(marks(("a", 0, 10)), candidates, ["a", "b"], max_per_case=3) == (1, 3, 1)


def test_nothing_there_and_nothing_found():
    assert score(marks(), marks(("a", 0, 0.9)), ["a"])["cpm"] is None
    nothing = score(marks(("a", 0, 10)), marks(), ["a"])
    assert (nothing["cpm"], nothing["n_lesions"]) == (0.0, 1)
    assert score(marks(), marks(), [])["sensitivity_at_fp"] == dict.fromkeys(
        ("0.125", "0.25", "0.5", "1", "2", "4", "8")
    )


def slow_lists(truth, excluded, candidates, cases):
    """The challenge's rules told candidate by candidate: (is lesion, score, found at all) of every entry."""
    entries = []
    for case in cases:
        left = {i for i, name in enumerate(candidates.cases) if name == case}
        mine = sorted(left)
        for included, findings in ((True, truth), (False, excluded)):
            for j, name in enumerate(findings.cases):
                if name != case:
                    continue
                radius = (findings.values[j] if findings.values[j] >= 0 else 10.0) / 2
                hits = [i for i in mine if abs(candidates.centres[i][0] - findings.centres[j][0]) < radius]
                left -= set(hits)
                if included:
                    scores = [candidates.values[i] for i in hits]
                    entries.append((1, max(scores, default=-1e9), bool(hits)))
        entries += [(0, candidates.values[i], True) for i in left]
    return entries


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_equals_the_rules_told_slowly_and_scikit_learns_curve(data):
    cases = ["a", "b", "c"]

    def draw(size, values):
        row = st.tuples(st.sampled_from(cases), st.integers(0, 30), values)
        return marks(*data.draw(st.lists(row, max_size=size)))

    truth, excluded = draw(6, st.sampled_from([3, 8, -1])), draw(4, st.sampled_from([4, -1]))
    candidates = draw(12, st.integers(1, 9).map(lambda value: value / 10))
    entries = slow_lists(truth, excluded, candidates, cases)
    result = score(truth, candidates, cases, excluded=excluded)
    kept = [(label, value) for label, value, found in entries if found]
    hits, negatives = sum(label for label, _ in kept), sum(1 - label for label, _ in kept)
    assert (result["true_positives"], result["false_positives"]) == (hits, negatives)
    if hits and negatives:
        fpr, tpr, _ = roc_curve([label for label, _ in kept], [value for _, value in kept])
        expected = np.interp(FP_RATES, fpr * negatives / len(cases), tpr * hits / len(truth.cases))
        assert list(result["sensitivity_at_fp"].values()) == pytest.approx(expected.tolist())
