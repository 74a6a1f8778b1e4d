"""Stage evaluate: names of files and scores, and that reading predictions gives their numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_place import LESIONS, TEST, TRAINING

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.core.errors import UserError
from nndet_psma.stages import evaluate as stage
from nndet_psma.stages import evaluate_boxes


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(evaluate_boxes, "BOOTSTRAP_DRAWS", 5)
    monkeypatch.setattr(evaluate_boxes, "_ABLATION_DRAWS", 0)


def _evaluate(place, **options):
    return stage.evaluate(place.paths, ModelFolder(place.model), -1, **{"test": True, "seed": 0, **options})


def _perfect(prediction: Prediction) -> Prediction:
    """The lesions themselves, as if the detector had drawn them."""
    from tiny_place import tiny_case

    instances = tiny_case(prediction.case_id)[2]
    lesions = []
    for number, box in zip(*boxes_from_instances(instances), strict=True):
        slices = []
        for z in range(int(box[0]), int(box[3])):
            flat = boxes_from_instances((instances[z] == number).astype("uint8"))[1][0]
            slices.append(SliceBox((z, flat[0], flat[1], z + 1, flat[2], flat[3]), 0.8, 2))
        lesions.append(PredictedLesion(0.8, 0, "node", tuple(box), (0, 0, 0), (0, 0, 0), slices))
    return replace(prediction, lesions=lesions, candidates=lesions)


def test_perfect_predictions_get_perfect_scores(own_copy):
    folder = own_copy.model / "consolidated/test_predictions"
    for file in folder.glob("*_boxes.json"):
        _perfect(Prediction.read(file)).write(file)
    evaluation = _evaluate(own_copy)
    values = {key: score.value for key, score in evaluation.scores.scores.items()}
    for key in (
        "mAP_IoU_0.10_0.50_0.05_MaxDet_100", "AP_IoU_0.10_MaxDet_100", "FROC_score_IoU_0.50",
        "node_AP_IoU_0.50_MaxDet_100", "paper_sensitivity", "paper_precision", "paper_f1", "paper_auc",
    ):  # fmt: skip
        assert values[key] == pytest.approx(1.0), key
    assert evaluation.cases["rec_case"] == 1.0
    assert (evaluation.scores.num_cases, evaluation.scores.num_lesions) == (2, 2)


def test_one_missed_lesion_by_hand(own_copy):
    """test_0 found, test_1 not: one of two lesions, no false positive."""
    folder = own_copy.model / "consolidated/test_predictions"
    found = Prediction.read(folder / "test_0_boxes.json")
    _perfect(found).write(folder / "test_0_boxes.json")
    missed = Prediction.read(folder / "test_1_boxes.json")
    replace(missed, lesions=[], candidates=[]).write(folder / "test_1_boxes.json")
    evaluation = _evaluate(own_copy)
    values = {key: score.value for key, score in evaluation.scores.scores.items()}
    assert values["paper_sensitivity"] == 0.5
    assert values["paper_precision"] == 1.0
    assert values["FROC_score_IoU_0.10"] == pytest.approx(0.5)
    assert evaluation.cases["rec_case"] == 0.5


def test_files_and_their_names(trained):
    folder = trained.model / "consolidated/test_results"
    assert sorted(file.name for file in folder.iterdir()) == [
        "ablation.json", "cases.csv", "lesions.csv", "records.json", "results_boxes.json", "results_case.json",
        "scores.json",
    ]  # fmt: skip
    boxes = json.loads((folder / "results_boxes.json").read_text())
    assert {"mAP_IoU_0.10_0.50_0.05_MaxDet_100", "AP_IoU_0.10_MaxDet_100", "FROC_score_IoU_0.10"} <= set(
        boxes
    )
    assert "node_AP_IoU_0.10_MaxDet_100" in boxes
    assert all(isinstance(value, str) for value in boxes.values())  # as nnDetection writes them
    assert not any("paper" in key for key in boxes)
    cases = json.loads((folder / "results_case.json").read_text())
    assert set(cases) == {"auc_case", "ap_case", "f1_case", "prec_case", "rec_case", "acc_case"}
    scores = json.loads((folder / "scores.json").read_text())
    assert (scores["num_cases"], scores["num_lesions"]) == (
        len(TEST),
        sum(len(LESIONS[case]) for case in TEST),
    )
    lines = (folder / "cases.csv").read_text().splitlines()
    assert len(lines) == 1 + len(TEST)


def test_validation_counts_patients(own_copy):
    evaluation = _evaluate(own_copy, test=False)
    assert evaluation.folder.name == "val_results"
    assert evaluation.scores.num_cases == len(TRAINING)
    assert evaluation.scores.num_patients == len(TRAINING) - 1  # case_0 and case_1 are of one patient
    assert evaluation.scores.num_lesions == sum(len(LESIONS[case]) for case in TRAINING)
    voters = [stage.name for stage in own_copy.plan.voters]
    assert [row.voters for row in evaluation.ablation] == [*voters, *voters, "all"]


def test_same_seed_same_files(own_copy):
    first = _evaluate(own_copy).folder
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    _evaluate(own_copy)
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before


def test_test_images_without_labels(own_copy):
    import shutil

    shutil.rmtree(own_copy.paths.labels("Ts"))
    file = own_copy.paths.root / "dataset.json"
    file.write_text(file.read_text().replace('"test_labels": true', '"test_labels": false'))
    with pytest.raises(UserError, match="labelsTs: holds no labels, so nothing can be scored"):
        _evaluate(own_copy)


def test_prediction_of_a_case_that_is_gone(own_copy):
    folder = own_copy.model / "consolidated/test_predictions"
    ghost = replace(Prediction.read(folder / "test_0_boxes.json"), case_id="ghost")
    ghost.write(folder / "ghost_boxes.json")
    with pytest.raises(UserError, match="predicted case ghost has no label"):
        _evaluate(own_copy)


def _second_model(place):
    """A copy of the model beside it."""
    import shutil

    other = place.model.with_name("Other_PSMA25D")
    shutil.copytree(place.model, other)
    return other


def test_comparison_with_a_model_that_misses_one_lesion(own_copy, capsys):
    other = _second_model(own_copy)
    for root in (own_copy.model, other):
        for file in (root / "consolidated/test_predictions").glob("*_boxes.json"):
            _perfect(Prediction.read(file)).write(file)
    file = other / "consolidated/test_predictions/test_1_boxes.json"
    replace(Prediction.read(file), lesions=[], candidates=[]).write(file)
    evaluation = _evaluate(own_copy, compare=ModelFolder(other))
    row = evaluation.comparison.scores["paper_sensitivity"]
    assert (row.first, row.second, row.difference) == (1.0, 0.5, 0.5)
    assert (evaluation.comparison.patients.both_right, evaluation.comparison.patients.only_first) == (1, 1)
    written = json.loads((evaluation.folder / "comparison_Other_PSMA25D.json").read_text())
    assert (written["first"], written["second"]) == (own_copy.model.name, "Other_PSMA25D")
    assert written["scores"]["FROC_score_centre"]["difference"] == 0.5
    from nndet_psma.cli.eval_boxes import print_comparison

    print_comparison(evaluation, evaluation.comparison)
    assert "minus Other_PSMA25D" in capsys.readouterr().out


def test_models_of_other_cases_are_not_compared(own_copy):
    other = _second_model(own_copy)
    next((other / "consolidated/val_predictions").glob("*_boxes.json")).unlink()
    with pytest.raises(UserError, match=r"not run on the same cases: case_\d has predictions"):
        _evaluate(own_copy, test=False, compare=ModelFolder(other))


def test_strata_know_sizes_places_and_stations(own_copy):
    label = own_copy.paths.labels("Ts") / "test_0.json"
    content = json.loads(label.read_text())
    label.write_text(json.dumps({**content, "stations": {"1": "presacral"}}))
    evaluation = _evaluate(own_copy)
    groups = {}
    for stratum in evaluation.scores.strata:
        groups[stratum.group] = groups.get(stratum.group, 0) + stratum.lesions
    assert groups == {"short_axis_mm": 2, "outside_ctv_mm": 2, "station": 2}
    assert all(lesion.short_axis_mm > 0 for record in evaluation.records for lesion in record.lesions)
    label.write_text(json.dumps({**content, "stations": ["presacral"]}))
    with pytest.raises(UserError, match="stations are no mapping"):
        _evaluate(own_copy)
