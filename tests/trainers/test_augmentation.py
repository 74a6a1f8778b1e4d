"""Random transforms: drawn first, then applied without chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.artifacts.plan import Augmentation
from nndet_psma.preprocess.warp import plane_map, warp
from nndet_psma.trainers.augmentation import augment_intensity, augmented_map, draw_augmentation

STILL = Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
STRONG = Augmentation((0.8, 1.25), 180.0, 0.5, 0.5, 1.0, 0.2, 0.1, 6.0)


def _image(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, 12, 14, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**32 - 1))
def test_draw_is_replayed_exactly(seed):
    first = draw_augmentation(STRONG, np.random.default_rng(seed))
    assert first == draw_augmentation(STRONG, np.random.default_rng(seed))
    image = _image()
    before = image.clone()
    np.random.seed(1)
    once = augment_intensity(image, first, STRONG)
    np.random.seed(2)
    torch.manual_seed(3)
    twice = augment_intensity(before.clone(), first, STRONG)
    assert torch.equal(once, twice)
    assert once.min() >= 0
    assert once.max() <= 1


@given(st.integers(0, 2**32 - 1))
def test_draws_stay_in_their_ranges(seed):
    draw = draw_augmentation(STRONG, np.random.default_rng(seed))
    assert 0.8 <= draw.scale <= 1.25
    assert abs(draw.rotation_degrees) <= 180
    assert max(map(abs, draw.shift)) <= 6
    assert 0.8 <= draw.brightness <= 1.2
    assert 0 <= draw.noise_std <= 0.1


def test_every_draw_consumes_the_same_numbers():
    # whether something is drawn must not shift the stream of the slices that follow
    rngs = [np.random.default_rng(4), np.random.default_rng(4)]
    draw_augmentation(STILL, rngs[0])
    draw_augmentation(STRONG, rngs[1])
    assert rngs[0].random() == rngs[1].random()


def test_plan_without_augmentation_changes_nothing():
    draw = draw_augmentation(STILL, np.random.default_rng(0))
    assert torch.equal(augment_intensity(_image(), draw, STILL), _image())
    mapping = augmented_map(draw, (6.0, 7.0), 1.0, (12, 14))
    assert np.array_equal(mapping.matrix, np.eye(2))
    assert np.array_equal(mapping.offset, [0, 0])
    array = _image().numpy()
    torch.testing.assert_close(warp(array, mapping), torch.from_numpy(array))


def test_geometry_of_a_draw():
    draw = replace(
        draw_augmentation(STILL, np.random.default_rng(0)),
        scale=2.0, rotation_degrees=90.0, flip=True, shift=(1.0, -1.0),
    )  # fmt: skip
    mapping = augmented_map(draw, (10.0, 20.0), 1.5, (30, 40))
    reference = plane_map((10.0, 20.0), 3.0, (30, 40), rotation_degrees=90.0, flip=True, shift=(1.0, -1.0))
    assert np.allclose(mapping.matrix, reference.matrix)
    # the middle of the picture, moved by the shift, shows the centre
    assert np.allclose(mapping.to_store(np.array([[16.0, 19.0]])), [[10.0, 20.0]])


def test_brightness_by_hand():
    draw = replace(draw_augmentation(STILL, np.random.default_rng(0)), brightness=1.5)
    image = torch.tensor([[[0.2, 0.8]]])
    assert augment_intensity(image, draw, STILL).flatten().tolist() == pytest.approx(
        [0.3, 1.0]
    )  # 1.2 is clipped


def test_noise_has_the_drawn_deviation():
    draw = replace(draw_augmentation(STILL, np.random.default_rng(0)), noise_std=0.05)
    noisy = augment_intensity(torch.full((1, 100, 100), 0.5), draw, STILL)
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.05)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.003)


def test_smoothing_keeps_the_mean_and_calms():
    draw = replace(draw_augmentation(STILL, np.random.default_rng(0)), blur=True)
    blurred = augment_intensity(_image(), draw, STILL)
    assert float(blurred.std()) < 0.6 * float(_image().std())
