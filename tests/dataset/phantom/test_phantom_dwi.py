"""DWI of the phantom: physics, contrast, labels that can be measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.dataset.phantom.anatomy import Anatomy
from nndet_psma.dataset.phantom.case import PhantomCase
from nndet_psma.dataset.phantom.dwi import (
    NODE_KINDS,
    SUSPICIOUS_MM,
    draw_dwi_case,
    dwi_options,
    label_nodes,
    plan_dwi,
)
from nndet_psma.dataset.phantom.dwi_signal import (
    TISSUE_SIGNAL,
    Signal,
    coil_shading,
    measure_adc,
    paint_signals,
    to_signal,
)
from nndet_psma.dataset.phantom.tissue import Tissue

SPACING = (3.5, 1.8, 1.8)


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [draw_dwi_case(plan_dwi(0, "train", k), dwi_options()) for k in range(5)]


def median(case: PhantomCase, image: int, *tissues: Tissue) -> float:
    return float(np.median(case.images[image][np.isin(case.anatomy.tissue, tissues)]))


def node_values(
    anatomy: Anatomy, image: np.ndarray, kinds: tuple[str, ...], smallest_mm: float
) -> list[float]:
    """The values a small spherical core of each node has."""
    values = []
    for node in anatomy.nodes:
        if node.kind in kinds and node.short_axis_mm >= smallest_mm:
            window, core = node.contour(anatomy.canvas, -1.5)
            values.append(float(np.median(image[window][core])))
    return values


def test_every_tissue_has_a_signal():
    assert set(TISSUE_SIGNAL) == set(Tissue)


def test_grid_and_images(cases):
    for case in cases:
        assert case.geometry.spacing == SPACING
        assert [image.shape for image in case.images] == [(40, 160, 208)] * 2
        assert {image.dtype for image in case.images} == {np.dtype(np.int16)}
        assert case.images[0].min() >= 0
        assert 0 <= case.images[1].min() <= case.images[1].max() <= 4000


def test_nodes_and_bowel_are_bright_urine_is_fast(cases):
    for case in cases:
        muscle = median(case, 0, Tissue.MUSCLE)
        assert median(case, 0, Tissue.BOWEL_SOFT, Tissue.BOWEL_WALL) > 2 * muscle
        assert median(case, 0, Tissue.FAT) < muscle
        assert median(case, 1, Tissue.BLADDER, Tissue.BLADDER_CONTRAST) == pytest.approx(2900, rel=0.3)
        nodes = node_values(case.anatomy, case.images[0], NODE_KINDS, 6.0)
        assert np.median(nodes) > 1.7 * muscle


def test_adc_tells_cysts_from_nodes(cases):
    def pooled(*kinds: str) -> list[float]:
        return [v for c in cases for v in node_values(c.anatomy, c.images[1], kinds, 6.0)]

    assert np.median(pooled("positive")) == pytest.approx(880, abs=130)
    assert np.median(pooled("benign")) == pytest.approx(1080, abs=150)
    assert np.median(pooled("mimic")) > 1700


def test_some_nodes_are_suspicious_and_some_are_not(cases):
    axes = np.array([n.short_axis_mm for c in cases for n in c.anatomy.nodes if n.kind in NODE_KINDS])
    assert axes.min() >= 3.0 * 0.7 * 0.92  # a node may be shrunk for a place, and a second scan differs
    assert axes.max() <= 15.3
    assert 0.1 < np.mean(axes > SUSPICIOUS_MM) < 0.5


def test_every_lymph_node_is_one_instance_and_no_mimic_is(cases):
    for case in cases:
        nodes = [node for node in case.anatomy.nodes if node.kind in NODE_KINDS]
        assert np.unique(case.labels).tolist() == list(range(len(nodes) + 1))
        assert case.classes == {k: 0 for k in range(1, len(nodes) + 1)}
        mimics = [k for k, node in enumerate(case.anatomy.nodes, start=1) if node.kind == "mimic"]
        assert not case.labels[np.isin(case.anatomy.node_index, mimics)].any()


def test_labels_have_the_volume_of_the_nodes(cases):
    # the label ends at the surface: over many nodes the voxels add up to the volume of the ellipsoids, less what
    # vessels take away
    drawn = truth = 0.0
    for case in cases:
        drawn += (label_nodes(case.anatomy) > 0).sum() * np.prod(SPACING)
        nodes = [node for node in case.anatomy.nodes if node.kind in NODE_KINDS]
        truth += sum(4 / 3 * np.pi * np.prod(node.radii_mm) for node in nodes)
    assert drawn == pytest.approx(truth, rel=0.08)


def test_same_case_same_voxels():
    options = dwi_options(size=(12, 54, 74), spacing=(12.0, 5.0, 5.0), flip=True)
    first, second = (draw_dwi_case(plan_dwi(4, "test", 1), options) for _ in range(2))
    assert first.spec.case_id == "dwi_test_001"
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))
    assert np.array_equal(first.labels, second.labels)
    assert first.geometry == second.geometry


def even_signal(plain: float, coefficient: float, shape=(4, 8, 8)) -> Signal:
    none = np.zeros(shape, bool)
    values = [np.full(shape, v, np.float32) for v in (plain, coefficient)]
    return Signal(*values, none, none)


@given(st.floats(100, 1500), st.floats(300, 3000))
def test_adc_of_a_noiseless_measurement_is_the_coefficient(plain, coefficient):
    # shading and blur act on both images alike and cancel
    low, high = to_signal(even_signal(plain, coefficient), 800, 0.0, SPACING, np.random.default_rng(0))
    inside = high > 1
    assert measure_adc(low, high, 800, 0.0)[inside] == pytest.approx(coefficient, rel=1e-3)


def test_signal_falls_exponentially():
    low, high = to_signal(even_signal(1000, 1000), 800, 0.0, SPACING, np.random.default_rng(0))
    assert np.allclose(high / low, np.exp(-0.8), rtol=1e-5)


def test_noise_without_signal_is_rayleigh_and_has_no_adc():
    low, high = to_signal(even_signal(0, 0, (20, 40, 40)), 800, 10.0, SPACING, np.random.default_rng(0))
    assert high.mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.01)
    assert (measure_adc(low, high, 800, 10.0) > 0).mean() < 0.02  # above three sigma: exp(-4.5) = 1.1 %


def test_blend_of_a_whole_and_a_half_voxel():
    signal = even_signal(100, 2000, (1, 1, 3))
    share = np.array([[[1.0, 0.5, 0.0]]])
    signal.blend((slice(0, 1),) * 2 + (slice(0, 3),), share, 500, 1000)
    assert signal.plain.ravel() == pytest.approx([500, 300, 100])
    # half of the voxel gives 250 of 300: 5/6 of the way from 2000 to 1000
    assert signal.coefficient.ravel() == pytest.approx([1000, 2000 - 1000 * 5 / 6, 2000])


@given(st.integers(0, 100))
def test_shading_is_smooth_and_moderate(seed):
    field = coil_shading((10, 20, 30), np.random.default_rng(seed))
    assert 0.2 < field.min() <= field.max() < 5
    assert max(np.abs(np.diff(np.log(field), axis=axis)).max() for axis in range(3)) < 0.25


def test_contrast_medium_of_the_ct_does_not_show_in_mr():
    assert TISSUE_SIGNAL[Tissue.BLADDER] == TISSUE_SIGNAL[Tissue.BLADDER_CONTRAST]
    tissue = np.full((2, 4, 4), Tissue.GAS, np.uint8)
    assert not paint_signals(tissue, SPACING, np.random.default_rng(0)).plain.any()
