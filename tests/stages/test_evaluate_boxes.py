"""What the stage and its command tell of the tiny model of ``tiny_model.py``, whose numbers are known by hand.

Two images of six slices. Case a: node 1 on slices 2 and 3, node 2 on slice 4. Candidates that pass the filters: 0.9 on
slice 2 (node 1), 0.6 on slice 1 (false), 0.4 of one window, 0.2 of both, on slice 3 (false, outvoted). Accepted: the
first two. Case b holds nothing, and nothing is seen there.
"""

import csv
import json
from types import SimpleNamespace

import pytest
from tiny_model import build_model

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.cli import eval_boxes as command
from nndet_psma.stages.evaluate_boxes import evaluate_boxes, summary_rows


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> SimpleNamespace:
    return build_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def results(tiny):
    return tiny.folder.fold(-1) / "test_results"


@pytest.fixture(scope="module")
def evaluation(tiny):
    return evaluate_boxes(tiny.paths, tiny.folder, -1, test=True, seed=0)


def test_slices_are_ranked_by_all_candidates(evaluation):
    """Slices 2, 3, 4 score 0.9, 0.2, 0; of the nine without node one scores 0.6, eight 0: 9 + 8 + 4 of 27 pairs.

    Of accepted boxes alone slice 3 scores 0: 9 + 4 + 4 of 27.
    """
    scores = evaluation.scores.scores
    assert scores["paper_auc"].value == pytest.approx(21 / 27)
    assert scores["paper_auc_accepted"].value == pytest.approx(17 / 27)
    record = next(record for record in evaluation.records if record.case_id == "case_a")
    assert record.slices.image_scores == pytest.approx((0, 0.6, 0.9, 0.2, 0, 0))


def test_accepted_lesions_in_every_file(evaluation, results):
    """One of two nodes found, one false lesion, two patients."""
    accepted = json.loads((results / "scores.json").read_text())["accepted"]
    rates = accepted["by_rule"]["0.10"]
    assert (rates["tp"], rates["fp"], rates["fn"]) == (1, 1, 1)
    assert [rates[key]["value"] for key in ("sensitivity", "ppv", "f1", "fp_per_case", "fp_per_patient")] == [
        0.5
    ] * 5
    assert rates["fp_per_patient"]["ci_low"] == 0
    assert rates["fp_per_patient"]["ci_high"] == pytest.approx(
        27, abs=1
    )  # Student's quantile of two patients
    with (results / "cases.csv").open(newline="") as handle:
        rows = {row["case_id"]: row for row in csv.DictReader(handle)}
    found = {name: [row[f"accepted{end}"] for end in ("", "_found", "_false")] for name, row in rows.items()}
    assert found == {"case_a": ["2", "1", "1"], "k<b>&1": ["0", "0", "0"]}
    written = json.loads((results / "comparison_Other_Model.json").read_text())["scores"]
    assert written["accepted_sensitivity"]["difference"] == 0.5
    assert written["paper_auc_accepted"]["difference"] == pytest.approx(17 / 27 - 1 / 2)
    assert written["paper_auc"]["difference"] == 0  # the other model has the same candidates
    assert written["accepted_ppv"]["second"] is None  # it accepts nothing


@pytest.mark.parametrize(
    ("cases", "criterion", "expected"),
    [
        (["v1"], "f1", "other cases"),
        (["v1", "case_a"], "f1", "the scored cases"),
        ([], "f1", "unknown cases"),
        ([], "", "no cases"),
    ],
)
def test_where_the_thresholds_come_from(tmp_path, capsys, cases, criterion, expected):
    own = build_model(tmp_path)
    file = own.folder.fold(-1) / "plan_inference.json"
    plan = InferencePlan.read(file)
    InferencePlan(plan.made_from, plan.folds, plan.settings, criterion, None, "9 settings", cases).write(file)
    evaluation = evaluate_boxes(own.paths, own.folder, -1, test=True, seed=0)
    assert evaluation.scores.accepted.chosen_on == expected
    command._print_scores(evaluation)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"thresholds of the accepted boxes were chosen on {expected} (9 settings)" in printed


def test_accepted_lesions_are_printed_first(evaluation):
    names = [row[0] for row in summary_rows(evaluation)]
    assert names[:5] == [
        "accepted_sensitivity", "accepted_ppv", "accepted_f1", "accepted_fp_per_case", "accepted_fp_per_patient"
    ]  # fmt: skip
    assert summary_rows(evaluation)[0][1:] == ("0.500", "")  # one patient has all nodes
    assert names.index("paper_auc_accepted") == names.index("paper_auc") + 1


def test_the_point_chosen_on_the_scored_cases_is_printed_apart(evaluation, capsys):
    command._print_operating_points(evaluation)
    tuned, _, rest = capsys.readouterr().out.partition("all candidates")
    fixed, _, optimistic = rest.partition("optimistic:")
    assert "thresholds chosen on unknown cases" in " ".join(tuned.split())
    assert "fixed thresholds, chosen on no cases" in " ".join(fixed.split())
    assert "best F1" not in fixed
    assert "chosen on the scored cases" in " ".join(optimistic.split())
    assert "0.900 (best F1)" in optimistic  # 1 of 2 nodes without a false box: F1 2/3


def test_ablation_has_both_slice_aucs(results):
    """The last row is the whole model."""
    rows = json.loads((results / "ablation.json").read_text())
    assert [(row["voters"], row["filters"]) for row in rows][-1] == ("all", True)
    assert rows[-1]["scores"]["paper_auc"]["value"] == pytest.approx(21 / 27)
    assert rows[-1]["scores"]["paper_auc_accepted"]["value"] == pytest.approx(17 / 27)
