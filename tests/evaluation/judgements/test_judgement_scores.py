"""Scores of judgements against values worked out by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from nndet_psma.evaluation.judgements.row import JudgedRow, LeftOut
from nndet_psma.evaluation.judgements.scores import score_judgements
from nndet_psma.evaluation.judgements.table import read_objects, write_objects

NAMES = ["no", "yes"]


def row(probability, truth, decision=None, patient=None, case="c", number=1):
    """A row of two classes; ``yes`` from one half on unless told otherwise."""
    decision = decision or ("yes" if probability >= 0.5 else "no")
    return JudgedRow(
        case, patient or case, number, truth, decision, {"no": 1 - probability, "yes": probability}
    )


def of_patients(*pairs):
    """One object per patient."""
    return [row(p, truth, case=f"c{i}", patient=f"p{i}") for i, (p, truth) in enumerate(pairs)]


FIVE = of_patients((0.9, "yes"), (0.8, "no"), (0.6, "yes"), (0.4, "yes"), (0.1, "no"))


def test_two_classes_by_hand():
    """tp 2, fp 1, fn 1, tn 1; of the 6 pairs of yes and no, (0.6, 0.8) and (0.4, 0.8) are in the wrong order."""
    scores = score_judgements(FIVE, NAMES, draws=50)
    yes = scores.by_class["yes"]
    assert (scores.num_cases, scores.num_patients, scores.num_objects) == (5, 5, 5)
    assert scores.confusion == {"no": {"no": 1, "yes": 1}, "yes": {"no": 1, "yes": 2}}
    assert yes.auc.value == pytest.approx(4 / 6)
    assert (yes.sensitivity.hits, yes.sensitivity.total) == (2, 3)
    assert yes.specificity.value == 1 / 2
    assert yes.ppv.value == pytest.approx(2 / 3)
    assert yes.npv.value == 1 / 2
    assert yes.f1.value == pytest.approx(2 / 3)
    assert scores.accuracy.value == pytest.approx(3 / 5)
    assert scores.balanced_accuracy.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    brier = (0.1**2 + 0.8**2 + 0.4**2 + 0.6**2 + 0.1**2) / 5
    assert yes.brier.value == scores.brier.value == pytest.approx(brier)
    assert scores.shown == ["yes"]
    assert scores.by_class["no"].auc.value == pytest.approx(4 / 6)
    assert scores.by_class["no"].sensitivity.value == yes.specificity.value
    assert scores.majority is not None
    assert (scores.majority.decision, scores.majority.accuracy.hits) == ("yes", 3)


def test_one_object_per_patient_has_exact_intervals():
    """Clopper and Pearson of 2 of 3: 0.0943 to 0.9916."""
    share = score_judgements(FIVE, NAMES, draws=20).by_class["yes"].sensitivity
    assert (share.ci_low, share.ci_high) == (share.exact_low, share.exact_high)
    assert (share.ci_low, share.ci_high) == pytest.approx((0.0943, 0.9916), abs=1e-4)


def test_several_objects_of_a_patient_have_an_interval_over_patients():
    """Two patients, all right or all wrong: a draw takes one twice (0 or 1) or each once (1/2)."""
    rows = [row(0.9, "yes", case="a", number=n) for n in (1, 2)]
    rows += [row(0.9, "no", case="b", number=n) for n in (1, 2)]
    share = score_judgements(rows, NAMES, draws=200, intervals="percentile").accuracy
    assert (share.value, share.ci_low, share.ci_high) == (0.5, 0.0, 1.0)
    assert (share.exact_low, share.exact_high) == pytest.approx((0.0676, 0.9324), abs=1e-4)
    few = score_judgements(
        rows, NAMES, draws=200
    ).accuracy  # Student's quantile with one degree of freedom is 12.7
    assert (few.ci_low, few.ci_high) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert 0 < few.ci_low < few.ci_high < 1
    one = score_judgements(rows[:2], NAMES, draws=20).accuracy
    assert (one.value, one.ci_low) == (1.0, None)  # one patient says nothing about the spread
    assert one.exact_low is not None


def test_what_is_undefined_is_none():
    scores = score_judgements(of_patients((0.9, "yes"), (0.7, "yes")), NAMES, draws=20)
    yes = scores.by_class["yes"]
    assert (yes.auc.value, yes.auc_delong, yes.specificity.value, yes.npv.value) == (None, None, None, None)
    assert (yes.specificity.hits, yes.specificity.total) == (0, 0)
    assert yes.auc.why == "needs objects of the class and others"
    assert scores.balanced_accuracy.value is None
    assert scores.by_class["no"].f1.value is None
    assert scores.by_class["no"].sensitivity.value is None
    assert yes.sensitivity.value == 1.0


@pytest.mark.parametrize("rows", [[], [row(0.9, None)]])
def test_nothing_to_score(rows):
    scores = score_judgements(rows, NAMES, draws=20)
    assert scores.num_objects == 0
    assert scores.majority is None
    values = [scores.accuracy.value, scores.balanced_accuracy.value, scores.brier.value]
    assert values == [None] * 3
    assert scores.by_class["yes"].auc.value is None


def test_draws_without_a_class_are_counted_as_undefined():
    """Of two patients a draw takes one twice in half of the cases: then the AUC is undefined."""
    rows = of_patients((0.9, "yes"), (0.2, "no"))
    auc = score_judgements(rows, NAMES, draws=400, intervals="percentile").by_class["yes"].auc
    assert auc.value == 1.0
    assert 150 < auc.undefined_draws < 250
    assert (auc.ci_low, auc.ci_high) == (1.0, 1.0)
    few = score_judgements(rows, NAMES, draws=400)
    assert few.intervals == "studentised"
    assert few.by_class["yes"].auc.ci_low is None  # one patient of each kind says nothing about the spread


def test_another_class_is_refused():
    with pytest.raises(ValueError, match="maybe is none of the classes no, yes"):
        score_judgements([row(0.9, "maybe")], NAMES)


def test_three_classes_against_scikit_learn():
    rng = np.random.default_rng(3)
    names = ["a", "b", "c"]
    truth = rng.integers(0, 3, 60)
    logits = rng.normal(0, 1, (60, 3)) + 1.5 * np.eye(3)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    decision = probabilities.argmax(axis=1)
    rows = [
        JudgedRow(f"c{i}", f"p{i // 3}", i, names[t], names[d], dict(zip(names, p.tolist(), strict=True)))
        for i, (t, d, p) in enumerate(zip(truth, decision, probabilities, strict=True))
    ]
    scores = score_judgements(rows, names, draws=100)
    assert scores.shown == names
    assert scores.accuracy.value == pytest.approx(metrics.accuracy_score(truth, decision))
    assert scores.balanced_accuracy.value == pytest.approx(metrics.balanced_accuracy_score(truth, decision))
    assert scores.balanced_accuracy.ci_low < scores.balanced_accuracy.value < scores.balanced_accuracy.ci_high
    matrix = metrics.confusion_matrix(truth, decision).tolist()
    assert [list(line.values()) for line in scores.confusion.values()] == matrix
    for index, name in enumerate(names):
        positive, called = truth == index, decision == index
        found = scores.by_class[name]
        assert found.auc.value == pytest.approx(metrics.roc_auc_score(positive, probabilities[:, index]))
        assert found.brier.value == pytest.approx(metrics.brier_score_loss(positive, probabilities[:, index]))
        assert found.f1.value == pytest.approx(metrics.f1_score(positive, called))
        assert found.ppv.value == pytest.approx(metrics.precision_score(positive, called))
        assert found.sensitivity.value == pytest.approx(metrics.recall_score(positive, called))
        assert found.specificity.value == pytest.approx(metrics.recall_score(~positive, ~called))
        assert found.auc_delong[0] < found.auc.value < found.auc_delong[1]
    by_class = [found.brier.value for found in scores.by_class.values()]
    assert scores.brier.value == pytest.approx(sum(by_class) / 2)


def test_the_table_comes_back(tmp_path):
    rows = [
        row(0.25, "no", case="a", patient="p", number=3),
        row(1.0, None, case="b"),
        JudgedRow("c", "p", None, "yes", "no", {"no": 1 / 3, "yes": 2 / 3}),
    ]
    write_objects(tmp_path / "objects.csv", rows, NAMES)
    assert read_objects(tmp_path / "objects.csv") == rows
    lines = (tmp_path / "objects.csv").read_text().splitlines()
    assert lines[:2] == ["case_id,patient_id,object_id,truth,decision,p_no,p_yes", "a,p,3,no,no,0.75,0.25"]


def test_left_out_is_told():
    assert LeftOut().told() == []
    assert LeftOut(1, 2, 3).told() == [
        "1 judged, but of unknown class",
        "2 judged, but not in the label",
        "3 in the label, but not judged",
    ]


def test_a_constant_probability_ranks_nothing_and_has_no_interval():
    """AUC 0.5 by definition, whoever the patients are: an interval of 0.29 to 0.71 said that it might be better."""
    rows = of_patients(*zip([0.5] * 6, ["yes", "yes", "yes", "no", "no", "no"], strict=True))
    found = score_judgements(rows, NAMES, draws=50).by_class["yes"]
    assert (found.auc.value, found.auc.ci_low, found.auc_delong) == (0.5, None, None)
    assert found.auc.why == "constant: it ranks nothing"
