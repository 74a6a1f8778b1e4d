"""Pictures of slices: which channel is shown, and what is on a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from artifact_samples import PLAN
from PIL import Image

from nndet_psma.preprocess.windows import channel_sources, slice_channels
from nndet_psma.systems.psma25d.pictures import SlicePictures, centre_channel
from nndet_psma.trainers.observer import StepReport
from nndet_psma.trainers.watch import pictures
from nndet_psma.trainers.watch.pictures import Shade

GREEN = (60, 220, 90)


def _target(*boxes):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
    }


def _report(step, iterations, batch):
    return StepReport(step, iterations, {"loss": 1.0}, 0.1, 3, 0.1, batch)


def _pixels(image, colour):
    return np.argwhere((np.asarray(image) == colour).all(axis=2))


def test_centre_channel_is_that_of_the_channels():
    """Slices of constant value z: the centre channel of source s holds that of slice z = 2, scaled by its window."""
    stage = replace(PLAN.stages[0], windows=[w.name for w in PLAN.windows][:2])
    volume = np.broadcast_to(np.arange(5, dtype=np.int16)[:, None, None], (5, 4, 4))
    sources = channel_sources(replace(PLAN, scalings=[]), stage)
    for neighbours in (0, 1, 2):
        channels = slice_channels({str(PLAN.ct_name): volume}, sources, 2, neighbours)
        for number, source in enumerate(sources):
            value = channels[centre_channel(neighbours, number), 0, 0]
            assert value == pytest.approx((2 - source.lower) / (source.upper - source.lower))


def test_the_picture_of_a_batch(tmp_path, monkeypatch):
    """Channel 1 of normalised slices: (0.5 - 0.45) / 0.225 is mid grey again. No text but scores, no metadata."""
    batch = {
        "images": torch.full((2, 3, 96, 96), (0.5 - 0.45) / 0.225).to(torch.bfloat16),
        "targets": [_target(), _target((30.0, 30, 60, 60))],
        "slices": ["patient_a:3", "patient_b:4"],
    }
    batch["images"][:, [0, 2]] = 9.0
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
    monkeypatch.setattr(pictures, "detect", lambda model, images: [nothing] * len(images))
    watch = SlicePictures(tmp_path, channel=1, shade=Shade(0.45, 0.225))
    watch.on_step(_report(1, 1000, batch), None)
    (file,) = (tmp_path / "pictures").iterdir()
    assert file.name == "step_000001.png"
    with Image.open(file) as image:
        assert image.info == {}
        pixels = np.asarray(image)
    assert pixels.shape == (384, 384 + 6 + 384, 3)
    assert len(_pixels(pixels[:, :384], GREEN)) > 0  # the slice with a target comes first
    right = pixels[:, 390:]
    assert np.abs(right.astype(int) - 128).max() <= 1
    assert (pixels[:, 384:390] == 70).all()
