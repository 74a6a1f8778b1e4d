"""Training batches: reproducible by number, planned share of lesions, boxes that fit, nothing outside the region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_place import tiny_case
from torch.utils.data import DataLoader

from nndet_psma.artifacts.plan import Augmentation
from nndet_psma.core.boxes import boxes_from_instances
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.store import inputs_hash, read_case, write_case
from nndet_psma.trainers.batches import SliceBatches

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

    return plane_map(batches.regions[0].centre, batches._scale, batches._size)


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
