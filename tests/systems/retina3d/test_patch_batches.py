"""Training patches: reproducible by number, planned share of lesions, boxes and masks that fit, nothing outside."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from patch_job import SMALL, STILL, patch_plan
from tiny_place import tiny_case
from torch.utils.data import DataLoader

import nndet_psma.systems.retina3d.batches as module
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.store import read_case, write_case
from nndet_psma.systems.retina3d.batches import PatchBatches, _anywhere
from nndet_psma.systems.retina3d.channels import patch_channels, region_box

WILD = replace(
    STILL, scale=(0.8, 1.3), rotation_degrees=90.0, flip_probability=0.5, blur_probability=0.5, brightness=0.2,
    noise_std=0.1,
)  # fmt: skip
CASES = ("case_0", "case_1", "case_5")


@pytest.fixture
def plan(tiny_task):
    return patch_plan(tiny_task)


def _batches(tiny_task, plan, cases=CASES, batch_size=4, seed=7, stage=0):
    return PatchBatches(tiny_task.store, plan, plan.stages[stage], list(cases), batch_size, seed)


def _equal(first, second):
    return (
        torch.equal(first["images"], second["images"])
        and first["slices"] == second["slices"]
        and all(
            torch.equal(a[key], b[key])
            for a, b in zip(first["targets"], second["targets"], strict=True)
            for key in a
        )
    )


def test_item_depends_on_its_number_alone(tiny_task, plan):
    plan = replace(plan, augmentation=WILD)
    forward, backward = _batches(tiny_task, plan), _batches(tiny_task, plan)
    drawn = [forward[i] for i in range(4)]
    np.random.seed(5)  # global random state of libraries must not matter
    torch.manual_seed(99)
    again = [backward[i] for i in (3, 2, 1, 0)][::-1]
    assert all(_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not _equal(drawn[0], drawn[1])


@pytest.mark.parametrize(("batch", "world"), [(4, 2), (5, 3), (3, 1), (4, 4)])
def test_parts_together_are_the_item(tiny_task, plan, batch, world):
    plan = replace(plan, augmentation=WILD)
    item = _batches(tiny_task, plan, batch_size=batch)[2]
    assert item["slots"] == list(range(batch))
    for rank in range(world):
        part = _batches(tiny_task, plan, batch_size=batch).part(2, rank, world)
        assert part["slots"] == list(range(rank, batch, world))
        whole = {
            "images": item["images"][rank::world],
            "slices": item["slices"][rank::world],
            "targets": item["targets"][rank::world],
        }
        assert _equal(part, whole)


def test_seed_stage_and_slot_change_the_draws(tiny_task, plan):
    first = _batches(tiny_task, plan)
    assert first[0]["slices"] != _batches(tiny_task, plan, seed=8)[0]["slices"]
    assert first[0]["slices"] != _batches(tiny_task, plan, stage=1)[0]["slices"]
    first.positive = first.positive[:1]
    images = first[0]["images"][:3]  # the same lesion three times
    assert all(not torch.equal(images[i], images[j]) for i in range(3) for j in range(i))


def test_workers_and_copies_give_the_same_batches(tiny_task, plan):
    batches = _batches(tiny_task, plan)
    loader = DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(_equal(batches[i], item) for i, item in enumerate(loader))
    content = pickle.dumps(batches)
    assert len(content) < 30_000 < sum(a.nbytes for case in batches.cases for a in case.arrays.values())
    again = pickle.loads(content)
    assert _equal(batches[1], again[1])
    assert isinstance(again.cases[0].arrays["CT"], np.memmap)


@pytest.mark.parametrize(
    ("batch", "share", "positive"), [(4, 0.5, 2), (4, 0.75, 3), (3, 0.1, 1), (1, 0.5, 1)]
)
def test_planned_share_shows_a_whole_lesion(tiny_task, plan, batch, share, positive):
    """round(4 * 0.75) = 3 and so on, never fewer than one; lesions are 3 x 5 x 5, patches 6 x 24 x 24."""
    batches = _batches(tiny_task, replace(plan, positive_fraction=share), batch_size=batch)
    for step in range(4):
        for target in batches[step]["targets"][:positive]:
            sides = target["boxes"][:, 3:] - target["boxes"][:, :3]
            assert (sides == torch.tensor([3.0, 5, 5])).all(dim=1).any()


@pytest.mark.parametrize("rotation", [30.0, 180.0])
def test_a_drawn_lesion_is_whole_however_it_turns(tiny_task, plan, rotation):
    turned = replace(WILD, rotation_degrees=rotation, blur_probability=0.0, noise_std=0.0)
    batches = _batches(tiny_task, replace(plan, augmentation=turned, positive_fraction=1.0), cases=["case_1"])
    wanted = int(tiny_case("case_1")[2].astype(bool).sum())
    for step in range(4):
        for target in batches[step]["targets"]:
            assert len(target["boxes"]) == 1
            # all voxels, but for the scale (0.8..1.3 on every axis) and the rounding of few voxels
            assert 0.3 * wanted < target["mask"].sum() < 2.8 * wanted


def test_places_of_a_lesion_reach_the_faces(tiny_task, plan):
    """It may lie anywhere in the patch: over many draws from one face to the other."""
    batches = _batches(tiny_task, replace(plan, positive_fraction=1.0), cases=["case_1"], batch_size=60)
    boxes = torch.cat([target["boxes"] for target in batches[0]["targets"]])
    assert boxes[:, 1].min() <= 2
    assert boxes[:, 4].max() >= 22
    assert (boxes[:, 0].min(), boxes[:, 3].max()) == (0, 6)
    assert (boxes >= 0).all()
    assert (boxes[:, 3:] <= torch.tensor([6, 24, 24])).all()


def _at(monkeypatch, point, place=(3.0, 12.0, 12.0)):
    """Every patch with a lesion shows ``point`` at ``place``."""
    monkeypatch.setattr(module, "_round_lesion", lambda *_: (point, place))


@pytest.mark.parametrize("region", ["search", "body"])
@pytest.mark.parametrize("begin", [(3, 8, 9), (-2, 0, 0), (7, 30, 33)])
def test_a_draw_that_changes_nothing_shows_the_store(tiny_task, monkeypatch, region, begin):
    """At whole voxels a patch is a crop of windowed, masked CT, zero beyond; its targets are those of the mask."""
    centre = (np.array(begin) + np.array([3, 12, 12])).tolist()
    _at(monkeypatch, tuple(float(v) for v in centre))
    plan = replace(patch_plan(tiny_task, region=region), positive_fraction=1.0)
    batches = _batches(tiny_task, plan, cases=["case_0"], batch_size=1)
    item, case, seen = batches[0], batches.cases[0], batches.regions[0]
    sides = (6, 24, 24)
    wanted = patch_channels(case.arrays, batches.sources, (*begin, *(np.array(begin) + sides)), seen)
    np.testing.assert_allclose(item["images"][0], wanted, atol=2e-5)
    instances = np.array(case.instances) * (1 if seen.mask is None else seen.mask[:])
    padded = np.pad(instances, 40)
    crop = padded[tuple(slice(b + 40, b + 40 + n) for b, n in zip(begin, sides, strict=True))]
    assert np.array_equal(item["targets"][0]["mask"], crop > 0)
    ids, boxes = boxes_from_instances(crop)
    whole = [
        (crop == i).sum() >= 0.5 * (instances == i).sum() for i in ids
    ]  # none is cut to between a quarter and half
    assert item["targets"][0]["boxes"].tolist() == boxes[whole].tolist()
    assert item["slices"] == [f"case_0:{','.join(str(v) for v in centre)}"]


def test_mirror_by_hand(tiny_task, plan, monkeypatch):
    """Shown in the middle of the patch, a mirrored lesion is the patch turned round, with its boxes."""
    _at(monkeypatch, (5.0, 20.0, 24.0))
    still = replace(plan, positive_fraction=1.0)
    turned = replace(still, augmentation=replace(STILL, flip_probability=1.0))
    first, second = (_batches(tiny_task, p, cases=["case_1"], batch_size=1)[0] for p in (still, turned))
    torch.testing.assert_close(second["images"], first["images"].flip(-1), atol=2e-5, rtol=0)
    (box,), (mirrored,) = first["targets"][0]["boxes"].tolist(), second["targets"][0]["boxes"].tolist()
    assert mirrored == [*box[:2], 24 - box[5], *box[3:5], 24 - box[2]]


def test_boxes_fit_masks_and_lesions_shine(tiny_task, plan):
    turned = replace(STILL, rotation_degrees=60.0, flip_probability=0.5, scale=(0.9, 1.3))
    batches = _batches(tiny_task, replace(plan, augmentation=turned))
    seen = 0
    for step in range(4):
        item = batches[step]
        for image, target in zip(item["images"], item["targets"], strict=True):
            mask = target["mask"].bool()
            for box in target["boxes"].int().tolist():
                inside = mask[box[0] : box[3], box[1] : box[4], box[2] : box[5]]
                assert inside.any(dim=(1, 2)).all()  # tight along every axis
                assert inside.any(dim=(0, 2)).all()
                assert inside.any(dim=(0, 1)).all()
                seen += 1
            if mask.any():  # lesions are 120 HU brighter than what surrounds them
                assert image[1][mask].mean() > image[1][~mask & (image[1] > 0)].mean() + 0.1
    assert seen > 8


def test_patches_without_lesion_lie_in_the_region(tiny_task, plan):
    batches = _batches(tiny_task, plan, cases=["case_5", "case_1"], batch_size=8)
    for region in batches.regions:
        z0, y0, x0, z1, y1, x1 = region_box(region)
        for seed in range(50):
            point, place = _anywhere(region, SMALL.patch_size, np.random.default_rng(seed))
            start = np.array(point) - np.array(place)
            assert place == (3.0, 12.0, 12.0)
            # within the region where it fits (y 24 of 18 + margin does not have to)
            for begin, lower, upper, side in zip(
                start, (z0, y0, x0), (z1, y1, x1), SMALL.patch_size, strict=True
            ):
                low, high = sorted((lower, upper - side))
                assert low <= begin <= high
            part = region.mask[
                tuple(slice(max(0, int(s)), int(s) + n) for s, n in zip(start, SMALL.patch_size, strict=True))
            ]
            assert part.any()


def test_nothing_is_seen_outside_the_region(tiny_task, plan):
    """The grown CTV alone: what lies outside is exactly zero, under noise and smoothing, too."""
    narrow = replace(plan, margin_mm=0.0, augmentation=replace(WILD, rotation_degrees=0.0, scale=(1.0, 1.0)))
    batches = _batches(tiny_task, narrow, batch_size=6)
    for step in range(2):
        for image in batches[step]["images"]:
            assert (image == 0).float().mean() > 0.05  # CTV: 8 x 18 x 24, patches 6 x 24 x 24
            assert (image != 0).any()
    shifted = replace(narrow, detector3d=replace(SMALL, input_mean=0.5, input_std=0.25))
    image = _batches(tiny_task, shifted, batch_size=6)[0]["images"]
    assert (image == -2).float().mean() > 0.05  # (0 - 0.5) / 0.25
    assert image.max() <= 2


def _store_with(tiny_task, tmp_path, instances, classes):
    write_case(
        tmp_path, replace(read_case(tiny_task.store, "case_0"), instances=instances, classes=classes), "test"
    )
    return tmp_path


def test_lesions_outside_the_region_do_not_count(tiny_task, plan, tmp_path):
    instances = np.zeros(read_case(tiny_task.store, "case_0").geometry.shape, np.int16)
    instances[4, 1:4, 1:4] = 3  # a corner of the body crop, far from the CTV
    store = _store_with(tiny_task, tmp_path, instances, {3: 0})
    with pytest.raises(
        UserError, match="none of the 1 training cases has a lesion in the region of stage 'first'"
    ):
        PatchBatches(store, plan, plan.stages[0], ["case_0"], 4, 0)
    body = patch_plan(tiny_task, region="body")
    batches = PatchBatches(store, body, body.stages[0], ["case_0"], 4, 0)
    assert [ref.lesion for ref in batches.positive] == [0]
    assert len(batches[0]["targets"][0]["boxes"]) == 1


def test_no_mask_without_a_segmentation_head(tiny_task, plan):
    bare = replace(plan, detector3d=replace(SMALL, segmentation_head=False))
    assert set(_batches(tiny_task, bare)[0]["targets"][0]) == {"boxes", "labels"}


def test_cases_without_labels_or_store(tiny_task, plan, tmp_path):
    write_case(tmp_path, replace(read_case(tiny_task.store, "case_0"), instances=None), "test")
    with pytest.raises(UserError, match="was preprocessed without labels"):
        PatchBatches(tmp_path, plan, plan.stages[0], ["case_0"], 4, 0)
    with pytest.raises(UserError, match="case nobody is not preprocessed"):
        _batches(tiny_task, plan, cases=["nobody"])
