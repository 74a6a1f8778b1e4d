"""Patches cover the region, and what stands in them comes back to its place on the store grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_detector3d import SMALL, on_patches

from nndet_psma.artifacts.detector_plan import Stage
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.postproc.steps.hu_filter import QUANTILES
from nndet_psma.preprocess.region import Region, stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.preprocess.windows import ChannelSource
from nndet_psma.systems.retina3d.channels import patch_channels, region_box
from nndet_psma.systems.retina3d.predict import patch_places, patch_starts, predict_patches, unmirror
from nndet_psma.trainers.networks.box_evidence import volume_quantiles

CPU = torch.device("cpu")


def test_starts_by_hand():
    """100 voxels, patches of 40, half overlapping: room 60 in 3 steps of 20; 101 voxels need 4 of 15.25."""
    assert patch_starts(0, 100, 40, 0.5) == [0, 20, 40, 60]
    assert patch_starts(5, 106, 40, 0.5) == [5, 20, 35, 51, 66]
    assert patch_starts(7, 47, 40, 0.5) == [7]
    assert patch_starts(10, 20, 40, 0.5) == [-5]  # centred on 10..20: from -5 to 35
    assert patch_starts(0, 80, 40, 0.0) == [0, 40]


@given(st.integers(-5, 5), st.integers(1, 90), st.integers(1, 40), st.floats(0, 0.9))
def test_starts_cover_and_overlap(lower, extent, size, overlap):
    starts = patch_starts(lower, lower + extent, size, overlap)
    if extent <= size:
        assert len(starts) == 1
        assert starts[0] <= lower
        assert starts[0] + size >= lower + extent
        return
    assert (starts[0], starts[-1] + size) == (lower, lower + extent)
    steps = np.diff(starts)
    assert (steps > 0).all()
    assert (steps <= max(1, np.ceil(size * (1 - overlap)))).all()


def test_places_are_whole_patches():
    places = patch_places((0, 0, 0, 8, 40, 32), SMALL)
    assert places == [(0, 0, 0, 8, 32, 32), (0, 8, 0, 8, 40, 32)]


def test_mirror_images_by_hand():
    box = np.array([[1.0, 2, 3, 4, 5, 6]])
    assert unmirror(box, 10).tolist() == [[1, 2, 4, 4, 5, 7]]
    assert np.array_equal(unmirror(unmirror(box, 10), 10), box)


def test_channels_by_hand():
    """Windows 0..10 and 5..10 of the values 0..23; the patch begins a slice and a column before the region."""
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    region = Region(np.array([0, 1]), (0.0, 0.0, 3.0, 4.0), None)
    sources = [ChannelSource("CT", 0, 10), ChannelSource("CT", 5, 10)]
    channels = patch_channels({"CT": volume}, sources, (-1, 1, -1, 2, 3, 2), region)
    assert channels.shape == (2, 3, 2, 3)
    assert not channels[:, 0].any()
    assert not channels[:, :, :, 0].any()
    np.testing.assert_allclose(channels[0, 1, 0, 1:], [0.4, 0.5])  # values 4 and 5
    np.testing.assert_allclose(channels[1, 1, 1, 1:], [0.6, 0.8])  # values 8 and 9
    assert (channels[:, 2, :, 1:] == 1).all()
    assert patch_channels({"CT": volume}, sources, (0, 5, 0, 2, 7, 2), region) is None


class Bright(torch.nn.Module):
    """Finds the box of what is brighter than nine tenths, exactly; its score is the share of the patch it is in."""

    def __init__(self, score=0.9):
        super().__init__()
        self.score = score
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        outputs = []
        for image in images:
            _, boxes = boxes_from_instances((image[0] > 0.9).numpy().astype(int))
            outputs.append({
                "boxes": torch.from_numpy(boxes).float(),
                "scores": torch.full((len(boxes),), self.score),
                "labels": torch.zeros(len(boxes), dtype=torch.int64),
            })  # fmt: skip
        return outputs


@pytest.fixture
def place(tiny_task):
    """A case with one bright box, the plan of patches of 6 x 16 x 16 with one window, and its stage."""
    plan = tiny_task.plan
    detector = replace(SMALL, patch_size=(6, 16, 16))
    stage = Stage("only", "search", ["hu_110_190"], None, True, 1, 0.1, [], 0)
    plan = on_patches(
        plan,
        detector,
        neighbours=0,
        stages=[stage],
        postproc_grid={},
        postproc_defaults={},
    )
    case = read_case(tiny_task.store, "case_0")

    def with_box(box, margin_mm=plan.margin_mm, region="search"):
        volume = np.zeros_like(case.arrays["CT"])
        volume[tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))] = 300
        chosen = replace(stage, region=region)
        return (
            replace(case, arrays={"CT": volume}),
            replace(plan, margin_mm=margin_mm, stages=[chosen]),
            chosen,
        )

    return with_box


def _predict(case, plan, stage, models=None, **kwargs):
    arguments = {"device": CPU, "batch_size": 3, **kwargs}
    return predict_patches(models or [Bright()], case, plan, stage, **arguments)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("box", [(3, 14, 18, 6, 19, 23), (2, 20, 12, 5, 29, 25), (4, 12, 27, 6, 15, 31)])
def test_a_lesion_on_the_borders_of_patches_is_one_box(place, box, mirrored):
    """Patches of 16 x 16 pixels half overlap, so all but the smallest box is cut by several."""
    case, plan, stage = place(box)
    (found,) = _predict(case, plan, stage, mirrored=mirrored)
    assert found.boxes.tolist() == [list(box)]
    assert set(found.columns) == {"zone_mm", "hu_quantiles"}
    assert found.columns["hu_quantiles"].tolist() == [[300.0] * len(QUANTILES)]
    assert found.columns["zone_mm"].tolist() == [0.0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_every_place_of_a_body(place, mirrored):
    """Corners of the case, too, where patches begin and end."""
    depth, height, width = read_shape(place)
    for box in (
        (0, 0, 0, 2, 3, 3),
        (depth - 2, height - 3, width - 3, depth, height, width),
        (5, 17, 0, 7, 21, 2),
    ):
        case, plan, stage = place(box, region="body")
        (found,) = _predict(case, plan, stage, mirrored=mirrored)
        assert found.boxes.tolist() == [list(box)]


def read_shape(place):
    return place((0, 0, 0, 1, 1, 1))[0].geometry.shape


def test_what_is_masked_is_not_seen(place):
    """A bar along x through the whole case is found as far as the grown CTV goes."""
    depth, _, width = read_shape(place)
    case, plan, stage = place((4, 20, 0, 5, 21, width))
    z0, _, x0, z1, _, x1 = region_box(stage_region(case, plan, stage))
    (found,) = _predict(
        case, replace(plan, detector3d=replace(plan.detector3d, patch_size=(6, 16, 48))), stage
    )
    assert found.boxes.tolist() == [[4, 20, x0, 5, 21, x1]]
    assert 0 < x0 < x1 < width
    assert 0 <= z0 < z1 <= depth


def test_zone_of_a_box_outside_the_ctv(place):
    """The CTV ends at pixel 36 along x; boxes are 2 mm pixels, so a centre at 37.5 lies in the second pixel beyond."""
    case, plan, stage = place((4, 20, 35, 6, 22, 37))
    (found,) = _predict(case, plan, stage)
    inside = case.zone_mm((found.boxes[:, :3] + found.boxes[:, 3:]) / 2)
    assert found.columns["zone_mm"].tolist() == inside.tolist()


def test_patches_are_read_once_for_all_models(place, monkeypatch):
    import nndet_psma.systems.retina3d.predict as module

    case, plan, stage = place((3, 14, 18, 6, 19, 23))
    reads = []
    real = module.patch_channels
    monkeypatch.setattr(module, "patch_channels", lambda *of: reads.append(1) or real(*of))
    models = [Bright(0.9), Bright(0.5), Bright(0.7)]
    found = _predict(case, plan, stage, models, batch_size=2)
    assert [part.scores.round(3).tolist() for part in found] == [[0.9], [0.5], [0.7]]
    assert len(reads) == len(patch_places(region_box(stage_region(case, plan, stage)), plan.detector3d))
    assert {model.seen for model in models} == {len(reads)}


def test_patches_without_anything_to_see_are_left_out(place):
    case, plan, stage = place((3, 14, 18, 6, 19, 23))
    narrow = replace(plan, detector3d=replace(plan.detector3d, patch_size=(2, 4, 4)), margin_mm=0.0)
    region = stage_region(case, narrow, stage)
    places = patch_places(region_box(region), narrow.detector3d)
    corner = region.mask.distance.copy()
    corner[:, :, 24:] = 30_000  # half of the CTV is gone, but the box of the region is that of before
    half = replace(region, mask=replace(region.mask, distance=corner))
    seen = [
        p for p in places if patch_channels(case.arrays, [ChannelSource("CT", 0, 1)], p, half) is not None
    ]
    assert 0 < len(seen) < len(places)
    assert max(p[2] for p in seen) < 24


def test_batch_size_does_not_matter(place):
    case, plan, stage = place((2, 20, 12, 5, 29, 25))
    first, second = (_predict(case, plan, stage, batch_size=n)[0] for n in (1, 7))
    assert np.array_equal(first.boxes, second.boxes)


def test_a_failing_model_ends_the_prediction(place):
    case, plan, stage = place((3, 14, 18, 6, 19, 23))

    def broken(_):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        _predict(case, plan, stage, [broken])


def test_quantiles_of_volumes_are_numpys():
    rng = np.random.default_rng(2)
    volume = rng.integers(-1000, 3000, (6, 9, 11)).astype(np.int16)
    boxes = np.array([[0.2, 1.0, 2.5, 3.0, 4.4, 5.0], [5, 8, 10, 6, 9, 11], [0, 0, 0, 6, 9, 11]])
    found = volume_quantiles(volume, boxes)
    # centres 0.5 to 2.5, 1.5 to 3.5 and 2.5 to 4.5 lie in the first
    parts = volume[0:3, 1:4, 2:5], volume[5:6, 8:9, 10:11], volume
    for row, part in zip(found, parts, strict=True):
        wanted = np.quantile(part.astype(np.float64), QUANTILES).astype(np.float32)
        assert np.array_equal(row, wanted)
