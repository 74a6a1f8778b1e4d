"""The tiny task through genuine nnU-Net: prepared, trained, predicted by our functions and by its own commands."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
import torch
from tiny_place import write_task

from nndet_psma.artifacts.model_folder import CONSOLIDATED
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.cli.config import compose_config
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.planners.describe import describe_plan
from nndet_psma.stages.predict import PredictJob, predict_job
from nndet_psma.stages.prep import prepare_task
from nndet_psma.stages.sweep import consolidate, sweep_fold
from nndet_psma.stages.train import train_fold
from nndet_psma.systems.nodeseg.nnunet.environment import NnunetPaths
from nndet_psma.systems.nodeseg.nnunet.model import SegmentationModel
from nndet_psma.systems.nodeseg.nnunet.network_files import read_network_files
from nndet_psma.systems.nodeseg.nnunet.train import variables
from nndet_psma.systems.nodeseg.nnunet.weights import read_checkpoint
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.nodeseg.settings import NodeSegSettings
from nndet_psma.systems.nodeseg.system import NodeSeg
from nndet_psma.systems.system import OpenOptions

pytestmark = pytest.mark.slow

OPTIONS = [
    "train=nodeseg",
    "plan_cfg.target=cpu",
    "plan_cfg.num_folds=2",
    "plan_cfg.epochs=2",
    "plan_cfg.iterations=2",
    "plan_cfg.validation_iterations=1",
    "plan_cfg.augmentation=dwi2022",  # nnU-Net's own chooses its blur by a stop-watch and rounds differently each time
    "plan_cfg.mirror=false",
    "trainer_cfg.validate=false",
]


class Place:
    def __init__(self, root):
        self.paths = write_task(root / "data")
        self.models = root / "models"
        self.heard = []
        self.config = compose_config(self.paths.name, OPTIONS)
        self.prep = self.prepare(self.config)
        self.folder = train_fold(self.paths, self.models, self.config, 0, self.heard.append)
        self.model = SegmentationModel(self.folder)
        self.plan = self.folder.plan(0)
        self.nnunet = NnunetPaths.of(self.paths, self.plan.dataset)

    def prepare(self, config):
        return prepare_task(
            self.paths,
            NodeSeg(),
            config,
            full_check=False,
            check=False,
            processes=1,
            preprocessing_processes=1,
            say=self.heard.append,
        )

    def environment(self, results):
        found = variables(self.nnunet, self.model, self.plan, 0, NodeSegSettings(validate=False), {})
        return {**os.environ, **found, "nnUNet_results": str(results), "nnUNet_def_n_proc": "1"}

    def stock(self, command, *arguments, results):
        [script] = entry_points(group="console_scripts", name=command)
        code = f"import sys; from {script.module} import {script.attr}; sys.argv[0] = '{command}'; {script.attr}()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment(results),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def predict(self, fold, target):
        description = read_description(self.paths.root)
        cases = list_cases(self.paths, description, "Ts")
        options = OpenOptions(device="cpu", tta=True)
        job = PredictJob(self.folder, fold, cases, description, target, options)
        return predict_job(job, self.heard.append)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("nnunet"))


@pytest.fixture(scope="module")
def tuned(place):
    """The place with thresholds of fold 0: tests that predict may run alone and in any order."""
    place.thresholds = sweep_fold(place.paths, place.folder, 0, place.config, place.heard.append)
    return place


def test_texts_of_a_trained_fold_name_no_folder_above_the_task(place):
    """nnU-Net writes where everything lies into its log and debug.json; both are handed on with the model."""
    texts = [
        *place.folder.root.rglob("*.txt"),
        *place.folder.root.rglob("*.json"),
        *place.folder.root.rglob("*.log"),
    ]
    assert any(file.name.startswith("training_log_") for file in texts)
    assert any(file.name == "debug.json" for file in texts)
    root = str(place.paths.root.parents[1])
    assert [file.name for file in texts if root in file.read_text(encoding="utf-8")] == []
    [debug] = place.folder.root.rglob("debug.json")
    debug.write_text(json.dumps({"results": str(place.folder.root / "x")}))  # as a kill would have left it
    train_fold(place.paths, place.models, place.config, 0, place.heard.append)
    assert root not in debug.read_text()


def test_the_plan_says_what_nnunet_planned_and_why(place):
    plan = place.prep.plan
    plans = json.loads(place.nnunet.plans("NodeSeg").read_text())
    assert plan.spacing == (4.0, 2.0, 2.0)
    assert list(plan.patch_size) == plans["configurations"]["3d_fullres"]["patch_size"]
    assert plans["experiment_planner_used"] == "NodeSegPlanner"
    window = plans["foreground_intensity_properties_per_channel"]["1"]
    assert (window["percentile_00_5"], window["percentile_99_5"]) == (-125.0, 225.0)
    assert (window["mean"], window["std"]) == (50.0, 175.0)
    assert plans["nodeseg"]["epochs"] == 2
    rows = {row.key: row for row in describe_plan(plan)}
    assert {"crop", "channels", "network", "patch_size", "training.loss", "folds"} <= set(rows)
    assert "-125..225" in rows["channels"].evidence
    assert read_plan(place.paths.plan("NodeSeg")) == plan


@pytest.mark.parametrize(
    "options",
    [
        ["train=nodeseg_dwi2022", "plan_cfg.target=cpu"],
        ["train=nodeseg", "plan_cfg.target=cpu", "plan_cfg.configuration=2d"],
        *(["train=nodeseg", "plan_cfg.target=gpu", f"plan_cfg.gpu_memory_gb={gb}"] for gb in (9, 24, 40)),
    ],
    ids=lambda options: " ".join(options[:1] + options[2:]),
)
def test_every_network_that_we_plan_may_predict(raw_place, tmp_path, options):
    """Plain and residual, two axes and three: nothing that our planners write is refused in a model."""
    paths = raw_place.copy(tmp_path).paths
    config = compose_config(paths.name, [*options, "plan_cfg.num_folds=2", "prep.process=false"])
    prepared = prepare_task(
        paths,
        NodeSeg(),
        config,
        full_check=False,
        check=False,
        processes=1,
        preprocessing_processes=1,
        say=lambda line: None,
    )
    nnunet = NnunetPaths.of(paths, prepared.plan.dataset)
    written = json.loads(nnunet.plans(prepared.plan.plan_id).read_text())
    (tmp_path / "plans.json").write_text(json.dumps(written))
    (tmp_path / "dataset.json").write_text((nnunet.preprocessed / "dataset.json").read_text())
    name = prepared.plan.configuration
    kept = {k: v for k, v in written["configurations"][name].items() if k != "next_stage"}
    files = read_network_files(tmp_path, prepared.plan)
    assert files.plans == {**written, "configurations": {name: kept}}
    residual = "Residual" in kept["architecture"]["network_class_name"]
    assert residual == (prepared.plan.network != "plain")


def test_splits_are_our_patient_grouped_folds(place):
    splits = json.loads((place.nnunet.preprocessed / "splits_final.json").read_text())
    assert splits == [{"train": fold.train, "val": fold.val} for fold in place.plan.folds]
    sides = ["case_0" in splits[0]["val"], "case_1" in splits[0]["val"]]
    assert sides[0] == sides[1]  # of one patient


def test_windows_reach_the_network_scaled(place):
    """Second channel: -125..225 HU is -1..1; air is clipped to -1, a lesion of about 150 HU is near 0.57."""
    import blosc2

    data = blosc2.open(str(place.nnunet.preprocessed / "NodeSeg_3d_fullres" / "case_0.b2nd"))[:]
    assert data.shape[0] == 2
    assert data[1].min() == pytest.approx(-1, abs=1e-6)
    assert 0.4 < data[1].max() < 0.75


def test_a_second_preparation_keeps_everything(place):
    again = place.prepare(place.config)
    assert (again.kept_plan, again.made) == (True, [])
    assert "nnU-Net data set Dataset900_Tiny: 0 cases new, 0 images linked, 0 written" in place.heard
    files = [place.nnunet.plans("NodeSeg"), place.nnunet.raw / "dataset.json"]
    before = [file.read_text() for file in files]
    for option in ("plan_cfg.loss=dice", "plan_cfg.patch_size=[8,32,32]", "plan_cfg.crop=image"):
        other = compose_config(place.paths.name, [*OPTIONS, option])
        with pytest.raises(UserError, match="another plan of this name"):
            place.prepare(other)
        # nnU-Net's own command must not see the refused plan
        assert [file.read_text() for file in files] == before


def test_a_trained_fold_is_not_trained_again(place):
    file = place.model.checkpoint(place.plan, 0)
    before = file.stat().st_mtime_ns
    train_fold(place.paths, place.models, place.config, 0, place.heard.append)
    assert file.stat().st_mtime_ns == before
    assert "is trained already" in place.heard[-1]
    assert NodeSegPlan.read(place.folder.fold(0) / "plan.json") == place.prep.plan


def test_nnunets_own_command_trains_the_same_weights(place, tmp_path):
    trainer = ("-tr", "nnUNetTrainerNodeSeg", "-p", "NodeSeg", "-device", "cpu")
    place.stock("nnUNetv2_train", "900", "3d_fullres", "0", *trainer, results=tmp_path)
    ours = place.model.checkpoint(place.plan, 0)
    theirs = tmp_path / ours.relative_to(place.model.results(0))
    a, b = (read_checkpoint(file)["network_weights"] for file in (ours, theirs))
    assert list(a) == list(b)
    for name, weights in a.items():
        torch.testing.assert_close(weights, b[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("fold", [0, CONSOLIDATED])
def test_nnunets_own_command_predicts_the_same(tuned, tmp_path, fold):
    if fold == CONSOLIDATED:
        consolidate(None, tuned.folder, [0], config=tuned.config, sweep_boxes=False)
    result = tuned.predict(fold, tmp_path / "ours")
    assert not result.failed
    images = str(tuned.nnunet.raw / "imagesTs")
    what = ("-d", "900", "-tr", "nnUNetTrainerNodeSeg", "-p", "NodeSeg", "-c", "3d_fullres", "-f", "0")
    how = ("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar")
    tuned.stock(
        "nnUNetv2_predict",
        "-i",
        images,
        "-o",
        str(tmp_path / "theirs"),
        *what,
        *how,
        results=tuned.model.results(fold),
    )
    found = 0
    for name in ("test_0", "test_1"):
        ours = read_volume(tmp_path / "ours" / f"{name}_seg.nii.gz").array
        theirs = read_volume(tmp_path / "theirs" / f"{name}.nii.gz").array
        np.testing.assert_array_equal(ours, theirs)
        found += int(ours.sum())
    assert found > 0  # an empty mask would agree with anything
    again = tuned.predict(fold, tmp_path / "ours")
    assert again.kept == ["test_0", "test_1"]
    assert again.results == result.results


def test_instances_and_boxes_agree(tuned, tmp_path):
    tuned.predict(0, tmp_path)
    ids = read_volume(tmp_path / "test_0_instances.nii.gz").array
    table = json.loads((tmp_path / "test_0_instances.json").read_text())
    assert sorted(map(int, table["instances"])) == sorted(set(np.unique(ids).tolist()) - {0})
    prediction = Prediction.read(tmp_path / "test_0_boxes.json")
    assert prediction.search_region == "ctv"
    best = prediction.candidates[0]
    z0, y0, x0, z1, y1, x1 = (int(v) for v in best.box)
    assert (ids[z0:z1, y0:y1, x0:x1] > 0).any()
    assert best.name == "node"


def test_thresholds_are_tuned_on_the_validation_cases(tuned):
    cases = tuned.thresholds.cases
    assert sorted(cases) == sorted(tuned.plan.folds[0].val)
    target = tuned.folder.fold(0)
    assert (target / "sweep.json").is_file()
    assert len(list((target / "val_predictions").glob("*_boxes.json"))) == len(cases)
