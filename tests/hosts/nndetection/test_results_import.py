import json

import numpy as np
import pytest
from nndet_place import PLAN_DEBUG, PREDICTED, write_boxes, write_genuine_model

from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.hosts.boxes_pkl.read import load_plain
from nndet_psma.hosts.boxes_pkl.write import dump_plain
from nndet_psma.hosts.nndetection.results_import import ImportedFold, ImportSettings, import_results
from nndet_psma.stages.evaluate import evaluate
from nndet_psma.stages.submit import read_predictions


@pytest.fixture
def target(box_task):
    return ModelFolder(box_task.source("Imported"))


def bring(box_task, target, *names, **settings):
    sources = [box_task.source(name) for name in names or ["RetinaUNetV001_D3V001_3d"]]
    return import_results(box_task.paths, sources, target, ImportSettings(**settings))


def test_every_fold_comes_with_the_threshold_of_its_best_f1(box_task, target):
    """Fold 0 has the hit at 0.9 before the false alarm at 0.6; all folds have both hits, 0.9 and 0.7, before it."""
    assert bring(box_task, target) == [
        ImportedFold(0, 0.9, ["a", "c"], []),
        ImportedFold(1, 0.7, ["b"], []),
        ImportedFold(CONSOLIDATED, 0.7, ["a", "b", "c"], ["t"]),
    ]


def test_boxes_are_ours_again(box_task, target):
    """What nnDetection keeps one voxel longer at the lower end comes back tight."""
    bring(box_task, target)
    a = Prediction.read(target.fold(CONSOLIDATED) / "val_predictions" / "a_boxes.json")
    assert [lesion.box for lesion in a.lesions] == [(2, 3, 4, 5, 8, 9)]
    assert [(c.score, c.box) for c in a.candidates] == [
        (0.9, (2, 3, 4, 5, 8, 9)),
        (0.6, (8, 15, 18, 11, 19, 22)),
    ]
    assert [part.box[0] for part in a.lesions[0].slices] == [2, 3, 4]
    assert a.lesions[0].name == "node"
    # 3 x 3.0, 5 x 1.5, 5 x 1.0 mm
    assert a.lesions[0].size_mm == (9.0, 7.5, 5.0)


def test_boxes_of_a_coarser_grid_are_tight_again(box_task, target):
    """Resampled to three times the spacing, nnDetection's box of z 2..5, y 3..8, x 4..9 begins three voxels before."""
    source = box_task.source()
    resampled = {**PLAN_DEBUG, "target_spacing": "[9.  4.5 3. ]"}
    (source / "fold0" / "plan_debug.json").write_text(json.dumps(resampled))
    file = source / "fold0" / "val_predictions" / "a_boxes.pkl"
    content = load_plain(file.read_bytes())
    del content["extra_voxels"]  # nnDetection does not tell
    content["pred_boxes"] = np.array([[-1.0, 0.0, 5.0, 8.0, 1.0, 9.0]])
    content |= {"pred_scores": np.array([0.9]), "pred_labels": np.array([0.0])}
    file.write_bytes(dump_plain(content))
    bring(box_task, target)
    a = Prediction.read(target.fold(0) / "val_predictions" / "a_boxes.json")
    assert [lesion.box for lesion in a.lesions] == [(2, 3, 4, 5, 8, 9)]


def test_the_import_is_a_model_folder(box_task, target):
    bring(box_task, target)
    plan = target.plan(1)
    assert plan.plan_id == "D3V001_3d"
    assert [(fold.train, fold.val) for fold in plan.folds] == [(["b"], ["a", "c"]), (["a", "c"], ["b"])]
    inference = target.inference_plan(CONSOLIDATED)
    assert inference.folds == [0, 1]
    assert inference.settings["score_threshold"] == 0.7
    assert inference.cases == ["a", "b", "c"]
    assert "best F1 on 3 validation cases" in inference.source
    assert target.inference_plan(0).folds == [0]


def test_it_is_evaluated_like_our_own(box_task, target):
    bring(box_task, target)
    found = evaluate(box_task.paths, target, CONSOLIDATED, test=False, seed=0)
    # both lesions are hit exactly and rank before the false alarm
    assert found.scores.scores["AP_IoU_0.10_MaxDet_100"].value == pytest.approx(1.0)
    assert found.scores.scores["AP_IoU_0.50_MaxDet_100"].value == pytest.approx(1.0)
    assert found.scores.scores["paper_f1"].value == 1.0
    assert len(found.records) == 3
    test = evaluate(box_task.paths, target, CONSOLIDATED, test=True, seed=0)
    assert test.scores.scores["AP_IoU_0.50_MaxDet_100"].value == pytest.approx(1.0)
    assert (test.folder / "lesions.csv").is_file()


def test_it_is_submitted_like_our_own(box_task, target):
    bring(box_task, target)
    found = read_predictions(target.fold(CONSOLIDATED) / "test_predictions")
    assert [p.case_id for p in found] == ["t"]


