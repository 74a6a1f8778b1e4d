"""Stages on patches: trained, interrupted, resumed, shared by two processes, loaded, asked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from patch_job import SETTINGS, SMALL, patch_job, patch_plan
from safetensors.torch import load_file
from two_processes import run_two

import nndet_psma.trainers.stage_run as module
from nndet_psma.boxes.box import boxes_from_instances, pairwise_iou
from nndet_psma.boxes.detections import Detections
from nndet_psma.core.errors import UserError
from nndet_psma.planners.training_memory import Training
from nndet_psma.preprocess.store import read_case
from nndet_psma.stages.plan_check import check_trainer
from nndet_psma.systems.retina3d.planning.cost import stage_load, what_to_lower
from nndet_psma.systems.retina3d.selection import match_volume
from nndet_psma.systems.retina3d.trainer import RetinaNet3D
from nndet_psma.systems.system import system_of
from nndet_psma.trainers.checkpoint import Best
from nndet_psma.trainers.registry import TRAINERS
from nndet_psma.trainers.watch.memory_check import Peak, compare_memory

CPU = torch.device("cpu")
MODEL = "model.safetensors"


def _train(place, folder, plan=None, settings=SETTINGS, **kwargs):
    RetinaNet3D().train(patch_job(place, folder, plan, settings, **kwargs))


def _weights(folder):
    return {file.parent.name: file.read_bytes() for file in folder.glob(f"*/{MODEL}")}


class After:
    """Interrupts after a step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, report, model):
        if report.step == self.step:
            raise KeyboardInterrupt

    def on_end(self, finished):
        pass


@pytest.fixture(scope="module")
def whole(tiny_task, tmp_path_factory):
    """Both stages, uninterrupted."""
    folder = tmp_path_factory.mktemp("whole")
    _train(tiny_task, folder, voter=None)
    return folder


def test_both_stages_are_there(tiny_task, whole):
    assert set(_weights(whole)) == {"first", "second"}
    states = [load_file(whole / stage / MODEL) for stage in ("first", "second")]
    name = "encoder.stages.0.0.0.weight"
    assert not torch.equal(states[0][name], states[1][name])
    # the second starts from the first: four steps at a rate of 0.01 cannot move a weight by more than 0.04 or so
    assert (states[0][name] - states[1][name]).abs().max() < 0.06
    header = (whole / "first/metrics.csv").read_text().splitlines()[0]
    assert all(loss in header for loss in ("loss_classifier", "loss_box_reg", "loss_segmentation_dice"))


@pytest.mark.parametrize(("name", "step"), [("first", 1), ("first", 3), ("second", 3)])
def test_interrupted_stage_ends_with_the_same_bytes(tiny_task, whole, tmp_path, monkeypatch, name, step):
    real = module._observers
    monkeypatch.setattr(
        module,
        "_observers",
        lambda run, *rest: [*real(run, *rest), *([After(step)] if run.stage.name == name else [])],
    )
    with pytest.raises(KeyboardInterrupt):
        _train(tiny_task, tmp_path, voter=None)
    assert not (tmp_path / name / MODEL).exists()
    monkeypatch.setattr(module, "_observers", real)
    torch.manual_seed(4711)
    _train(tiny_task, tmp_path, voter=None, settings=replace(SETTINGS, num_workers=1))
    assert _weights(tmp_path) == _weights(whole)


def test_finished_stage_is_not_trained_again_and_belongs_to_its_plan(tiny_task, whole, monkeypatch):
    monkeypatch.setattr(module, "train_loop", lambda *_: pytest.fail("trained again"))
    _train(tiny_task, whole, voter=None)
    other = patch_plan(tiny_task)
    other = replace(other, detector3d=replace(SMALL, samples_per_patch=13))
    with pytest.raises(UserError, match="was trained from another plan"):
        _train(tiny_task, whole, other)


def _sgd(place):
    """SGD, which does not magnify rounding; three patches on two processes, of which one shows no lesion."""
    return replace(patch_plan(place), optimizer="sgd", positive_fraction=0.5)


def test_two_processes_train_what_one_trains(tiny_task, tmp_path):
    _train(tiny_task, tmp_path / "one", _sgd(tiny_task))
    assert run_two(_train, tiny_task, tmp_path / "two", _sgd(tiny_task)) == [0, 0]
    one, two = (load_file(tmp_path / name / "first" / MODEL) for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)


def test_best_of_validation_patients(tiny_task, tmp_path):
    """Validated after steps 2 and 4 with 3D boxes; what is kept is what was best."""
    settings = replace(SETTINGS, select="best", validate_every=2)
    _train(tiny_task, tmp_path, settings=settings)
    best = Best.read(tmp_path / "first/best/best.json")
    assert best.step in (2, 4)
    assert best.criterion == "average precision of 3D boxes at IoU 0.1 on validation patients"
    assert 0 <= best.value <= 1
    assert (tmp_path / "first/best" / MODEL).read_bytes() == _weights(tmp_path)["first"]


