"""Segmentation through our commands: which engine runs, and what is refused in one line; nothing is trained."""

from __future__ import annotations

import json

import pytest
from failing import fails
from segmentation_plan import segmentation_plan
from tiny_place import MODEL, TASK, TEST, TRAINING

from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.cli import consolidate, export_model, plan, predict, prep, sweep, train, train_all
from nndet_psma.cli.config import compose_config, config_for_model
from nndet_psma.core.errors import UserError
from nndet_psma.stages.sweep import consolidate as consolidate_stage
from nndet_psma.systems.api import Predictor
from nndet_psma.systems.nodeseg import system as nodeseg
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel

NODESEG = "nnUNetTrainerNodeSeg_NodeSeg"
SYSTEM = ["-o", "train=nodeseg"]


@pytest.fixture
def raw(raw_place, tmp_path, monkeypatch):
    """A raw task with a plan of segmentation that was never preprocessed."""
    place = raw_place.copy(tmp_path)
    place.enter(monkeypatch)
    segmentation_plan().write(place.paths.plan("NodeSeg"))
    return place


@pytest.fixture
def model(raw):
    """The folder of a model whose fold 0 has a plan and no weights."""
    folder = ModelFolder(raw.models / TASK / NODESEG)
    segmentation_plan().write(folder.fold(0) / "plan.json")
    return folder


def test_the_preset_sets_its_host():
    for preset in ("nodeseg", "nodeseg_dwi2022"):
        config = compose_config("t", [f"train={preset}"])
        assert (config.host, config.module) == ("nnunet", "nnUNetTrainerNodeSeg")


def test_host_and_module_must_fit():
    with pytest.raises(UserError, match="trains in host 'nnunet' only; found host 'embedded'"):
        compose_config("t", ["train=nodeseg", "host=embedded"])
    with pytest.raises(
        UserError,
        match=r"RetinaNet3D trains in host 'embedded' only; found host 'nnunet'. .* -o train=nodeseg",
    ):
        compose_config("t", ["train=retina3d", "host=nnunet"])


def test_the_models_plan_chooses_the_system(model):
    found = model.plan(0)
    assert found == segmentation_plan()
    config = config_for_model(TASK, found, ["sweep.trials=7"])
    assert (config.host, config.plan, config.sweep.trials) == ("nnunet", "NodeSeg", 7)


def test_prep_checks_our_way_before_nnunet_is_asked(raw, capsys, monkeypatch):
    """A label value without a class stops the command before the host does anything."""
    import nndet_psma.systems.nodeseg.nnunet.prepare as host

    called = []
    for name in ("make_plan", "hand_over", "prepare"):
        monkeypatch.setattr(host, name, lambda *args, **kwargs: called.append(args))
    table = raw.paths.labels("Tr") / "case_0.json"
    table.write_text(json.dumps({"instances": {"1": 7, "2": 0}}))
    fails(capsys, prep.main, ["900", "-np", "1", *SYSTEM], "case_0.json")
    assert called == []
    assert (raw.paths.preprocessed / "check.json").is_file()


def test_prep_says_how_to_get_nnunet(raw, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fails(capsys, prep.main, ["900", *SYSTEM], "nnU-Net v2 is not installed", "pip install nnunetv2")
    assert not (raw.paths.preprocessed / "check.json").exists()  # told before the data are read


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "cases are not preprocessed for this plan"),
        (["exp.fold=7"], "fold 7 does not exist; expected 0 to 1 or all"),
        (["exp.fold=every"], "configuration: exp.fold: expected int or one of ['all'], found 'every'"),
        (["exp.voter=wsi"], "a segmentation has no voters; found exp.voter=wsi"),
        (["+plan_overwrites.batch_size=4"], "plan_overwrites come too late here"),
        (["plan=OTHER"], "OTHER.json"),
    ],
)
def test_wrong_training_option(raw, capsys, overrides, expected):
    fails(capsys, train.main, ["900", *SYSTEM, *overrides], expected)
    assert not raw.models.exists() or not list(raw.models.rglob("*.pth"))


def test_no_plan_yet(raw, capsys):
    raw.paths.plan("NodeSeg").unlink()
    fails(capsys, train.main, ["900", *SYSTEM], "NodeSeg.json", "no plan 'NodeSeg'", "Run nndet_prep")


@pytest.mark.parametrize(
    ("main", "rest", "expected"),
    [
        (sweep.main, ["0"], "weights are missing"),
        (sweep.main, ["1"], "fold1: holds no trained model"),
        (consolidate.main, ["--folds", "1"], "fold 1 is not trained"),
        (consolidate.main, ["--no_model", "--sweep_boxes"], "fold 0 is not trained"),
        (predict.main, [], "is not consolidated"),
        (predict.main, ["--fold", "0"], "thresholds are not tuned yet"),
    ],
)
def test_what_is_not_trained(model, capsys, main, rest, expected):
    fails(capsys, main, [TASK, NODESEG, *rest], expected)


def test_no_weights_no_archive(model, capsys, tmp_path):
    InferencePlan("", [0], {}, "", None, "", []).write(model.fold(0) / "plan_inference.json")
    argv = [TASK, NODESEG, "--folds", "0", "-o", str(tmp_path / "a.zip")]
    fails(capsys, export_model.main, argv, "checkpoint_final.pth: weights are missing")
    assert not list(tmp_path.glob("*.zip"))
    with pytest.raises(UserError, match="weights are missing"):
        Predictor.from_folder(model.fold(0))