def test_a_given_threshold_is_kept(box_task, target):
    found = bring(box_task, target, score_threshold=0.65)
    assert {fold.score_threshold for fold in found} == {0.65}
    assert "not tuned" in target.inference_plan(0).source
    b = Prediction.read(target.fold(1) / "val_predictions" / "b_boxes.json")
    assert [lesion.score for lesion in b.lesions] == [0.7]


def test_several_models_vote(box_task, target):
    """The second model sees the lesion of "a", but not the false alarm: of two votes needed, that has one."""
    second = {**PREDICTED, "a": [((2, 3, 4, 5, 8, 9), 0.5, 0)]}
    write_genuine_model(box_task.source("Second_3d"), second)
    bring(box_task, target, "RetinaUNetV001_D3V001_3d", "Second_3d", score_threshold=0.0, min_votes=2)
    a = Prediction.read(target.fold(0) / "val_predictions" / "a_boxes.json")
    assert [lesion.box for lesion in a.lesions] == [(2, 3, 4, 5, 8, 9)]
    assert [part.votes for part in a.lesions[0].slices] == [2, 2, 2]
    assert len(a.candidates) == 2
    assert target.inference_plan(0).settings["min_votes"] == 2


def test_models_must_have_predicted_the_same_cases(box_task, target):
    write_genuine_model(box_task.source("Second_3d"), PREDICTED)
    (box_task.source("Second_3d") / "fold0" / "val_predictions" / "c_boxes.pkl").unlink()
    with pytest.raises(UserError, match="case c is not predicted by every model"):
        bring(box_task, target, "RetinaUNetV001_D3V001_3d", "Second_3d")


def test_a_second_import_leaves_nothing_of_the_first(box_task, target):
    bring(box_task, target)
    for place in ("fold1", "consolidated"):
        (box_task.source() / place / "val_predictions" / "b_boxes.pkl").unlink()
    write_boxes(box_task.source() / "fold1" / "val_predictions", {"c": []})
    bring(box_task, target)
    names = sorted(file.name for file in (target.fold(1) / "val_predictions").iterdir())
    assert names == ["c_boxes.json"]


def test_without_validation_predictions_the_default_threshold_is_taken(box_task, target):
    source = box_task.source("Only_test")
    write_boxes(source / "consolidated" / "test_predictions", {"t": PREDICTED["t"]})
    (source / "fold0").mkdir()
    (source / "fold0" / "plan_debug.json").write_text(json.dumps(PLAN_DEBUG))
    (source / "fold0" / "config_resolved.yaml").write_text("trainer_cfg: {max_num_epochs: 1}")
    found = bring(box_task, target, "Only_test")
    assert found == [ImportedFold(CONSOLIDATED, 0.5, [], ["t"])]
    assert target.plan(CONSOLIDATED).folds == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda task, model: (task.paths.images("Tr") / "b_0000.nii.gz").unlink(), "b"),
        (lambda task, model: (model / "fold0" / "plan_debug.json").unlink(), r"plan_debug\.json"),
        (
            lambda task, model: (model / "fold0" / "val_predictions" / "x_boxes.pkl").write_bytes(b"?"),
            "no case 'x'",
        ),
        (
            lambda task, model: (model / "fold0" / "val_predictions" / "a_boxes.pkl").write_bytes(b"?"),
            "cannot be read",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(box_task, target, change, said):
    change(box_task, box_task.source())
    if said == r"plan_debug\.json":
        (box_task.source() / "fold1" / "plan_debug.json").unlink()
    with pytest.raises(UserError, match=said):
        bring(box_task, target)


def test_an_empty_folder_is_named(box_task, target):
    with pytest.raises(UserError, match=r"holds no predictions of nnDetection.*nndet_train --sweep"):
        bring(box_task, target, "Nothing")


def test_neither_their_folder_nor_a_trained_model_is_overwritten(box_task, target):
    with pytest.raises(UserError, match="nnDetection's own folder"):
        bring(box_task, ModelFolder(box_task.source()))
    weights = target.fold(0) / "stage" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    with pytest.raises(UserError, match="holds a trained model"):
        bring(box_task, target)


def test_senseless_settings_are_refused(box_task, target):
    for wrong in ({"score_threshold": 1.5}, {"vote_iou": 0.0}, {"min_votes": 0}):
        with pytest.raises(UserError, match="between 0 and 1"):
            ImportSettings(**wrong)
    with pytest.raises(UserError, match="2 votes needed; expected from 1 to the 1 models"):
        bring(box_task, target, min_votes=2)


def test_a_task_without_test_images_is_imported(box_task, target, tmp_path):
    import shutil

    shutil.rmtree(box_task.paths.images("Ts"))
    assert isinstance(box_task.paths, TaskPaths)
    assert bring(box_task, target)[-1].test == []