def test_pictures_of_patches(tiny_task, tmp_path):
    from PIL import Image

    _train(tiny_task, tmp_path, settings=replace(SETTINGS, iterations=2, pictures_every=1))
    files = sorted((tmp_path / "first/pictures").iterdir())
    assert [file.name for file in files] == ["step_000001.png", "step_000002.png"]
    pixels = np.array(Image.open(files[0])).reshape(-1, 3)
    assert (pixels == (60, 220, 90)).all(axis=1).any()  # targets are drawn green


@pytest.fixture(scope="module")
def taught(tiny_task, tmp_path_factory):
    """160 steps with the two cases of patient a, one other in training: enough to know a lesion."""
    folder = tmp_path_factory.mktemp("taught")
    plan = patch_plan(tiny_task, iterations=160)
    plan = replace(plan, detector3d=replace(SMALL, nms_iou=0.1))
    settings = replace(SETTINGS, iterations=None, learning_rate=0.005, save_every=1000, ema_decay=None)
    _train(tiny_task, folder, plan, settings)
    return plan, RetinaNet3D().load(plan, plan.stages[0], folder / "first" / MODEL, CPU)


@pytest.mark.parametrize("mirrored", [False, True])
def test_lesions_are_found_at_their_place(tiny_task, taught, mirrored):
    """The best boxes of the training cases lie on the lesions, in every axis, and of their size."""
    plan, model = taught
    stage, hits, lesions = plan.stages[0], 0, 0
    for case_id in plan.folds[0].train:
        case = read_case(tiny_task.store, case_id)
        (found,) = RetinaNet3D().predict(
            [model], case, plan, stage, device=CPU, batch_size=4, mirrored=mirrored
        )
        _, boxes = boxes_from_instances(np.asarray(case.instances))
        best = found.select(found.scores > 0.5)
        hits += int((pairwise_iou(boxes, best.boxes) > 0.25).any(axis=1).sum()) if len(best) else 0
        lesions += len(boxes)
        assert set(found.columns) == {"zone_mm", "hu_quantiles"}
        assert found.dim == 3
    assert lesions == 3
    assert hits >= (2 if mirrored else 3)


def test_hits_of_volumes_by_hand(tiny_task):
    """Lesions of case_0: one is hit, the other missed, and one box lies beside both."""
    plan = patch_plan(tiny_task)
    case = read_case(tiny_task.store, "case_0")
    _, boxes = boxes_from_instances(np.asarray(case.instances))
    assert len(boxes) == 2
    found = Detections.build([boxes[0] + 0.5, [0, 0, 0, 1, 1, 1]], [0.8, 0.9])
    hits = match_volume(found, case, plan, plan.stages[0])
    assert (hits.scores, hits.hits, hits.lesions) == ({0: [0.8, 0.9]}, {0: [True, False]}, {0: 2})
    with pytest.raises(UserError, match="without labels"):
        match_volume(found, replace(case, instances=None), plan, plan.stages[0])


def test_registered_by_entry_point():
    assert TRAINERS["RetinaNet3D"] is RetinaNet3D


def test_what_does_not_fit(tiny_task, whole, tmp_path):
    plan = patch_plan(tiny_task)
    other = replace(plan, detector3d=replace(SMALL, channels=[6, 8, 10]))
    with pytest.raises(UserError, match=r"weights do not fit at encoder\.stages\.2\.0\.0\.weight"):
        RetinaNet3D().load(other, other.stages[0], whole / "first" / MODEL, CPU)
    with pytest.raises(UserError, match="has 1 neighbouring slices as channels; expected neighbours 0"):
        _train(tiny_task, tmp_path, replace(plan, neighbours=1))
    file = tiny_task.paths.plan("PSMA25D")
    with pytest.raises(
        UserError, match="trainer 'RetinaNet3D' cannot train this plan; expected a plan of retina3d"
    ):
        check_trainer(system_of(tiny_task.plan), "RetinaNet3D", file)


def test_memory_of_patches_against_the_estimate(tiny_task):
    plan = patch_plan(tiny_task)
    training = Training("sgd", "no", False, 1)
    check = compare_memory(
        stage_load(plan, plan.stages[0]), plan.stages[0], 3, training, Peak(10**9, 2 * 10**9), "some GPU"
    )
    assert (check.backbone, check.input_size, check.measured_gb) == ("PlainConvEncoder", (6, 24, 24), 2.0)
    assert json.loads(json.dumps(check.estimated_gb)) > 0
    assert (
        what_to_lower(plan, plan.stages[0], 3, training, 80.0) == "Lower trainer_cfg.batch_size from 3 to 2"
    )
    assert what_to_lower(plan, plan.stages[0], 3, training, 0.1).startswith(
        "Not even one patch of 6 x 24 x 24 voxels"
    )
