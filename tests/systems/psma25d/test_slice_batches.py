"""Training batches: reproducible by number, planned share of lesions, boxes that fit, nothing outside the region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny_place import tiny_case
from torch.utils.data import DataLoader, Dataset

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.store import inputs_hash, read_case, write_case
from nndet_psma.preprocess.warp import warp
from nndet_psma.preprocess.windows import slice_channels
from nndet_psma.systems.psma25d.batches import SliceBatches
from nndet_psma.trainers.augmentation.draw import augmented_map, draw_augmentation

NO_ZONES = {"postproc_defaults": {}, "postproc_grid": {}}
STILL = Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@pytest.fixture
def plan(tiny_task):
    return replace(tiny_task.plan, augmentation=STILL, batch_size=4)


def _batches(tiny_task, plan, stage=-1, cases=("case_0", "case_1", "case_5"), batch_size=4, seed=7):
    return SliceBatches(tiny_task.store, plan, plan.stages[stage], list(cases), batch_size, seed)


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


def test_item_depends_on_its_number_alone(tiny_task):
    plan = replace(tiny_task.plan, augmentation=replace(tiny_task.plan.augmentation, blur_probability=0.5))
    forward, backward = _batches(tiny_task, plan), _batches(tiny_task, plan)
    drawn = [forward[i] for i in range(4)]
    np.random.seed(5)  # global random state of libraries must not matter
    torch.manual_seed(99)
    again = [backward[i] for i in (3, 2, 1, 0)][::-1]
    assert all(_equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not _equal(drawn[0], drawn[1])


@pytest.mark.parametrize(("batch", "world"), [(4, 2), (5, 3), (3, 1), (4, 4)])
def test_parts_together_are_the_item(tiny_task, batch, world):
    batches = _batches(tiny_task, tiny_task.plan, batch_size=batch)
    for step in (0, 3):
        item = batches[step]
        assert item["slots"] == list(range(batch))
        parts = [
            _batches(tiny_task, tiny_task.plan, batch_size=batch).part(step, r, world) for r in range(world)
        ]
        assert [part["slots"] for part in parts] == [list(range(r, batch, world)) for r in range(world)]
        order = np.argsort([slot for part in parts for slot in part["slots"]])
        joined = {
            "images": torch.cat([part["images"] for part in parts])[torch.from_numpy(order)],
            **{key: [v for part in parts for v in part[key]] for key in ("targets", "slices")},
        }
        joined |= {key: [joined[key][i] for i in order] for key in ("targets", "slices")}
        assert _equal(item, joined)


def test_every_slot_draws_for_itself(tiny_task):
    batches = _batches(tiny_task, tiny_task.plan, cases=("case_1",))
    batches.positive, batches.negative = batches.positive[:1], []
    images = batches[0]["images"]  # the same slice four times
    assert all(not torch.equal(images[i], images[j]) for i in range(4) for j in range(i))


def test_seed_and_stage_change_the_draws(tiny_task):
    plan = tiny_task.plan
    first = _batches(tiny_task, plan)
    assert first[0]["slices"] != _batches(tiny_task, plan, seed=8)[0]["slices"]
    other = _batches(tiny_task, plan, stage=1)
    assert first.stage.region == other.stage.region == "search"
    assert first[0]["slices"] != other[0]["slices"]


def test_workers_give_the_same_batches(tiny_task):
    batches = _batches(tiny_task, tiny_task.plan)
    plain = [batches[i] for i in range(len(batches))]
    loader = DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(_equal(a, b) for a, b in zip(plain, loader, strict=True))


@pytest.mark.parametrize(
    ("batch", "share", "positive"), [(4, 0.5, 2), (4, 0.75, 3), (3, 0.1, 1), (1, 0.5, 1)]
)
def test_share_of_slices_with_lesions(tiny_task, plan, batch, share, positive):
    # round(4 * 0.75) = 3 and so on; never fewer than one
    batches = _batches(tiny_task, replace(plan, positive_fraction=share), batch_size=batch)
    for step in range(4):
        counts = [len(target["boxes"]) > 0 for target in batches[step]["targets"]]
        assert counts == [True] * positive + [False] * (batch - positive)


def test_slices_with_lesions_are_those_of_the_mask(tiny_task, plan):
    batches = _batches(tiny_task, plan)
    found = {(batches.cases[ref.case].case_id, ref.z) for ref in batches.positive}
    expected = {
        (case, int(z))
        for case in ("case_0", "case_1")
        for z in np.flatnonzero(tiny_case(case)[2].any((1, 2)))
    }
    assert found == expected  # the store keeps all slices, so their numbers are those of the file
    assert all(batches.cases[ref.case].case_id != "case_5" for ref in batches.positive)


@pytest.mark.parametrize("draw", ["lesions", "cases"])
def test_lesions_and_cases_may_be_drawn_alike(tiny_task, plan, draw):
    """case_0 has two lesions, case_1 one: a share of 1/3 each, or of 1/4, 1/4, 1/2, evenly over its slices."""
    balanced = replace(plan, detector=replace(plan.detector, positive_draw=draw), positive_fraction=1.0)
    batches = _batches(tiny_task, balanced, batch_size=2)
    wanted = np.zeros(len(batches.positive))
    share = {"lesions": {0: 1 / 3, 1: 1 / 3}, "cases": {0: 1 / 4, 1: 1 / 2}}[draw]
    for number, ref in enumerate(batches.positive):
        mask = np.asarray(batches.cases[ref.case].instances)
        for instance in np.unique(mask[ref.z])[1:]:
            wanted[number] += share[ref.case] / (mask == instance).any((1, 2)).sum()
    np.testing.assert_allclose(batches.shares, wanted)
    again = _batches(tiny_task, balanced, batch_size=2)
    assert [batches[i]["slices"] for i in range(3)] == [again[i]["slices"] for i in (0, 1, 2)]
    drawn = [ref.case for step in range(400) for ref in batches._draw(np.random.default_rng((1, step)))]
    assert np.mean(np.array(drawn) == 1) == pytest.approx(
        share[1], abs=0.07
    )  # 4 standard deviations of 800 draws


def test_whole_slices_only_positive_when_there_is_no_other(tiny_task, plan):
    batches = _batches(tiny_task, plan)
    batches.negative.clear()
    assert all(len(target["boxes"]) for target in batches[0]["targets"])


def test_boxes_fit_the_mask_by_hand(tiny_task, plan):
    """Without augmentation a detector pixel (r, c) shows store voxel centre + (pixel - middle) / scale."""
    batches = _batches(tiny_task, plan, cases=("case_1",))
    item = batches[0]
    case, region = batches.cases[0], batches.regions[0]
    z = int(item["slices"][0].split(":")[1])
    _, (box,) = boxes_from_instances(np.asarray(case.instances[z]))
    height, width = plan.detector.input_size
    scale = plan.detector.scale
    wanted = [
        (box[1] - region.centre[1]) * scale + width / 2,
        (box[0] - region.centre[0]) * scale + height / 2,
        (box[3] - region.centre[1]) * scale + width / 2,
        (box[2] - region.centre[0]) * scale + height / 2,
    ]
    found = item["targets"][0]["boxes"][0].numpy()
    assert np.abs(found - wanted).max() <= 1  # pixels are whole, voxels are 1.5 pixels wide


def test_boxes_and_masks_fit_after_rotation(tiny_task, plan):
    turned = replace(STILL, rotation_degrees=45.0, flip_probability=0.5, scale=(0.9, 1.2), shift_pixels=5.0)
    detector = replace(plan.detector, mask_branch=True)
    batches = _batches(tiny_task, replace(plan, augmentation=turned, detector=detector))
    seen = 0
    for step in range(4):
        item = batches[step]
        for image, target in zip(item["images"], item["targets"], strict=True):
            for box, mask in zip(target["boxes"], target["masks"], strict=True):
                rows, columns = torch.nonzero(mask, as_tuple=True)
                tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box.tolist() == [float(v) for v in tight]
                # the lesion is 120 HU brighter than what surrounds it, so it must shine through its own mask
                assert image[1][mask.bool()].mean() > image[1][~mask.bool()].mean()
                seen += 1
    assert seen >= 8


def test_labels_count_from_one(tiny_task, plan):
    assert {int(v) for t in _batches(tiny_task, plan)[0]["targets"] for v in t["labels"]} == {1}


def test_nothing_is_seen_outside_the_region(tiny_task):
    """Also after smoothing and noise: a prediction has exact zeros there.

    18 x 24 voxels of CTV grown by one (2 mm) are 20 x 26, 30 x 39 pixels in the middle of 48 x 64: rows 9 to 39,
    columns 12.5 to 51.5. Interpolation reaches half a voxel (0.75 pixels) farther.
    """
    rough = replace(STILL, blur_probability=1.0, blur_sigma=2.0, noise_std=0.2)
    batches = _batches(tiny_task, replace(tiny_task.plan, augmentation=rough, margin_mm=2.0, **NO_ZONES))
    for step in range(3):
        for image in batches[step]["images"]:
            assert image[:, 10:38, 14:50].any(dim=0).float().mean() > 0.95
            outside = image.clone()
            outside[:, 8:40, 11:53] = 0
            assert not outside.any()


def test_mean_and_deviation_are_applied_last(tiny_task, plan):
    shifted = replace(plan, detector=replace(plan.detector, input_mean=0.5, input_std=0.25))
    plain, normal = _batches(tiny_task, plan)[0]["images"], _batches(tiny_task, shifted)[0]["images"]
    torch.testing.assert_close(normal, (plain - 0.5) / 0.25)


def test_windows_are_applied_when_a_batch_is_made(tiny_task, plan):
    """Two windows as channels: the second of -125..225 HU turns 30 HU of background into 155 / 350."""
    stage = replace(plan.stages[-1], windows=[w.name for w in plan.windows])
    batches = SliceBatches(tiny_task.store, plan, stage, ["case_0"], 1, 0)
    images = batches[0]["images"]
    assert images.shape[1] == 2 * (2 * plan.neighbours + 1)
    assert plan.windows[1].name == "hu_m125_225"
    soft_tissue = images[0, images.shape[1] // 2 :]
    assert float(soft_tissue[soft_tissue > 0].median()) == pytest.approx(155 / 350, abs=0.05)


def _with_instances(tiny_task, tmp_path, instances, classes):
    case = read_case(tiny_task.store, "case_0")
    changed = replace(case, instances=instances, classes=classes)
    write_case(tmp_path / "store", changed, "test")
    return tmp_path / "store"


def test_lesion_outside_the_region_is_no_target(tiny_task, plan, tmp_path):
    case = read_case(tiny_task.store, "case_0")
    instances = np.array(case.instances)
    instances[4, 1:4, 1:4] = 3  # a corner of the body crop, far from the CTV
    store = _with_instances(tiny_task, tmp_path, instances, {1: 0, 2: 0, 3: 0})
    search = SliceBatches(store, plan, plan.stages[-1], ["case_0"], 4, 0)
    body = SliceBatches(store, plan, plan.stages[0], ["case_0"], 4, 0)
    target = search._target(search.cases[0], search.regions[0], 4, _identity_map(search))
    assert len(target["boxes"]) == 1  # lesion 1; lesion 2 begins on slice 5
    whole = body._target(body.cases[0], body.regions[0], 4, _identity_map(body))
    assert len(whole["boxes"]) == 2


def _identity_map(batches):
    from nndet_psma.preprocess.warp import plane_map

    return plane_map(batches.regions[0].centre, batches.scale, batches.plane)


def test_no_lesion_at_all(tiny_task, plan, tmp_path):
    empty = np.zeros(read_case(tiny_task.store, "case_0").geometry.shape, np.int16)
    store = _with_instances(tiny_task, tmp_path, empty, {})
    with pytest.raises(
        UserError, match=r"none of the 1 training cases has a lesion in the region of stage 'hu_"
    ):
        SliceBatches(store, plan, plan.stages[-1], ["case_0"], 4, 0)


def test_case_that_is_not_preprocessed(tiny_task, plan):
    with pytest.raises(UserError, match=r"case nobody is not preprocessed.*Run nndet_prep"):
        _batches(tiny_task, plan, cases=("nobody",))
    with pytest.raises(UserError, match="case nobody is not preprocessed"):
        inputs_hash(tiny_task.store, "nobody")


def test_case_without_labels(tiny_task, plan, tmp_path):
    write_case(tmp_path, replace(read_case(tiny_task.store, "case_0"), instances=None), "test")
    with pytest.raises(UserError, match="was preprocessed without labels"):
        SliceBatches(tmp_path, plan, plan.stages[-1], ["case_0"], 4, 0)


def _slow_image(batches, step, slot, name):
    """The same slice, everything at full size: all pixels windowed, masked, resampled, smoothed by scipy."""
    case_id, z = name.split(":")
    number = [case.case_id for case in batches.cases].index(case_id)
    case, region, plan = batches.cases[number], batches.regions[number], batches.plan
    seed = np.random.SeedSequence((*batches.seed, step), spawn_key=(slot,))
    draw = draw_augmentation(plan.augmentation, np.random.default_rng(seed))
    mapping = augmented_map(draw, region.centre, batches.scale, batches.plane)
    height, width = mapping.size
    wide = mapping.part((-2, -2, height + 2, width + 2))
    kept = np.ones(case.geometry.shape[1:], bool)
    if batches.stage.region == "search":
        kept = case.search_mask(plan.margin_mm)[int(z)]
    channels = slice_channels(case.arrays, batches.sources, int(z), plan.neighbours) * kept
    image = warp(channels.astype(np.float32), wide).numpy()
    if draw.blur:
        image = np.stack([gaussian_filter(c, plan.augmentation.blur_sigma, radius=2) for c in image])
    image = np.clip(image[:, 2:-2, 2:-2] * draw.brightness, 0, 1)
    return image * (warp(kept[None].astype(np.float32), mapping).numpy() > 0)


@pytest.mark.parametrize("stage", [0, -1])
@pytest.mark.parametrize("zoom", [0.8, 2.5])
def test_images_equal_the_slow_way(tiny_task, stage, zoom):
    """At 2.5 the region reaches beyond the picture: only what is needed is read."""
    rough = Augmentation((0.8, 1.25), 180.0, 0.5, 0.5, 1.0, 0.2, 0.0, 6.0)
    detector = replace(tiny_task.plan.detector, scale=zoom, body_scale=zoom)
    batches = _batches(tiny_task, replace(tiny_task.plan, augmentation=rough, detector=detector), stage)
    for step in range(3):
        item = batches[step]
        for slot, (image, name) in enumerate(zip(item["images"], item["slices"], strict=True)):
            difference = np.abs(image.numpy() - _slow_image(batches, step, slot, name))
            # coordinates are rounded to 1e-5 pixels, so a pixel on the very edge of the region may appear or not
            assert (difference > 1e-4).mean() < 2e-3
            assert np.sort(difference.ravel())[: -image.numel() // 500].max() < 1e-4


def test_a_draw_that_changes_nothing_shows_the_stored_slices(tiny_task, plan):
    plan = replace(plan, detector=replace(plan.detector, body_scale=1.0))
    batches = _batches(tiny_task, plan, stage=0, cases=("case_1",))
    case = batches.cases[0]
    _, height, width = case.geometry.shape
    rows, columns = batches.plane
    assert (rows - height) % 2 == (columns - width) % 2 == 0  # so that pixels are voxels
    item = batches[0]
    for image, name in zip(item["images"], item["slices"], strict=True):
        channels = slice_channels(case.arrays, batches.sources, int(name.split(":")[1]), plan.neighbours)
        padded = np.zeros((channels.shape[0], rows, columns), np.float32)
        y, x = (rows - height) // 2, (columns - width) // 2
        padded[:, max(y, 0) : y + height, max(x, 0) : x + width] = channels[:, max(-y, 0) :, max(-x, 0) :]
        np.testing.assert_allclose(image.numpy(), padded, atol=1e-5)


def test_slices_without_lesion_train_the_background(tiny_task, plan):
    detector = replace(plan.detector, mask_branch=True)
    item = _batches(tiny_task, replace(plan, detector=detector, positive_fraction=0.5))[0]
    for target in item["targets"][2:]:
        assert (target["boxes"].shape, target["boxes"].dtype) == ((0, 4), torch.float32)
        assert (target["labels"].shape, target["labels"].dtype) == ((0,), torch.int64)
        assert (target["masks"].shape, target["masks"].dtype) == ((0, 48, 64), torch.uint8)


def test_a_copy_for_another_process_carries_no_arrays(tiny_task, plan):
    import pickle

    for stage in (0, -1):
        batches = _batches(tiny_task, plan, stage=stage)
        content = pickle.dumps(batches)
        assert len(content) < 20_000 < sum(a.nbytes for case in batches.cases for a in case.arrays.values())
        again = pickle.loads(content)
        assert _equal(batches[1], again[1])
        assert again.cases[0].case_id == batches.cases[0].case_id
        assert isinstance(again.cases[0].arrays["CT"], np.memmap)


class _Told(Dataset):
    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return 2

    def __getitem__(self, step):
        item = self.batches[step]
        return {**item, "threads": torch.get_num_threads(), "shared": item["images"].is_shared()}


def test_workers_use_one_thread_and_hand_images_over_without_a_copy(tiny_task, plan):
    batches = _batches(tiny_task, plan)
    loader = DataLoader(_Told(batches), batch_size=None, num_workers=1, multiprocessing_context="fork")
    items = list(loader)
    assert [(item["threads"], item["shared"]) for item in items] == [(1, True)] * 2
    assert all(_equal(item, batches[step]) for step, item in enumerate(items))
    shifted = replace(plan, detector=replace(plan.detector, input_mean=0.5, input_std=0.25))
    loader = DataLoader(_batches(tiny_task, shifted), batch_size=None, num_workers=1)
    assert torch.equal(next(iter(loader))["images"], _batches(tiny_task, shifted)[0]["images"])


def test_the_region_keeps_no_volume(tiny_task, plan):
    batches = _batches(tiny_task, plan)
    for case, region in zip(batches.cases, batches.regions, strict=True):
        mask = case.search_mask(plan.margin_mm)
        assert np.array_equal(region.mask[:], mask)
        assert isinstance(region.mask.distance, np.memmap)
        assert region.slices.tolist() == np.flatnonzero(mask.any(axis=(1, 2))).tolist()
        for z in range(len(mask)):
            (y0, x0, y1, x1), kept = region.seen(z)
            rebuilt = np.zeros_like(mask[z])
            rebuilt[y0:y1, x0:x1] = kept
            assert np.array_equal(rebuilt, mask[z])
            assert kept.size == 0 or (kept[[0, -1]].any(axis=1).all() and kept[:, [0, -1]].any(axis=0).all())
