"""A detector's candidates as a task for a second stage: whose they are, what they are called, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_place import MODEL, TEST, TRAINING, tiny_case

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.cli import convert
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_task
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.stages.candidates import out_of_fold, write_candidate_task

FAR = (1.0, 30.0, 40.0, 3.0, 34.0, 44.0)  # where no lesion is


def _lesion(box, score):
    return PredictedLesion(score, 0, "node", tuple(map(float, box)), (0, 0, 0), (0, 0, 0), [])


def _known_candidates(place):
    """Every prediction has the first true lesion at 0.8, the same box a voxel aside at 0.6, and a false alarm."""
    for file in place.model.glob("*/*_predictions/*_boxes.json"):
        prediction, found = Prediction.read(file), [_lesion(FAR, 0.4)]
        for z0, y0, x0, z1, y1, x1 in _true_boxes(prediction.case_id)[:1]:
            found = [
                _lesion((z0, y0, x0, z1, y1, x1), 0.8),
                _lesion((z0, y0, x0 + 1, z1, y1, x1 + 1), 0.6),
                *found,
            ]
        replace(prediction, lesions=[], candidates=found).write(file)


def _true_boxes(case_id):
    from nndet_psma.boxes.box import boxes_from_instances

    return boxes_from_instances(tiny_case(case_id)[2])[1]


def test_lesions_and_false_alarms_by_hand(own_copy, capsys):
    _known_candidates(own_copy)
    assert convert.main(["candidates", "900", MODEL, "--to", "901"]) == 0
    assert f"imagesTr: {len(TRAINING)} cases" in capsys.readouterr().out
    paths = TaskPaths(own_copy.data / "Task901_Candidates")
    description = read_description(paths.root)
    assert description.labels == {0: "false_alarm", 1: "node"}
    assert description.psma == {"target": "node_status"}
    for split, names in (("Tr", TRAINING), ("Ts", TEST)):
        for name in names:
            content = read_json(paths.labels(split) / f"{name}.json")
            expected = {"1": 1, "2": 1, "3": 0} if len(_true_boxes(name)) else {"1": 0}
            scores = dict(zip(expected, [0.8, 0.6, 0.4] if len(expected) == 3 else [0.4], strict=True))
            assert (content["instances"], content["measured"]) == (expected, {"detector_score": scores})
    assert not [each for each in check_task(paths, full=True) if each.severity == "error"]
    mask = read_volume(paths.labels("Tr") / f"{TRAINING[0]}.nii.gz", canonical=False).array
    assert mask[2, 32, 42] == mask.max()  # the middle of the false alarm, the last object


def test_folds_are_the_detectors(own_copy):
    _known_candidates(own_copy)
    target = TaskPaths(own_copy.data / "Task901_Candidates")
    write_candidate_task(own_copy.paths, ModelFolder(own_copy.model), target, str)
    assert read_json(target.splits) == [
        {"train": sorted(fold.train), "val": sorted(fold.val)} for fold in own_copy.plan.folds
    ]
    with pytest.raises(UserError, match="the task exists already"):
        write_candidate_task(own_copy.paths, ModelFolder(own_copy.model), target, str)


def test_a_case_that_the_fold_was_trained_on_is_refused(own_copy):
    """Its detector knows it by heart: scores of such candidates would teach a second stage to believe everything."""
    folder = ModelFolder(own_copy.model)
    known = own_copy.plan.folds[0].train[0]
    file = folder.fold(0) / "val_predictions" / f"{known}_boxes.json"
    replace(Prediction.read(next(file.parent.glob("*_boxes.json"))), case_id=known).write(file)
    with pytest.raises(
        UserError, match=f"case {known} is no validation case of fold 0: the detector has seen it"
    ):
        out_of_fold(folder)


def test_a_fold_without_predictions_is_refused_and_nothing_is_left(own_copy):
    folder = ModelFolder(own_copy.model)
    for file in (folder.fold(1) / "val_predictions").glob("*_boxes.json"):
        file.unlink()
    target = TaskPaths(own_copy.data / "Task901_Candidates")
    with pytest.raises(UserError, match=r"fold1/val_predictions: holds no predictions.*nndet_sweep"):
        write_candidate_task(own_copy.paths, folder, target, str)
    assert not target.root.exists()
