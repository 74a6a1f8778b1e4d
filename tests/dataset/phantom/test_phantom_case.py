"""What a phantom case holds: labels, HU, CTV, header; measured on a dozen cases of the default task."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom.anatomy import Anatomy
from nndet_psma.dataset.phantom.case import PhantomCase, draw_case, number_by_centroid
from nndet_psma.dataset.phantom.ctv import distance_outside
from nndet_psma.dataset.phantom.options import PhantomOptions
from nndet_psma.dataset.phantom.schedule import BLOCK, plan_case
from nndet_psma.dataset.phantom.tissue import Tissue

SMALL = PhantomOptions(size=(14, 56, 74), spacing=(10.0, 5.0, 5.0))
# Xu et al. 2023, table 2: quantile (%), lower and upper HU
TABLE_2 = [(0.5, -97, 310), (1.0, -90, 169), (1.5, -84, 151), (2.0, -79, 141)]


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [draw_case(plan_case(0, "train", k), PhantomOptions()) for k in range(12)]


def each_node(anatomy: Anatomy, kind: str):
    for k, node in enumerate(anatomy.nodes, start=1):
        if node.kind == kind:
            yield node, anatomy.node_index == k


def test_hu_of_positive_nodes_follows_table_2(cases):
    hu = np.concatenate([case.images[0][case.labels > 0] for case in cases])
    assert 25 <= np.median(hu) <= 55
    for quantile, low, high in TABLE_2:
        found = np.percentile(hu, [quantile, 100 - quantile])
        assert found[0] == pytest.approx(low, abs=25), quantile
        assert found[1] == pytest.approx(high, abs=60 if quantile == 0.5 else 25), quantile


def test_vessels_are_brighter_than_nodes_and_bowel_contrast_than_vessels(cases):
    for case in cases[:4]:
        ct, tissue = case.images[0], case.anatomy.tissue
        median = {
            t: np.median(ct[tissue == t]) for t in (Tissue.ARTERY, Tissue.VEIN, Tissue.FAT, Tissue.MUSCLE)
        }
        assert 140 < median[Tissue.VEIN] < 250
        assert 140 < median[Tissue.ARTERY] < 260
        assert median[Tissue.FAT] == pytest.approx(-104, abs=12)
        assert median[Tissue.MUSCLE] == pytest.approx(56, abs=18)
    gas = np.concatenate([c.images[0][c.anatomy.tissue == Tissue.GAS] for c in cases])
    contrast = np.concatenate([c.images[0][c.anatomy.tissue == Tissue.BOWEL_CONTRAST] for c in cases])
    assert np.percentile(gas, 10) < -800
    assert 200 < np.median(contrast) < 400


def test_labels_are_the_positive_nodes_in_order_of_their_centroids(cases):
    for case in cases:
        ids = np.unique(case.labels[case.labels > 0])
        assert ids.tolist() == list(range(1, len(case.anatomy.positives()) + 1))
        centroids = [tuple(np.argwhere(case.labels == k).mean(axis=0)) for k in ids]
        assert centroids == sorted(centroids)
        union = np.zeros_like(case.labels, dtype=bool)
        for _, mask in each_node(case.anatomy, "positive"):
            union |= mask
        assert np.array_equal(union, case.labels > 0)


def test_ctv_holds_the_nodes_and_little_else(cases):
    overhang, benign = [], []
    for case in cases:
        ctv = case.images[1] > 0
        assert set(np.unique(case.images[1])) == {0, 1}
        # measured anew, with the plain definition
        outside = distance_outside(ctv, case.geometry.spacing)
        overhang += [outside[mask].max() for _, mask in each_node(case.anatomy, "positive")]
        benign += [ctv[mask].mean() > 0.5 for _, mask in each_node(case.anatomy, "benign")]
        assert not any(ctv[mask].any() for _, mask in each_node(case.anatomy, "mimic"))
        forbidden = (Tissue.CORTEX, Tissue.MARROW, Tissue.BLADDER, Tissue.GAS, Tissue.AIR, Tissue.SKIN)
        assert not np.isin(case.anatomy.tissue[ctv & (case.labels == 0)], forbidden).any()
        arteries = case.anatomy.tissue == Tissue.ARTERY
        assert ctv[arteries].mean() > 0.5
        assert 0.005 < ctv.mean() < 0.05
    assert max(overhang) <= 6.0
    assert 0.0 < np.mean(np.array(overhang) > 0) < 0.35
    assert 0.5 < np.mean(benign) < 0.95


def test_positive_nodes_differ_from_benign_ones_but_overlap(cases):
    size, hu = {}, {}
    for kind in ("positive", "benign"):
        found = [(node, mask, case) for case in cases for node, mask in each_node(case.anatomy, kind)]
        size[kind] = np.array([node.short_axis_mm for node, _, _ in found])
        hu[kind] = np.array([np.median(case.images[0][mask]) for _, mask, case in found])
    for values in (size, hu):
        higher = np.mean(values["positive"][:, None] > values["benign"][None])  # area under the ROC curve
        assert 0.7 < higher < 0.97
    assert size["positive"].min() >= 3.0
    assert size["positive"].max() <= 16.5


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    spec = plan_case(3, "train", 5)
    first, again = draw_case(spec, SMALL), draw_case(spec, SMALL)
    other = draw_case(plan_case(4, "train", 5), SMALL)
    for a, b, c in zip(
        (*first.images, first.labels),
        (*again.images, again.labels),
        (*other.images, other.labels),
        strict=True,
    ):
        assert a.tobytes() == b.tobytes()
        assert a.tobytes() != c.tobytes()


@pytest.mark.parametrize("index", range(6))
def test_flip_leaves_the_patient_where_he_is(index):
    spec = plan_case(0, "train", index)
    plain = draw_case(spec, SMALL)
    flipped = draw_case(spec, dataclasses.replace(SMALL, flip=True))
    # the same HU at the same patient position: look every tenth voxel of the flipped volume up in the plain one
    indices = np.argwhere(np.ones(plain.labels.shape, bool))[::10]
    there = plain.geometry.to_voxels(flipped.geometry.to_patient(indices + 0.5)) - 0.5
    assert np.allclose(there, np.rint(there), atol=1e-6)
    there = np.rint(there).astype(int)
    assert np.array_equal(flipped.images[0][tuple(indices.T)], plain.images[0][tuple(there.T)])
    assert np.array_equal(flipped.labels[tuple(indices.T)] > 0, plain.labels[tuple(there.T)] > 0)


def test_flips_vary_and_are_not_always_the_same_for_x_and_z():
    options = dataclasses.replace(SMALL, flip=True)
    found = {_diagonal(draw_case(plan_case(0, "train", k), options).geometry.direction) for k in range(6)}
    assert len(found) >= 3
    assert any(x != z for x, _, z in found)


def _diagonal(direction):
    return direction[0], direction[4], direction[8]


def test_oblique_turns_the_header_about_the_middle_of_the_field():
    spec = plan_case(0, "train", 1)
    turned = draw_case(spec, dataclasses.replace(SMALL, oblique=10.0)).geometry
    direction = np.array(turned.direction).reshape(3, 3)
    angle = np.degrees(np.arccos((np.trace(direction) - 1) / 2))
    assert direction @ direction.T == pytest.approx(np.eye(3), abs=1e-12)
    assert 3.0 <= angle <= 10.0
    middle = np.array([turned.shape]) / 2
    assert turned.to_patient(middle) == pytest.approx(np.zeros((1, 3)), abs=1e-9)


def test_table_and_noise_are_options():
    spec = plan_case(0, "train", 1)
    bare = draw_case(spec, dataclasses.replace(SMALL, table=False, noise=0.0))
    with_table = draw_case(spec, SMALL)
    assert not (bare.anatomy.tissue == Tissue.TABLE).any()
    assert (with_table.anatomy.tissue == Tissue.TABLE).any()
    air = bare.anatomy.tissue == Tissue.AIR
    assert np.percentile(bare.images[0][air], 50) == -1000
    assert with_table.images[0][air].std() > bare.images[0][air].std()


def test_two_scans_of_a_patient_share_bones_but_not_bowel():
    pair = next(
        k for k in range(1, BLOCK) if plan_case(0, "train", k).patient == plan_case(0, "train", k - 1).patient
    )
    first, second = (draw_case(plan_case(0, "train", k), SMALL).anatomy.tissue for k in (pair - 1, pair))
    assert np.array_equal(first == Tissue.CORTEX, second == Tissue.CORTEX)
    assert not np.array_equal(first == Tissue.BOWEL_WALL, second == Tissue.BOWEL_WALL)


@given(seed=st.integers(0, 10_000), split=st.sampled_from(["train", "test"]), block=st.integers(0, 20))
def test_every_block_has_one_healthy_case_and_one_patient_scanned_twice(seed, split, block):
    specs = [plan_case(seed, split, block * BLOCK + k) for k in range(BLOCK)]
    assert sum(not spec.diseased for spec in specs) == 1
    patients = [spec.patient for spec in specs]
    assert len(set(patients)) == BLOCK - 1
    assert patients == sorted(patients)
    assert patients[0] == block * (BLOCK - 1)
    repeated = next(p for p in patients if patients.count(p) == 2)
    assert all(spec.diseased for spec in specs if spec.patient == repeated)


def test_patients_of_training_and_test_have_different_names():
    train = {plan_case(0, "train", k).patient_id for k in range(30)}
    test = {plan_case(0, "test", k).patient_id for k in range(30)}
    assert not train & test


def test_number_by_centroid_by_hand():
    # id 7 lies in slice 0, id 2 in slice 1: they become 1 and 2
    labels = np.array([[[0, 7, 7]], [[2, 0, 0]]], dtype=np.int16)
    assert number_by_centroid(labels).tolist() == [[[0, 1, 1]], [[2, 0, 0]]]
    assert number_by_centroid(np.zeros((2, 2, 2), np.int16)).max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (36, 100, 192)}, "does not cover a pelvis"),
        ({"size": (0, 144, 192)}, "must be positive"),
        ({"difficulty": "brutal"}, "unknown difficulty 'brutal'; expected one of easy, medium, hard"),
        ({"positives": 0.5}, "mean number of positive nodes"),
        ({"noise": -1.0}, "noise is negative"),
        ({"oblique": 90.0}, "0 to 45 degrees"),
    ],
)
def test_options_out_of_range(change, message):
    with pytest.raises(UserError, match=message):
        PhantomOptions(**change)
