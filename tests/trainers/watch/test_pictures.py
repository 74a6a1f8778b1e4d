"""Pictures of batches: what is on them, and that training does not notice them."""

from __future__ import annotations

import logging
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from artifact_samples import PLAN
from PIL import Image
from torch import nn

from nndet_psma.systems.psma25d.network import build_detector
from nndet_psma.systems.psma25d.pictures import SlicePictures
from nndet_psma.trainers.observer import StepReport
from nndet_psma.trainers.watch import pictures
from nndet_psma.trainers.watch.pictures import (
    choose_slices,
    detect,
    draw_slice,
    is_due,
    tile_up,
)

GREEN, ORANGE = (60, 220, 90), (255, 150, 40)
DETECTOR = replace(
    PLAN.detector,
    backbone="resnet18", weights="none", norm="batch", levels=[1, 2], fpn_channels=8, head_channels=16,
    input_size=(64, 64), body_input_size=(64, 64), anchor_sizes=[[8.0], [16.0]], aspect_ratios=[1.0],
    rpn_samples=8, roi_samples=8, proposals_train=20, proposals_test=20, detections_per_slice=5, min_score=0.0,
    mask_branch=False,
)  # fmt: skip


def _target(*boxes):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
    }


def _batch(seed, count=3):
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    targets = [_target((8.0, 8.0, 24.0, 28.0)) for _ in range(count - 1)] + [_target()]
    return {"images": images, "targets": targets, "slices": [f"patient_{seed}:{i}" for i in range(count)]}


def _report(step, iterations, batch):
    return StepReport(step, iterations, {"loss": 1.0}, 0.1, 3, 0.1, batch)


