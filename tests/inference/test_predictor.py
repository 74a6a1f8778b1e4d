"""All detectors of a model: which weights are used, how many parts, which device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_place import MODEL, TASK

from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder, find_model
from nndet_psma.core.errors import UserError
from nndet_psma.inference.predictor import VoterEnsemble, choose_device
from nndet_psma.preprocess.store import read_case
from nndet_psma.systems.nodeseg.plan import NodeSegPlan
from nndet_psma.systems.psma25d.plan import PSMA25DPlan

CPU = torch.device("cpu")


def _predict(place, fold, **options):
    predictor = VoterEnsemble(ModelFolder(place.model), fold, device=CPU, **options)
    case = read_case(place.store, "case_0")
    return predictor, predictor.predict(case, case.source, "made")


def test_consolidated_model_asks_every_fold(trained):
    """Voter by voter one part per fold, each equal to what that fold's own model says."""
    _, both = _predict(trained, CONSOLIDATED, source_folds=[0, 1])
    assert list(both.voters) == [stage.name for stage in trained.plan.voters]
    for fold in (0, 1):
        _, alone = _predict(trained, fold)
        for name in both.voters:
            assert len(both.voters[name]) == 2
            assert np.array_equal(both.voters[name][fold].boxes, alone.voters[name][0].boxes)
    first, second = next(iter(both.voters.values()))
    assert not np.array_equal(first.scores, second.scores)
    assert both.meta.parts == dict.fromkeys(both.voters, 2)


def test_subset_of_folds(trained):
    _, one = _predict(trained, CONSOLIDATED, source_folds=[1])
    assert set(one.meta.parts.values()) == {1}


def test_mirrored_views_are_further_parts(trained):
    plain, _ = _predict(trained, 0)
    mirrored, raw = _predict(trained, 0, tta=True)
    assert set(raw.meta.parts.values()) == {2}
    assert plain.weights_hash != mirrored.weights_hash


def test_whole_slices_use_the_pretrained_stage(trained):
    predictor, raw = _predict(trained, 0, whole_slices=True)
    assert list(raw.voters) == ["wsi"]
    assert raw.meta.region == "body"
    depth, height, width = raw.meta.store.shape
    assert raw.meta.examined == (0, 0, 0, depth, height, width)
    assert predictor.weights_hash != _predict(trained, 0)[0].weights_hash


def test_search_region_is_recorded(trained):
    """CTV 1..9 x 12..30 x 12..36 grown by the margin of 6.48 mm: one slice (4 mm), three voxels of 2 mm."""
    _, raw = _predict(trained, 0)
    assert trained.plan.margin_mm == 6.48
    origin = raw.meta.image.to_voxels(raw.meta.store.to_patient(np.zeros((1, 3))))[0]
    assert np.allclose(np.add(raw.meta.examined, np.tile(origin, 2)), [0, 9, 9, 10, 33, 39])
    assert raw.meta.region == "ctv"


def test_hash_follows_the_weights(own_copy):
    before = _predict(own_copy, 0)[0].weights_hash
    assert before == _predict(own_copy, 0)[0].weights_hash
    file = own_copy.model / "fold0" / own_copy.plan.voters[0].name / "model.safetensors"
    state = load_file(file)
    save_file(
        {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}, file
    )
    assert before != _predict(own_copy, 0)[0].weights_hash


def test_missing_weights_are_named(own_copy):
    name = own_copy.plan.voters[0].name
    (own_copy.model / "fold0" / name / "model.safetensors").unlink()
    with pytest.raises(
        UserError, match=rf"fold0/{name}/model\.safetensors: weights are missing.*Run nndet_train"
    ):
        _predict(own_copy, 0)


def test_no_whole_slice_stage(own_copy):
    from dataclasses import replace

    plan = own_copy.plan
    bare = replace(plan, stages=[replace(s, start_from=None) for s in plan.voters])
    bare.write(own_copy.model / "fold0/plan.json")
    with pytest.raises(UserError, match="no whole-slice stage, so it cannot search images without CTV"):
        _predict(own_copy, 0, whole_slices=True)


@pytest.mark.parametrize("size", [0, -1, "many"])
def test_batch_size_that_makes_no_sense(trained, size):
    with pytest.raises(UserError, match=r"inference_kwargs\.batch_size is"):
        _predict(trained, 0, batch_size=size)


def test_devices():
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "meta", "mps", "cpu:x"):
        with pytest.raises(UserError, match=f"unknown device '{name}'; expected auto, cpu, cuda or cuda:N"):
            choose_device(name)
    with pytest.raises(UserError, match=r"device cuda:99 asked for; found \d+ visible GPUs"):
        choose_device("cuda:99")


def test_model_folder(trained, monkeypatch):
    trained.enter(monkeypatch)
    for task in ("900", "Tiny", TASK):
        assert find_model(task, MODEL).root == trained.model
    folder = find_model("900", MODEL)
    assert folder.trained_folds() == [0, 1]
    assert folder.fold(-1).name == "consolidated"
    assert folder.weights(-1, "wsi", 1) == trained.model / "consolidated/fold1/wsi/model.safetensors"
    with pytest.raises(UserError, match=r"fold7: holds no trained model.*Run nndet_train first"):
        folder.plan(7)
    with pytest.raises(UserError, match=rf"unknown model 'X'; expected one of: {MODEL}"):
        find_model("900", "X")


def test_model_is_found_without_the_data(trained, monkeypatch):
    trained.enter(monkeypatch)
    monkeypatch.delenv("det_data")
    assert find_model("Tiny", MODEL).root == trained.model


def test_a_plan_of_another_kind_is_refused(trained):
    folder = ModelFolder(trained.model)
    assert folder.plan(0, PSMA25DPlan) == folder.plan(0)
    with pytest.raises(
        UserError, match="is a plan of another system; expected a NodeSegPlan; found a PSMA25DPlan"
    ):
        folder.plan(0, NodeSegPlan)
