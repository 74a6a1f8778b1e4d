"""The 3D detector learns a toy patch, trains on patches without lesions, and gives boxes in the promised form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_detector3d import SMALL

from nndet_psma.boxes.box import pairwise_iou
from nndet_psma.core.errors import UserError
from nndet_psma.systems.retina3d.anchors import AnchorGrid
from nndet_psma.systems.retina3d.network import LOSSES, build_retinanet3d
from nndet_psma.systems.retina3d.pyramid import _by_anchor
from nndet_psma.trainers.networks.sampling import seed_samplers
from nndet_psma.trainers.networks.weights import read_model, write_model

BOX = (2, 10, 20, 5, 17, 25)


def toy():
    """A bright box in the first of two patches, of class 1 of 2."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 1, 8, 32, 32, generator=generator) * 0.1
    masks = torch.zeros(2, 8, 32, 32, dtype=torch.uint8)
    z0, y0, x0, z1, y1, x1 = BOX
    images[0, 0, z0:z1, y0:y1, x0:x1] += 1
    masks[0, z0:z1, y0:y1, x0:x1] = 1
    none = {"boxes": torch.zeros(0, 6), "labels": torch.zeros(0, dtype=torch.int64), "mask": masks[1]}
    lesion = {"boxes": torch.tensor([BOX]).float(), "labels": torch.tensor([1]), "mask": masks[0]}
    return images, [lesion, none]


def build(**changes):
    torch.manual_seed(0)
    return build_retinanet3d(replace(SMALL, **changes), 1, 2)


def train(model, images, targets, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for step in range(steps):
        seed_samplers(model, step, range(len(images)))
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return loss.item()


def predict(model, images):
    with torch.no_grad():
        return model.eval()(images)


def test_learns_a_toy_patch():
    """Sixty steps; an untrained network's best box overlaps by chance, a mirrored or transposed one hardly."""
    images, targets = toy()
    model = build()
    last = train(model, images, targets, 60)
    assert last < 0.6
    found, nothing = predict(model, images)
    iou = pairwise_iou(found["boxes"][:1].numpy().astype(float), torch.tensor([BOX]).double().numpy())
    assert iou[0, 0] > 0.6
    assert found["labels"][0] == 1
    assert found["scores"][0] > 0.5
    assert nothing["scores"].max() < 0.3


def test_losses_and_what_they_are_means_over():
    images, targets = toy()
    model = build()
    losses = model(images, targets)
    assert set(losses) == set(LOSSES)
    assert model.counts["loss_segmentation_ce"] == 2
    assert model.counts["loss_segmentation_dice"] == 1  # one of the patches shows a lesion
    assert model.counts["loss_box_reg"] == model.sampler.positives >= 1
    # a third positive: two negatives for each positive, and two in the patch without
    assert model.counts["loss_classifier"] == 3 * model.sampler.positives + 2
    # an untrained head says 0.01 of everything; log 0.01 for positives, log 0.99 for negatives, two classes each
    positives, drawn = model.sampler.positives, model.sampler.drawn
    wanted = -(
        positives * torch.log(torch.tensor(0.01)) + (2 * drawn - positives) * torch.log(torch.tensor(0.99))
    )
    torch.testing.assert_close(losses["loss_classifier"], wanted / (2 * drawn), rtol=0.1, atol=0)


def test_only_patches_without_lesions():
    images, targets = toy()
    model = build()
    losses = model(images[1:], targets[1:])
    assert losses["loss_box_reg"].item() == losses["loss_segmentation_dice"].item() == 0
    assert model.counts == {
        "loss_classifier": 2, "loss_box_reg": 0, "loss_segmentation_ce": 1, "loss_segmentation_dice": 0,
    }  # fmt: skip
    torch.stack(list(losses.values())).sum().backward()
    # several processes wait for the gradient of every weight, in every step
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_dice_by_hand():
    """A foreground cell of 512 at the finest level: with p = 0.5 everywhere 1 - (2 * 0.5 + 1) / (256 + 1 + 1)."""
    model = build()
    mask = torch.zeros(8, 32, 32, dtype=torch.uint8)
    mask[3, 4, 6] = 1  # one voxel makes its cell of 1 x 2 x 2 voxels foreground
    logits = torch.zeros(1, 1, 8, 16, 16)
    losses = model._segmentation_losses(logits, [{"mask": mask}])
    cells = 8 * 16 * 16
    torch.testing.assert_close(losses["loss_segmentation_dice"], torch.tensor((1 - 2 / (cells / 2 + 2)) / 2))
    torch.testing.assert_close(losses["loss_segmentation_ce"], torch.log(torch.tensor(2.0)) / 2)


def test_no_segmentation_head():
    images, targets = toy()
    model = build(segmentation_head=False)
    bare = [{name: t[name] for name in ("boxes", "labels")} for t in targets]
    assert set(model(images, bare)) == {"loss_classifier", "loss_box_reg"}
    assert not any("segmentation" in name for name in model.state_dict())


def test_draws_follow_the_seed():
    images, targets = toy()
    model = build()
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(values))
        seed_samplers(model, seed, [0, 1])
        values.append(model(images, targets)["loss_classifier"].item())
    assert values[0] == values[1] != values[2]