def _train(watch, steps=3):
    """A few steps of the real network with batch statistics and random sampling; the final state."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = build_detector(DETECTOR, 3, 1).train()
    model.backbone.body.bn1.eval()  # a module that is frozen on purpose must stay so
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        batch = _batch(step)
        loss = sum(model(list(batch["images"]), batch["targets"]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.on_step(_report(step, steps, batch), model)
    assert model.training
    assert not model.backbone.body.bn1.training
    drawn = [torch.rand(1).item(), float(np.random.rand()), random.random()]
    return {**model.state_dict(), "drawn": torch.tensor(drawn, dtype=torch.float64)}


def test_training_is_bitwise_the_same_with_and_without(tmp_path):
    without = _train(SlicePictures(tmp_path / "off", every=0))
    with_pictures = _train(SlicePictures(tmp_path / "on", every=1))
    assert len(list((tmp_path / "on/pictures").glob("*.png"))) == 3
    assert not (tmp_path / "off").exists()
    assert without.keys() == with_pictures.keys()
    assert any("running_mean" in name for name in without)
    assert all(torch.equal(value, with_pictures[name]) for name, value in without.items())


def test_a_detection_leaves_no_gradients_and_no_trace():
    model = build_detector(DETECTOR, 3, 1).train()
    before = torch.get_rng_state()
    found = detect(model, [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(before, torch.get_rng_state())
    assert not found[0]["scores"].requires_grad
    assert len(found[0]["scores"]) == 5
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_random_numbers_of_a_model_that_draws_some_are_given_back():
    class Draws(nn.Module):
        def forward(self, images):
            return [{"drawn": torch.rand(1)} for _ in images]

    before = torch.get_rng_state()
    detect(Draws(), [torch.zeros(1, 2, 2)])
    assert torch.equal(before, torch.get_rng_state())


def test_modes_come_back_after_an_error():
    class Fails(nn.Sequential):
        def forward(self, images):
            assert not self.training
            raise RuntimeError("out of memory")

    model = Fails(nn.BatchNorm2d(1), nn.Dropout())
    model[1].eval()
    with pytest.raises(RuntimeError, match="out of memory"):
        detect(model, [torch.zeros(1, 2, 2)])
    assert [m.training for m in model.modules()] == [True, True, False]


def test_a_wrapped_model_is_unwrapped():
    """Neither the compiled nor the distributed wrapper runs: other processes would be waited for."""

    class Compiled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, images):
            raise AssertionError

    model = build_detector(DETECTOR, 3, 1)
    assert len(detect(Compiled(model), [torch.zeros(3, 64, 64)])) == 1


@pytest.mark.parametrize(
    ("every", "iterations", "steps"),
    [
        (0, 1000, []),
        (None, 1000, [1, *range(100, 1001, 100)]),
        (None, 120, [1, 50, 100]),  # a tenth would be every 12 steps
        (None, 5, [1]),
        (200, 1000, [1, 200, 400, 600, 800, 1000]),
        (1, 4, [1, 2, 3, 4]),
    ],
)
def test_when_pictures_are_drawn(every, iterations, steps):
    assert [step for step in range(1, iterations + 1) if is_due(step, iterations, every)] == steps


def test_negative_steps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must not be negative, found -1"):
        SlicePictures(tmp_path, every=-1)


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [
        ("+-+", [0, 2, 1]),
        ("--------+-", [8, 0, 1, 2, 3, 4, 5, 6]),
        ("+" * 10 + "---", [0, 1, 2, 3, 4, 5, 10, 11]),  # six and two
        ("+" * 10 + "-", [0, 1, 2, 3, 4, 5, 6, 10]),  # the room of the second goes to a target
        ("+" * 10, list(range(8))),
    ],
)
def test_slices_with_targets_come_first(kinds, chosen):
    targets = [_target((0, 0, 4, 4)) if kind == "+" else _target() for kind in kinds]
    assert choose_slices(targets) == chosen


def _pixels(image, colour):
    return np.argwhere((np.asarray(image) == colour).all(axis=2))


def test_boxes_lie_where_they_should():
    """96 x 128 pixels are enlarged threefold: the box (10, 20, 30, 50) spans x 30..90 and y 60..150."""
    grey = np.zeros((96, 128), np.uint8)
    image = draw_slice(
        grey, torch.tensor([[10.0, 20, 30, 50]]), {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
    )
    assert image.size == (384, 288)
    green = _pixels(image, GREEN)
    assert green.min(axis=0).tolist() == [60, 30]
    assert green.max(axis=0).tolist() == [150, 90]
    assert len(_pixels(image, ORANGE)) == 0


def test_the_best_five_detections_are_drawn():
    """Twelve boxes in a row; the seven of least score are left out."""
    scores = torch.linspace(0.9, 0.1, 12)
    left = torch.arange(12) * 30.0
    boxes = torch.stack([left, torch.full((12,), 20.0), left + 10, torch.full((12,), 40.0)], 1)
    image = draw_slice(np.zeros((384, 384), np.uint8), torch.zeros(0, 4), {"boxes": boxes, "scores": scores})
    bottom = _pixels(image, ORANGE)
    assert {x // 30 for y, x in bottom if y == 40} == set(range(5))


def test_scores_are_written_above_the_box():
    found = {"boxes": torch.tensor([[100.0, 100, 200, 200]]), "scores": torch.tensor([0.87])}
    image = draw_slice(np.zeros((384, 384), np.uint8), torch.zeros(0, 4), found)
    above = [y for y, _ in np.argwhere(np.asarray(image).any(axis=2)) if y < 100]
    assert len(above) > 20
    other = draw_slice(
        np.zeros((384, 384), np.uint8), torch.zeros(0, 4), {**found, "scores": torch.tensor([0.11])}
    )
    assert not np.array_equal(np.asarray(image)[:100], np.asarray(other)[:100])


def test_tiles_of_unequal_size():
    sheet = tile_up([Image.new("RGB", (10, 20)), Image.new("RGB", (30, 5))] * 3, 4)
    assert sheet.size == (4 * 36 - 6, 2 * 26 - 6)


def test_a_picture_that_fails_ends_pictures_not_training(tmp_path, caplog, monkeypatch):
    calls = []

    def fail(model, images):
        calls.append(1)
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(pictures, "detect", fail)
    watch = SlicePictures(tmp_path, every=1)
    with caplog.at_level(logging.WARNING, logger="nndet_psma"):
        for step in (1, 2, 3):
            watch.on_step(_report(step, 3, _batch(0)), None)
    watch.on_end(True)
    assert len(calls) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "no more pictures of batches: out of memory"
    ]