def test_train_all_has_one_job_per_fold(raw, capsys):
    assert train_all.main(["900", "--dry-run", "--consolidate", *SYSTEM]) == 0
    told = capsys.readouterr().out
    assert [line for line in told.splitlines() if not line.startswith(" ")] == [
        "fold0",
        "fold1",
        "consolidate after fold0, fold1",
        "3 of 3 jobs to run, at most 1 at once",
    ]
    assert f"nndet_train {TASK} -o exp.fold=0 train=nodeseg" in told
    assert "exp.voter" not in told
    assert not list(raw.models.rglob("*"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("+plan_overwrites.training.epochs=4", "plan_overwrites come too late here"),
        ("exp.voter=a", "exp.voter"),
    ],
)
def test_train_all_refuses_what_every_job_would(raw, capsys, override, expected):
    fails(capsys, train_all.main, ["900", "--dry-run", *SYSTEM, override], expected)


def test_plan_show_and_check(raw, capsys):
    assert plan.main(["show", "900"]) == 0
    shown = capsys.readouterr().out
    assert "no GPU visible" in shown
    assert "cost: nnU-Net's training" in shown
    assert plan.main(["check", "900"]) == 0
    assert "plan NodeSeg holds together" in capsys.readouterr().out


def test_plan_diff_works_between_systems(raw, tiny_task, capsys):
    other = str(tiny_task.paths.plan("PSMA25D"))
    assert plan.main(["diff", "900", "NodeSeg", other]) == 0
    assert "differences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"classes": {"0": "lesion"}}, "classes of the plan are not those of the data set"),
        ({"modalities": {"0": "CT", "1": "PTV"}}, "modalities of the plan"),
        ({"folds": [FoldPlan(["case_9"], TRAINING)]}, "cases that do not exist; found case_9"),
    ],
)
def test_plan_check_finds_what_does_not_fit(raw, capsys, changes, expected):
    segmentation_plan(**changes).write(raw.paths.plan("NodeSeg"))
    fails(capsys, plan.main, ["check", "900"], expected)


@pytest.mark.parametrize(("argv", "mirrored"), [([], True), (["-ntta", "0"], False), (["-ntta", "1"], True)])
def test_predict_hands_the_job_over(model, tmp_path, monkeypatch, argv, mirrored):
    """Mirror images are looked at unless told otherwise: thresholds were tuned with them."""
    import nndet_psma.stages.predict as stage

    InferencePlan("", [0], {}, "", None, "", []).write(model.fold(0) / "plan_inference.json")
    jobs = []

    def segment(job, say):
        jobs.append(job)
        return stage.PredictResult()

    monkeypatch.setattr(stage, "predict_job", segment)
    rest = ["--fold", "0", "-d", str(tmp_path / "out"), "--num_parts", "2", "--part_id", "1", *argv]
    assert predict.main([TASK, NODESEG, *rest]) == 0
    job = jobs[0]
    assert (job.options.tta, job.fold, job.num_parts, job.part_id) == (mirrored, 0, 2, 1)
    assert [case.case_id for case in job.cases] == TEST
    options = json.loads((tmp_path / "out" / "predictions.json").read_text())["options"]
    assert options == {"region": "ctv", "num_tta": int(mirrored)}


def test_consolidation_asks_the_host_for_lean_weights(model, monkeypatch):
    import nndet_psma.systems.nodeseg.nnunet.weights as host

    calls = []

    def lean(source, target):
        calls.append((source, target))
        target.write_bytes(b"lean")

    monkeypatch.setattr(host, "write_lean", lean)
    plan_there = model.plan(0)
    trained = SegmentationModel(model).trained(plan_there, 0)
    for name in ("fold_0/checkpoint_final.pth", "plans.json"):
        (trained / name).parent.mkdir(parents=True, exist_ok=True)
        (trained / name).write_bytes(b"{}")
    config = config_for_model(TASK, plan_there, [])
    tuned = consolidate_stage(None, model, [0], config=config, sweep_boxes=False)
    assert (tuned.folds, tuned.source) == ([0], "starting values of the plan, not tuned")
    [(source, _)] = calls
    assert source == trained / "fold_0" / "checkpoint_final.pth"
    inside = model.fold(-1) / trained.relative_to(model.root)
    assert (inside / "fold_0" / "checkpoint_final.pth").read_bytes() == b"lean"
    assert (inside / "plans.json").read_bytes() == b"{}"
    assert model.plan(-1) == plan_there


def test_detectors_look_at_no_mirror_image_unless_asked(trained, monkeypatch, tmp_path):
    import nndet_psma.stages.predict as stage

    trained.enter(monkeypatch)
    jobs = []
    monkeypatch.setattr(stage, "predict_job", lambda job, say: jobs.append(job) or stage.PredictResult())
    assert predict.main(["900", MODEL, "-d", str(tmp_path)]) == 0
    assert jobs[0].options.tta is False


def test_needs_nothing_when_nnunet_is_there():
    nodeseg.require_nnunet()