def test_predictions_are_in_order():
    images, _ = toy()
    for output in predict(build(nms_iou=1.0, detections_per_patch=7), images):
        assert output["boxes"].shape == (7, 6)
        assert (output["boxes"].dtype, output["labels"].dtype) == (torch.float32, torch.int64)
        assert (output["boxes"][:, :3] >= 0).all()
        assert (output["boxes"][:, 3:] <= torch.tensor([8, 32, 32])).all()
        assert (output["boxes"][:, 3:] - output["boxes"][:, :3] >= 0.5).all()
        assert (output["scores"].diff() <= 0).all()
        assert set(output["labels"].tolist()) <= {0, 1}
    assert all(len(output["boxes"]) == 0 for output in predict(build(min_score=0.99), images))


def test_a_list_of_patches_is_a_batch():
    images, _ = toy()
    model = build()
    for first, second in zip(predict(model, images), predict(model, list(images)), strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_predictions_and_anchors_agree_on_the_order():
    """A map that holds (z, y, x, anchor) of its place, read in the order of the anchors."""
    grid = (2, 3, 4)
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in grid), indexing="ij")
    predicted = torch.stack([v for anchor in range(2) for v in (z, y, x, torch.full(grid, float(anchor)))])[
        None
    ]
    rows = _by_anchor(predicted, 4)[0]
    anchors = AnchorGrid(SMALL)([grid, (1, 1, 1)], torch.device("cpu"))[0]
    centres = (anchors[:, :3] + anchors[:, 3:]) / 2
    assert torch.equal((rows[:, :3] + 0.5) * torch.tensor([1.0, 2, 2]), centres)
    widths = anchors[:, 5] - anchors[:, 2]
    assert torch.equal(rows[:, 3], (widths == 6).float())


def test_weights_can_be_written_and_read(tmp_path):
    images, _ = toy()
    model = build()
    write_model(model, tmp_path / "model.safetensors")
    torch.manual_seed(1)
    other = build_retinanet3d(SMALL, 1, 2)
    read_model(other, tmp_path / "model.safetensors")
    for first, second in zip(predict(model, images), predict(other, images), strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Losses are computed in 32 bits: coordinates above 256 have none to spare in bfloat16."""
    images, targets = toy()
    model = build()
    with torch.autocast("cpu", dtype):
        losses = model(images, targets)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        outputs = predict(model, images)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    assert outputs[0]["boxes"].dtype == torch.float32


def test_what_cannot_be_built_or_asked():
    tiny = replace(SMALL, patch_size=(2, 4, 4))
    with pytest.raises(UserError, match=r"patch_size \(2, 4, 4\) leaves a single cell.*Plan a larger patch"):
        build_retinanet3d(tiny, 1, 1)
    with pytest.raises(ValueError, match="targets are needed"):
        build()(toy()[0])


def test_levels_may_skip_stages():
    """The finest stage above the first level and a stage between two levels have no anchors of their own."""
    skipping = replace(
        SMALL, patch_size=(16, 64, 64), strides=[(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)],
        kernels=[(1, 3, 3), *[(3, 3, 3)] * 3], channels=[4, 4, 6, 8], levels=[1, 3],
    )  # fmt: skip
    model = build_retinanet3d(skipping, 3, 1)
    features = model.encoder(torch.zeros(1, 3, 16, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [
        (4, 16, 64, 64),
        (4, 16, 32, 32),
        (6, 8, 16, 16),
        (8, 4, 8, 8),
    ]
    maps = model.pyramid(features)
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 32, 32), (8, 4, 8, 8)]
    logits, deltas = model.heads(maps)
    assert [tuple(v.shape) for v in logits] == [(1, 2 * 16384, 1), (1, 2 * 256, 1)]
    assert [tuple(v.shape) for v in deltas] == [(1, 2 * 16384, 6), (1, 2 * 256, 6)]
