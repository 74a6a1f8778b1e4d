"""``nodestatus`` goes the whole way through the command lines on a tiny phantom."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

import nndet_psma
from nndet_psma.artifacts.inference_plan import InferencePlan
from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.prediction import PredictedLesion, Prediction
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli.umbrella import main
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, read_volume, write_volume
from nndet_psma.dataset.phantom.node_status import NodeStatusOptions
from nndet_psma.dataset.phantom.task import generate_task
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.stages.predict import PredictJob, PredictResult
from nndet_psma.stages.second_stage import judge_found
from nndet_psma.systems.api import Predictor
from nndet_psma.systems.nodestatus.plan import NodeStatusPlan, NodeStatusResult
from nndet_psma.trainers.classifier.controls import BLIND, CONTROLS

TASK, MODEL = "Task102_NodeStatus", "NodeStatusTrainer_NodeStatus"
OPTIONS = NodeStatusOptions(size=(14, 56, 72), spacing=(6.0, 3.0, 3.0), nodes=8)
SMALL = ["plan_cfg.target=cpu", "plan_cfg.num_folds=2", "plan_cfg.widths=[2,2,4,4]", "plan_cfg.batch_size=8"]
SHORT = ["trainer_cfg.iterations=2", "trainer_cfg.num_workers=0"]
UNKNOWN = ("nodes_000", 2)


def write_task(data) -> TaskPaths:
    generate_task(data / TASK, kind="node_status", cases=6, test_cases=2, seed=0, options=OPTIONS)
    paths = TaskPaths(data / TASK)
    file = paths.labels("Tr") / f"{UNKNOWN[0]}.json"
    file.write_text(json.dumps({**read_json(file), "status": {str(UNKNOWN[1]): None}}))
    return paths


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """After prep, train, sweep, consolidate, predict, eval."""
    root = tmp_path_factory.mktemp("nodestatus")
    write_task(root / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("det_data", str(root / "data"))
        patch.setenv("det_models", str(root / "models"))
        assert main(["prep", "102", "-np", "1", "-npp", "1", "-o", *SMALL]) == 0
        assert main(["train", "102", "-o", "exp.fold=all", *SHORT]) == 0
        assert main(["sweep", "102", MODEL, "0"]) == 0
        assert main(["consolidate", "102", MODEL, "--sweep_boxes"]) == 0
        assert main(["predict", "102", MODEL]) == 0
        assert main(["eval", "102", MODEL, "-1", "--test"]) == 0
        yield root


@pytest.fixture
def paths(place) -> TaskPaths:
    return TaskPaths(place / "data" / TASK)


@pytest.fixture
def consolidated(place):
    return place / "models" / TASK / MODEL / "consolidated"


def result(consolidated, case="nodes_test_000"):
    return NodeStatusResult.read(consolidated / f"test_predictions/{case}_status.json")


def test_the_plan(paths):
    plan = read_plan(paths.plan("NodeStatus"))
    assert isinstance(plan, NodeStatusPlan)
    assert plan.spacing == (3.0, 3.0, 3.0)  # as coarse as the data
    assert plan.crop.size == (16, 16, 16)
    assert (plan.sampling, [stage.name for stage in plan.stages]) == ("location", ["member0", "blind"])
    assert [stage.voter for stage in plan.stages] == [True, False]
    counts = {True: 0, False: 0}
    for case in [f"nodes_{k:03d}" for k in range(6)]:
        for number, label in read_json(paths.labels("Tr") / f"{case}.json")["instances"].items():
            counts[label == 1] += (case, int(number)) != UNKNOWN
    assert plan.prevalence == pytest.approx(counts[True] / sum(counts.values()), abs=1e-6)
    assert {"spacing", "crop.size", "sampling", "prevalence", "windows", "stages", "folds"} <= set(
        plan.decisions
    )


def test_what_is_said_of_a_node(consolidated, paths):
    found = result(consolidated)
    truth = read_json(paths.labels("Ts") / "nodes_test_000.json")
    settings = InferencePlan.read(consolidated / "plan_inference.json").settings
    assert {str(each.object_id): each.station for each in found.objects} == truth["stations"]
    assert found.threshold == settings["threshold"]
    for each in found.objects:
        assert len(each.logits) == 2  # one of each fold
        assert {name: len(logits) for name, logits in each.controls.items()} == dict.fromkeys(
            [*CONTROLS, BLIND], 2
        )
        odds = np.array(each.logits) / settings["temperature"]
        shifted = odds + np.log(settings["prevalence"] / (1 - settings["prevalence"]))
        mean = float((1 / (1 + np.exp(-shifted))).mean())
        assert each.probabilities["positive_node"] == pytest.approx(mean)
        assert (each.decision == "positive_node") == (mean >= found.threshold)
        assert each.uncertainty >= 0
        assert each.features["volume_mm3"] > 0


def test_the_decision_is_tuned_out_of_fold(consolidated):
    tuned = InferencePlan.read(consolidated / "plan_inference.json")
    assert tuned.folds == [0, 1]
    assert "not calibrated" in tuned.source  # fewer than 50 nodes of a class
    assert "tuned without the fold that is decided: sensitivity" in tuned.source
    assert tuned.settings["temperature"] == 1.0


def test_another_criterion(place, capsys):
    assert main(["sweep", "102", MODEL, "0", "-o", "sweep.criterion=sensitivity@0.90"]) == 0
    assert "sensitivity@0.90" in capsys.readouterr().out
    assert main(["sweep", "102", MODEL, "0"]) == 0


def test_nodes_of_unknown_status_are_not_scored(place, capsys):
    assert main(["eval", "102", MODEL, "-1"]) == 0
    out = capsys.readouterr().out
    assert "not scored: 1 judged, but of unknown class" in out
    assert "47 objects of 6 cases" in out


def test_shortcuts_come_first(place, consolidated):
    table = read_json(consolidated / "test_results/shortcuts.json")
    names = [row["name"] for row in table["rows"]]
    assert names[0] == "always the majority"
    assert names[-2:] == ["network without its image (mask only)", "network"]
    assert "the image adds" in table["sentence"]
    html = place / "report.html"
    assert main(["report", "102", MODEL, "--output", str(html)]) == 0
    text = html.read_text()
    assert text.index("Shortcuts") < text.index("In short")
    assert table["sentence"][1:].split(" (")[0] in text


def test_a_second_run_keeps_cases_and_another_mask_does_not(place, paths, capsys):
    assert main(["predict", "102", MODEL]) == 0
    assert capsys.readouterr().out.count("finished before") == 2
    folder = place / "masks"
    folder.mkdir()
    for case in ("nodes_test_000", "nodes_test_001"):
        shutil.copy(paths.labels("Ts") / f"{case}.nii.gz", folder)
    out = place / "elsewhere"
    images = str(paths.images("Ts"))
    assert main(["predict", "102", MODEL, "-i", images, "--objects", str(folder), "-d", str(out)]) == 0
    found = NodeStatusResult.read(out / "nodes_test_000_status.json")
    assert {each.station for each in found.objects} == {"unknown"}
    (folder / "nodes_test_001.nii.gz").unlink()
    assert main(["predict", "102", MODEL, "-i", images, "--objects", str(folder), "-d", str(out)]) == 2
    assert "mask of the objects of case nodes_test_001 is missing" in capsys.readouterr().err


def test_images_without_masks_fail_case_by_case(place, paths, capsys):
    out = str(place / "nothing")
    assert main(["predict", "102", MODEL, "-i", str(paths.images("Ts")), "-d", out]) == 1
    assert "has no mask of the objects to judge" in capsys.readouterr().out


def test_python_says_the_same(place, paths, consolidated):
    model = nndet_psma.NodeStatus.from_folder(consolidated.parent, device="cpu")
    image, nodes = (read_volume(file, canonical=False) for file in (
        paths.images("Ts") / "nodes_test_000_0000.nii.gz", paths.labels("Ts") / "nodes_test_000.nii.gz"
    ))  # fmt: skip
    stations = {each.object_id: each.station for each in result(consolidated).objects}
    found = model.predict(image, nodes, stations=stations, case_id="nodes_test_000")
    assert replace(found, made_from="") == replace(result(consolidated), made_from="")
    grid = image.geometry
    flipped = Geometry(
        grid.shape,
        grid.spacing,
        (-grid.origin[0], -grid.origin[1], grid.origin[2]),
        (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    )
    other = model.predict(*(Volume(v.array[:, ::-1, ::-1], flipped) for v in (image, nodes)))
    for one, same in zip(found.objects, other.objects, strict=True):
        assert one.logits == pytest.approx(same.logits, abs=1e-6)
        assert one.box != same.box
    with pytest.raises(UserError, match="another grid"):
        model.predict(image, Volume(nodes.array[1:], replace(grid, shape=nodes.array[1:].shape)))


def test_a_model_is_passed_on(place, consolidated, tmp_path, capsys):
    archive = tmp_path / "model.zip"
    assert main(["export-model", "102", MODEL, "-o", str(archive)]) == 0
    assert main(["import-model", str(archive), "-o", str(tmp_path / "taken")]) == 0
    model = nndet_psma.NodeStatus.from_folder(archive, device="cpu")
    assert model.plan.folds == []
    assert model.settings == InferencePlan.read(consolidated / "plan_inference.json").settings


def test_training_goes_on_and_refuses_other_crops(place, capsys):
    assert main(["train", "102", "-o", "exp.fold=0", *SHORT]) == 0
    changed = ["+plan_overwrites.crop.margin=[1,1,1]", *SHORT]
    assert main(["train", "102", "-o", "exp.fold=0", *changed]) == 2
    assert "change how crops are cut" in capsys.readouterr().err


@dataclass
class First:
    """What a first stage leaves behind: boxes, or a mask beside them."""

    job: PredictJob
    done: PredictResult
    truth: Volume

    def judged(self, model, folds=None):
        return judge_found(self.job, self.done, Predictor.from_folder(model, "cpu", folds), lambda line: None)


@pytest.fixture
def first(paths, consolidated, tmp_path) -> First:
    """Boxes of the true nodes of a case, as a detector would find them."""
    truth = read_volume(paths.labels("Ts") / "nodes_test_000.nii.gz", canonical=False)
    _, boxes = boxes_from_instances(truth.array)
    lesions = [
        PredictedLesion(0.9, 0, "node", tuple(map(float, box)), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), [])
        for box in boxes
    ]
    found = Prediction("nodes_test_000", "", "body", truth.geometry, (0.0,) * 6, lesions, lesions)
    case = RawCase("nodes_test_000", (paths.images("Ts") / "nodes_test_000_0000.nii.gz",))
    description = DatasetDescription("T", "T", 3, {0: "node"}, {0: "CT"})
    job = PredictJob(ModelFolder(tmp_path), 0, [case], description, tmp_path / "out")
    job.target.mkdir()
    return First(job, PredictResult([found]), truth)


def test_a_second_stage_judges_the_boxes_of_a_first(first, consolidated):
    """Nodes of the phantom are balls, so ellipsoids in their boxes are the nodes, but for voxels on the surface."""
    (judged,) = first.judged(consolidated.parent)
    assert NodeStatusResult.read(first.job.target / "nodes_test_000_status.json") == judged
    true = result(consolidated)
    assert [each.object_id for each in judged.objects] == list(range(1, len(true.objects) + 1))
    for one, other in zip(judged.objects, true.objects, strict=True):
        assert np.allclose(one.centre_mm, other.centre_mm, atol=6.0)
        assert one.station == "unknown"


def test_a_second_stage_takes_the_mask_of_a_segmentation(first, consolidated):
    write_volume(
        first.job.target / "nodes_test_000_instances.nii.gz", first.truth.array, first.truth.geometry
    )
    (judged,) = first.judged(consolidated.parent)
    for one, other in zip(judged.objects, result(consolidated).objects, strict=True):
        assert one.logits == other.logits


def test_a_second_stage_that_needs_masks_refuses_boxes(first, consolidated, monkeypatch):
    model = Predictor.from_folder(consolidated.parent, "cpu")
    model.plan = replace(model.plan, crop=replace(model.plan.crop, input="ct*mask"))
    with pytest.raises(UserError, match="sees the CT inside a mask only, and the first finds boxes"):
        judge_found(first.job, first.done, model, lambda line: None)


def test_a_wrong_second_stage_is_refused_before_anything_is_predicted(place, paths, tmp_path, capsys):
    assert main(["predict", "102", MODEL, "--status", str(tmp_path / "nowhere")]) == 2
    assert "holds no trained model" in capsys.readouterr().err


def test_where_the_model_looks(place, paths, consolidated, capsys):
    images, masks = place / "one", str(paths.labels("Ts"))
    images.mkdir()
    shutil.copy(paths.images("Ts") / "nodes_test_000_0000.nii.gz", images)
    out = place / "explained"
    command = ["predict", "102", MODEL, "-i", str(images), "--objects", masks, "-d", str(out)]
    assert main(command) == 0
    assert not (out / "nodes_test_000_explain").exists()
    assert main([*command, "--explain"]) == 0
    assert "finished before" not in capsys.readouterr().out
    assert main([*command, "--explain"]) == 0
    assert "finished before" in capsys.readouterr().out
    objects = result(consolidated).objects
    names = {path.name for path in (out / "nodes_test_000_explain").iterdir()}
    endings = (".png", ".nii.gz", "_grad_cam.nii.gz")
    assert names == {"shares.csv", *(f"{each.object_id}{end}" for each in objects for end in endings)}
    node = objects[0]
    volume, cam = (read_volume(out / f"nodes_test_000_explain/{node.object_id}{end}") for end in endings[1:])
    assert cam.geometry.same_grid(volume.geometry)
    assert cam.array.min() == 0
    middle = volume.geometry.to_patient(np.array([volume.array.shape]) / 2)[0]
    assert middle == pytest.approx(node.centre_mm, abs=1e-3)
    assert volume.geometry.spacing == pytest.approx((3.0, 3.0, 3.0))
    header, line, *_ = (out / "nodes_test_000_explain/shares.csv").read_text().splitlines()
    assert header == "object_id,share_inside,share_ring,share_outside,peak_inside"
    assert sum(map(float, line.split(",")[1:4])) == pytest.approx(1.0, abs=1e-3)


def test_a_mask_without_nodes(place, paths, consolidated):
    model = nndet_psma.NodeStatus.from_folder(consolidated.parent, device="cpu")
    image = read_volume(paths.images("Ts") / "nodes_test_000_0000.nii.gz", canonical=False)
    empty = Volume(np.zeros(image.array.shape, np.float32), image.geometry)
    assert model.predict(image, empty).objects == []


def test_the_best_weights_on_validation_nodes(place):
    options = ["exp.fold=0", "exp.voter=member0", "exp.tag=_best", "trainer_cfg.select=best", *SHORT]
    assert main(["train", "102", "-o", *options]) == 0
    best = read_json(place / "models" / TASK / f"{MODEL}_best/fold0/member0/best/best.json")
    assert best["criterion"] == "AUC of objects"
    assert 0 <= best["value"] <= 1
