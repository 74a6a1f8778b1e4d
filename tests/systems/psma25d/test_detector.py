"""The assembled detector: anchors, losses, predictions, and the input transform that must do nothing."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_detector import small_detector
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.systems.psma25d.transform import PassThroughTransform
from nndet_psma.trainers.networks.sampling import seed_samplers

LOSSES = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}


def _batch(masks: bool = False):
    """Two slices; the second holds no lesion."""
    images = [torch.rand(3, 48, 64), torch.rand(3, 48, 64)]
    targets = [
        {"boxes": torch.tensor([[10.0, 12.0, 18.0, 22.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    if masks:
        mask = torch.zeros(1, 48, 64, dtype=torch.uint8)
        mask[0, 12:22, 10:18] = 1
        targets[0]["masks"], targets[1]["masks"] = mask, torch.zeros(0, 48, 64, dtype=torch.uint8)
    return images, targets


@pytest.mark.parametrize("training", [True, False])
def test_transform_changes_neither_size_nor_values(training):
    # torchvision heeds its own _skip_resize in training only; prediction would run at another scale
    transform = PassThroughTransform(3, size_divisible=8).train(training)
    image = torch.rand(3, 40, 56) * 4 - 2
    target = {"boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0]]), "labels": torch.tensor([1])}
    images, targets = transform([image], [target])
    assert isinstance(images, ImageList)
    assert images.image_sizes == [(40, 56)]
    assert torch.equal(images.tensors[0], image)
    assert torch.equal(targets[0]["boxes"], target["boxes"])


def test_torchvision_alone_would_resize_when_predicting():
    # shows that the test above can fail: the stock transform with _skip_resize enlarges in evaluation mode
    stock = GeneralizedRCNNTransform(80, 80, [0.0] * 3, [1.0] * 3, _skip_resize=True).eval()
    assert stock([torch.rand(3, 40, 56)])[0].image_sizes != [(40, 56)]


@pytest.mark.parametrize("training", [True, False])
def test_transform_pads_to_a_batch(training):
    transform = PassThroughTransform(2, size_divisible=8).train(training)
    first, second = torch.rand(2, 41, 56), torch.rand(2, 30, 60)
    images, _ = transform([first, second])
    assert images.tensors.shape == (2, 2, 48, 64)
    assert torch.equal(images.tensors[1, :, :30, :60], second)
    assert not images.tensors[1, :, 30:].any()


def test_boxes_come_back_in_the_slices_own_pixels():
    # postprocess divides original by transformed sizes; with the pass-through both are the same
    transform = PassThroughTransform(3).eval()
    box = {"boxes": torch.tensor([[3.0, 4.0, 9.0, 10.0]])}
    assert torch.equal(transform.postprocess([box], [(40, 56)], [(40, 56)])[0]["boxes"], box["boxes"])


def test_anchors_per_level_as_planned():
    model = build_detector(small_detector(), channels=3, classes=1)
    generator = model.rpn.anchor_generator
    assert generator.sizes == ((5.0, 8.0), (12.0, 16.0))
    assert generator.num_anchors_per_location() == [4, 4]  # two sizes, two ratios
    features = [torch.zeros(1, 16, 12, 16), torch.zeros(1, 16, 6, 8)]  # strides 4 and 8 of 48 x 64
    anchors = generator(ImageList(torch.zeros(1, 3, 48, 64), [(48, 64)]), features)[0]
    assert len(anchors) == 4 * (12 * 16 + 6 * 8)
    first = anchors[0]  # ratio is height / width: 0.8 at size 5 gives 4.47 x 5.59, which torchvision rounds
    assert (first[3] - first[1], first[2] - first[0]) == (4.0, 6.0)


def test_sampling_as_planned():
    planned = small_detector(proposals_train=11, proposals_test=7, roi_samples=6, rpn_samples=10, nms_iou=0.4)
    model = build_detector(planned, channels=3, classes=1)
    assert model.rpn._post_nms_top_n == {"training": 11, "testing": 7}
    assert model.roi_heads.fg_bg_sampler.size == 6
    assert model.rpn.fg_bg_sampler.size == 10
    assert (model.roi_heads.nms_thresh, model.roi_heads.detections_per_img) == (0.4, 5)


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
@pytest.mark.parametrize("channels", [3, 9])
def test_training_step_with_an_empty_slice(norm, channels):
    torch.manual_seed(0)
    model = build_detector(small_detector(norm=norm), channels=channels, classes=2).train()
    images, targets = _batch()
    losses = model([image.repeat(channels // 3, 1, 1) for image in images], targets)
    assert set(losses) == LOSSES
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert model.backbone.body.conv1.weight.grad.abs().sum() > 0


def test_batch_of_empty_slices_only():
    torch.manual_seed(0)
    model = build_detector(small_detector(), channels=3, classes=1).train()
    images, targets = _batch()
    losses = model(images, [targets[1], targets[1]])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_rpn_box_reg"] == 0


def test_prediction():
    torch.manual_seed(0)
    model = build_detector(small_detector(min_score=0.0), channels=3, classes=2).eval()
    with torch.no_grad():
        outputs = model([torch.rand(3, 48, 64), torch.rand(3, 40, 64)])
    assert [set(output) for output in outputs] == [{"boxes", "labels", "scores"}] * 2
    assert 1 <= len(outputs[0]["boxes"]) <= 5
    assert set(outputs[0]["labels"].tolist()) <= {1, 2}  # 0 is torchvision's background
    assert outputs[1]["boxes"][:, 3].max() <= 40


def test_mask_branch():
    torch.manual_seed(0)
    model = build_detector(small_detector(mask_branch=True), channels=3, classes=1).train()
    losses = model(*_batch(masks=True))
    assert set(losses) == LOSSES | {"loss_mask"}
    sum(losses.values()).backward()
    weight = model.roi_heads.mask_predictor.mask_fcn_logits.weight
    assert torch.isfinite(losses["loss_mask"])
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert "masks" in model.eval()([torch.rand(3, 48, 64)])[0]


def _unbent(bent, *args, beta, reduction):
    return bent(*args, beta=0.0, reduction=reduction)


def test_l1_is_smooth_l1_without_its_bend(monkeypatch):
    """torchvision's own losses with the bend at 0, which is L1 by PyTorch's definition; all else is the same."""
    images, targets = _batch()
    losses = {}
    for name in ("l1", "smooth_l1"):
        torch.manual_seed(0)
        model = build_detector(small_detector(box_loss=name), 3, 1).train()
        if name == "smooth_l1":
            bent = torch.nn.functional.smooth_l1_loss
            monkeypatch.setattr(torch.nn.functional, "smooth_l1_loss", partial(_unbent, bent))
        seed_samplers(model, 5, [0, 1])
        losses[name] = model(images, targets)
    assert set(losses["l1"]) == LOSSES
    for key in LOSSES:
        assert torch.allclose(losses["l1"][key], losses["smooth_l1"][key])
        assert losses["l1"][key] > 0
    sum(losses["l1"].values()).backward()


def test_l1_leaves_weights_and_predictions_alone():
    torch.manual_seed(0)
    plain = build_detector(small_detector(min_score=0.0), 3, 1).eval()
    changed = build_detector(small_detector(min_score=0.0, box_loss="l1"), 3, 1).eval()
    changed.load_state_dict(plain.state_dict())
    image = torch.rand(3, 48, 64)
    assert torch.equal(plain([image])[0]["boxes"], changed([image])[0]["boxes"])
