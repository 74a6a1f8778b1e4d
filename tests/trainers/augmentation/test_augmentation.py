"""Random transforms: drawn first, then applied without chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.preprocess.warp import plane_map, warp
from nndet_psma.systems.psma25d.planning.augmentation import PAPER
from nndet_psma.trainers.augmentation.draw import (
    augment_intensity,
    augmented_map,
    draw_augmentation,
    smooth,
    smoothing_margin,
)

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
    once = augment_intensity(image.clone(), first, STRONG)
    np.random.seed(2)
    torch.manual_seed(3)
    twice = augment_intensity(before.clone(), first, STRONG)
    assert torch.equal(once, twice)
    margin = 2 if first.blur else 0
    assert once.shape == (3, 12 - 2 * margin, 14 - 2 * margin)
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


def test_the_papers_draws():
    """Largest side 640 to 800 round 720, any angle, mirror and smoothing half of the time."""
    draws = [draw_augmentation(PAPER, np.random.default_rng(seed)) for seed in range(400)]
    sides = [720 * draw.scale for draw in draws]
    assert 640 <= min(sides) < 645
    assert 795 < max(sides) <= 800
    assert min(d.rotation_degrees for d in draws) < -170
    assert max(d.rotation_degrees for d in draws) > 170
    for name in ("flip", "blur"):
        assert 0.42 < np.mean([getattr(draw, name) for draw in draws]) < 0.58  # 3 standard deviations
    assert {(draw.noise_std, draw.shift) for draw in draws} == {(0.0, (0.0, 0.0))}


def test_kernel_of_five_pixels_by_hand():
    """exp(-d^2 / 2) for d = 0, 1, 2 is 1, 0.60653, 0.13534; their sum over five pixels is 2.48373."""
    impulse = torch.zeros(1, 13, 13)
    impulse[0, 6, 6] = 1
    row = np.array([0.13534, 0.60653, 1, 0.60653, 0.13534]) / 2.48373
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = row[:, None] * row
    np.testing.assert_allclose(smooth(impulse, 1.0)[0].numpy(), expected, atol=1e-5)
    assert float(smooth(torch.full((2, 9, 7), 0.3), 1.0).sub(0.3).abs().max()) < 1e-6


@given(st.integers(1, 40), st.integers(1, 30), st.floats(0.3, 3.0), st.integers(0, 99))
def test_smoothing_is_a_correlation_with_the_kernel(height, width, sigma, seed):
    """Against a plain sum over all 25 neighbours."""
    image = torch.rand(2, height + 4, width + 4, generator=torch.Generator().manual_seed(seed))
    weights = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = sum(
        weights[i] * weights[j] * image[:, i : i + height, j : j + width].numpy().astype(float)
        for i in range(5)
        for j in range(5)
    )
    np.testing.assert_allclose(smooth(image, sigma).numpy(), expected, atol=1e-6)


def test_smoothing_in_tiles_has_no_seams():
    image = torch.rand(1, 70, 4004)  # 16 rows of 4000 values make a tile
    whole = smooth(image, 1.0)
    parts = [smooth(image[:, start : start + 5], 1.0) for start in range(66)]
    torch.testing.assert_close(whole, torch.cat(parts, dim=1))


def test_smoothing_does_not_depend_on_where_the_picture_ends():
    draw = replace(draw_augmentation(STILL, np.random.default_rng(0)), blur=True)
    assert (smoothing_margin(draw), smoothing_margin(replace(draw, blur=False))) == (2, 0)
    large = _image()
    small = augment_intensity(large[:, 3:11, 2:12].clone(), draw, STILL)
    torch.testing.assert_close(small, augment_intensity(large, draw, STILL)[:, 3:7, 2:8])


def test_smoothing_keeps_the_mean_and_calms():
    draw = replace(draw_augmentation(STILL, np.random.default_rng(0)), blur=True)
    blurred = augment_intensity(_image(), draw, STILL)
    assert float(blurred.std()) < 0.6 * float(_image().std())
    assert float(blurred.mean()) == pytest.approx(float(_image()[:, 2:-2, 2:-2].mean()), abs=0.02)
