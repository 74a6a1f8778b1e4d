"""Scores of both stages: the candidates in a new order, and what the evaluation says of them."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from tiny_place import TEST

from nndet_psma.artifacts.classified import Classified, ClassifiedObject
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import FusedPrediction, PredictedLesion, Prediction, SliceBox
from nndet_psma.cli import eval as eval_command
from nndet_psma.postproc.fusion import Fusion
from nndet_psma.stages import evaluate_boxes
from nndet_psma.stages.second_stage import fused_prediction

FUSION = Fusion(0.0, 1.0, 1.0, 0.5)


def _candidate(z, score):
    box = (float(z), 2.0, 2.0, z + 2.0, 6.0, 6.0)
    slices = [
        SliceBox((z, 2, 2, z + 1, 6, 6), score, 2),
        SliceBox((z + 1.0, 2, 2, z + 2.0, 6, 6), score / 2, 1),
    ]
    return PredictedLesion(score, 0, "node", box, (0, 0, 0), (0, 0, 0), slices)


def _judged(**fused):
    objects = [
        ClassifiedObject(
            int(number[1:]),
            (0,) * 6,
            (0, 0, 0),
            {"a": 0.5, "b": 0.5},
            "a",
            [0.0],
            {},
            0.5,
            0.0,
            "",
            {},
            value,
        )
        for number, value in fused.items()
    ]
    return Classified("case", "classifier", objects, 0.5)


@pytest.fixture
def found(trained):
    file = next((trained.model / "consolidated/test_predictions").glob("*_boxes.json"))
    candidates = [_candidate(0, 0.9), _candidate(3, 0.6), _candidate(6, 0.2)]
    return replace(Prediction.read(file), lesions=candidates[:1], candidates=candidates)


def test_candidates_are_ranked_and_accepted_by_both_stages(found):
    """The second comes first, the first falls below the threshold, the third lay under the others: not judged."""
    both = fused_prediction(found, _judged(n1=0.3, n2=0.8), FUSION)
    assert [each.score for each in both.candidates] == [0.8, 0.3]
    assert both.candidates[0].box == found.candidates[1].box
    assert [each.score for each in both.lesions] == [0.8]
    assert [part.score for part in both.candidates[0].slices] == pytest.approx(
        [0.8, 0.4]
    )  # in their proportion
    assert [part.votes for part in both.candidates[0].slices] == [2, 1]
    assert both.detector == found.made_from != both.made_from
    assert [each.score for each in found.candidates] == [0.9, 0.6, 0.2]  # the detector's own stay


def test_the_evaluation_compares_both_stages_with_the_detector(own_copy, monkeypatch, capsys, caplog):
    monkeypatch.setattr(evaluate_boxes, "BOOTSTRAP_DRAWS", 5)
    monkeypatch.setattr(evaluate_boxes, "_ABLATION_DRAWS", 0)
    folder = own_copy.model / "consolidated/test_predictions"
    model = ModelFolder(own_copy.model)

    def evaluate():
        return evaluate_boxes.evaluate_boxes(own_copy.paths, model, -1, test=True, seed=0)

    assert evaluate().both_stages is None
    for name in TEST:
        alone = Prediction.read(folder / f"{name}_boxes.json")
        values = {f"n{n}": each.score / 2 for n, each in enumerate(alone.candidates, start=1)}
        fused_prediction(alone, _judged(**values), Fusion(0, 1, 1, 1.0)).write(folder / f"{name}_fused.json")
    both = evaluate().both_stages
    assert (both.first, both.second) == ("both_stages", "detector_alone")
    assert both.scores["AP_IoU_0.10_MaxDet_100"].difference == 0.0  # halved scores rank alike
    assert (own_copy.model / "consolidated/test_results/comparison_detector_alone.json").is_file()
    assert eval_command.main(["900", own_copy.model.name, "-1", "--test"]) == 0
    assert "both_stages minus detector_alone" in capsys.readouterr().out
    file = folder / f"{TEST[0]}_fused.json"
    replace(FusedPrediction.read(file), detector="another").write(file)
    with caplog.at_level(logging.WARNING):
        assert evaluate().both_stages is None
    assert "outdated: predict again with --status" in caplog.text
