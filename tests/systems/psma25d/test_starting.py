"""What a stage starts from: own weights, and how those that do not fit are told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from stage_hashes import stage_hash

from nndet_psma.core.errors import UserError
from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.systems.psma25d.starting import starting_detector
from nndet_psma.systems.psma25d.trainer import MaskRCNN25D
from nndet_psma.trainers.networks.weights import write_model
from nndet_psma.trainers.registry import FoldJob
from nndet_psma.trainers.settings import TrainerSettings

QUICK = TrainerSettings(iterations=0, num_workers=0)


@pytest.fixture(scope="module")
def weights(tiny_task, tmp_path_factory):
    """A detector of the tiny plan."""
    folder = tmp_path_factory.mktemp("weights")
    job = FoldJob(tiny_task.plan, 0, tiny_task.store, folder, replace(QUICK, seed=99), voter="wsi")
    MaskRCNN25D().train(job)
    return folder / "wsi/model.safetensors"


def test_first_stage_starts_from_own_weights(tiny_task, weights, tmp_path):
    settings = replace(QUICK, start_weights=str(weights))
    MaskRCNN25D().train(FoldJob(tiny_task.plan, 0, tiny_task.store, tmp_path, settings))
    for stage in tiny_task.plan.stages:
        assert (tmp_path / stage.name / "model.safetensors").read_bytes() == weights.read_bytes()


def test_own_weights_with_other_channels_are_spread(tiny_task, weights):
    plan = tiny_task.plan
    wide = replace(plan.stages[0], windows=[window.name for window in plan.windows])
    model = starting_detector(plan, wide, weights)
    name = "backbone.body.conv1.weight"
    torch.testing.assert_close(model.state_dict()[name].sum(1), load_file(weights)[name].sum(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"anchor_sizes": [[4.0], [8.0]]},
            r"do not fit at rpn\.head\.cls_logits\.weight; expected \[1, .*found \[2, ",
        ),
        ({"norm": "group"}, r"hold an unknown layer backbone\.body\.bn1\.num_batches_tracked"),
        ({"mask_branch": True}, r"lack the layer roi_heads\.mask_head"),
        ({"fpn_channels": 8}, r"do not fit at backbone\.fpn"),
    ],
)
def test_own_weights_that_do_not_fit(tiny_task, weights, change, message):
    plan = replace(tiny_task.plan, detector=replace(tiny_task.plan.detector, **change))
    with pytest.raises(UserError, match=rf"model\.safetensors: weights {message}.*belong to another plan"):
        starting_detector(plan, plan.stages[0], weights)


def test_missing_own_weights(tiny_task, tmp_path):
    settings = replace(QUICK, start_weights=str(tmp_path / "no.safetensors"))
    with pytest.raises(
        UserError, match=r"no\.safetensors: weights file does not exist\. Correct trainer_cfg\.start"
    ):
        MaskRCNN25D().train(FoldJob(tiny_task.plan, 0, tiny_task.store, tmp_path, settings))


def test_hash_is_of_the_content_of_own_weights(tiny_task, weights, tmp_path):
    plan, stage = tiny_task.plan, tiny_task.plan.stages[1]
    hashes = []
    for name, factor in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        file = tmp_path / f"{name}.safetensors"
        save_file({key: tensor * factor for key, tensor in load_file(weights).items()}, file)
        hashes.append(stage_hash(plan, stage, 0, replace(QUICK, start_weights=str(file))))
    assert hashes[0] == hashes[1] != hashes[2]
    assert stage_hash(plan, stage, 0, QUICK) not in hashes


def test_layers_that_were_never_trained_are_not_frozen(tiny_task, weights):
    plan = replace(tiny_task.plan, detector=replace(tiny_task.plan.detector, norm="frozen", frozen_layers=1))
    with pytest.raises(UserError, match=r"never trained.*frozen_layers=0"):
        starting_detector(plan, plan.stages[0], None)


def test_a_stage_is_trained_with_the_papers_choices(tiny_task, weights, tmp_path):
    """Frozen stem, L1, no clipping, norms without decay, cases drawn alike: the stem stays, what follows moves."""
    plan = tiny_task.plan
    detector = replace(
        plan.detector, norm="group", frozen_layers=1, box_loss="l1", positive_draw="cases", weights="none"
    )
    plan = replace(plan, detector=detector, clip_norm=0.0, norm_decay=False, positive_fraction=1.0)
    start = tmp_path / "start.safetensors"
    write_model(build_detector(detector, plan.channels(plan.stages[0]), len(plan.classes)), start)
    settings = TrainerSettings(iterations=2, num_workers=0, start_weights=str(start))
    MaskRCNN25D().train(FoldJob(plan, 0, tiny_task.store, tmp_path, settings, voter="wsi"))
    before, after = load_file(start), load_file(tmp_path / "wsi/model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "backbone.body.layer1.0.conv1.weight" in moved
    assert not {"backbone.body.conv1.weight", "backbone.body.bn1.weight", "backbone.body.bn1.bias"} & moved
