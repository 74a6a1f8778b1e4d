"""Cases as nnDetection gets them: crop, mask, windows, neighbours, evidence, and the way back."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from artifact_samples import PLAN

from nndet_psma.core.errors import UserError

pytestmark = pytest.mark.usefixtures("nndetection")

SHAPE = (12, 30, 34)
CTV = (slice(4, 6), slice(10, 14), slice(12, 16))
LESION = (slice(4, 6), slice(11, 13), slice(15, 18))


def make(plan=PLAN, stage="both", spacing=(3.0, 1.0, 1.0)):
    from nndet_psma.hosts.nndetection.channels import Recipe
    from nndet_psma.hosts.nndetection.preprocessor import PSMAPreprocessor

    recipe = Recipe(plan, plan.stage(stage))
    generic = {
        "norm_scheme_per_modality": {},
        "use_mask_for_norm": {},
        "transpose_forward": [0, 1, 2],
        "intensity_properties": {},
    }
    return PSMAPreprocessor(recipe, **generic)


def raw_case(spacing=(3.0, 1.0, 1.0)):
    """HU = 10 z, PET = z; the file had a first slice and three first columns more, all zero."""
    z = np.broadcast_to(np.arange(SHAPE[0], dtype=np.float32)[:, None, None], SHAPE)
    data = np.stack([10 * z, z, np.zeros(SHAPE, dtype=np.float32)])
    data[2][CTV] = 1
    seg = np.zeros((1, *SHAPE), dtype=np.int32)
    seg[0][LESION] = 7
    properties = {
        "original_spacing": np.array(spacing),
        "crop_bbox": [(1, 13), (0, 30), (3, 37)],
        "size_after_cropping": SHAPE,
    }
    return data, seg, properties


def processed(spacing=(3.0, 1.0, 1.0), plan=PLAN, stage="both"):
    data, seg, properties = raw_case(spacing)
    return make(plan, stage).apply_process(data, plan.spacing, properties, seg)


def test_crop_is_the_grown_ctv_and_neighbouring_slices():
    """6.48 mm are 2 slices of 3 mm and 6 voxels of 1 mm: z 2..8, y 4..20, x 6..22; one slice more at both ends."""
    data, seg, properties = processed()
    assert data.shape == (9 + 2, 8, 16, 16)
    assert seg.shape == (1, 8, 16, 16)
    assert properties["crop_bbox"] == [
        (2, 10),
        (4, 20),
        (9, 25),
    ]  # shifted by nnDetection's own crop: 1, 0, 3
    assert properties["size_after_cropping"] == (8, 16, 16)
    assert properties["size_after_resampling"] == (8, 16, 16)


def test_channels_are_windows_and_modalities_times_neighbours():
    """In the CTV's slice 4 (4 - 1 in the crop): slices 3, 4, 5, so HU 30, 40, 50 and PET 3, 4, 5."""
    data, _, _ = processed()
    hu, pet = np.array([30.0, 40.0, 50.0]), np.array([3.0, 4.0, 5.0])
    expected = np.concatenate([(hu + 97) / 407, (hu + 125) / 350, pet / 20])
    np.testing.assert_allclose(data[:9, 3, 8, 8], expected, atol=1e-5)


def test_one_window_for_one_voter():
    data, _, _ = processed(stage="narrow")
    hu, pet = np.array([30.0, 40.0, 50.0]), np.array([3.0, 4.0, 5.0])
    np.testing.assert_allclose(data[:-2, 3, 8, 8], np.concatenate([(hu + 97) / 407, pet / 20]), atol=1e-5)


def test_outside_the_grown_ctv_nothing_is_shown():
    data, seg, _ = processed()
    assert not data[:9, 0].any()  # slice 1 of the file: kept as a neighbour only
    assert (seg[0, 0] == -1).all()
    assert data[:9, 3, 8, 8].all()
    corner = data[:9, 3, 0, 0]  # 6 mm away along y and x: 8.5 mm
    assert not corner.any()


def test_evidence_is_hu_as_it_is_and_the_distance():
    raw, seg, properties = raw_case()
    raw[0, 4, 12, 14] = 3000.0
    data, _, _ = make().apply_process(raw, PLAN.spacing, properties, seg)
    assert data[-2, 3, 8, 8] == 3000.0  # beyond every window
    assert data[-1, 3, 8, 8] == 0.0
    assert data[-1, 3, 4, 8] == pytest.approx(2.0)  # y 8, the CTV begins at y 10
    assert data[-1, 1, 6, 8] == pytest.approx(6.0)  # slice 2, the CTV begins at slice 4


def test_ids_are_kept_inside_the_region_only():
    """x 15..17 of the lesion lie within 6.48 mm of the CTV, which ends at 15; one at x 30 does not."""
    raw, seg, properties = raw_case()
    seg[0, 4, 12, 30] = 9
    _, kept, _ = make().apply_process(raw, PLAN.spacing, properties, seg)
    assert set(np.unique(kept)) == {-1, 0, 7}
    assert (kept == 7).sum() == 2 * 2 * 3


@pytest.mark.parametrize("spacing", [(3.0, 1.0, 1.0), (2.0, 0.83, 1.27), (5.0, 0.7, 0.7)])
def test_boxes_come_back_exactly(spacing):
    """A box of the file, put where the resampled voxels lie, is restored to itself by nnDetection."""
    from nndet.inference.restore import restore_detection

    _, _, properties = processed(spacing)
    box = np.array([[4.0, 10.0, 7.0, 14.0, 13.5, 17.25]])  # nnDetection's order, in voxels of the file
    lower = np.array([first for first, _ in properties["crop_bbox"]])
    scale = np.array(properties["size_after_resampling"]) / np.array(properties["size_after_cropping"])
    axes = [0, 1, 0, 1, 2, 2]
    moved = (box - lower[axes]) * scale[axes]
    back = restore_detection(moved, transpose_backward=[0, 1, 2], **restorable(properties))
    np.testing.assert_allclose(back, box, atol=1e-9)


def restorable(properties):
    return {name: properties[name] for name in ("original_spacing", "spacing_after_resampling", "crop_bbox")}


def test_test_cases_are_processed_as_training_cases():
    data, seg, properties = raw_case()
    trained, _, _ = make().apply_process(data.copy(), PLAN.spacing, dict(properties), seg)
    nothing = np.zeros_like(seg)  # what nnDetection gives in place of labels
    tested, _, _ = make().apply_process(data.copy(), PLAN.spacing, dict(properties), nothing)
    np.testing.assert_array_equal(trained, tested)


def test_without_ctv_the_body_is_cropped():
    """A body of y 20..60, x 15..65 in air: 5 mm are 5 voxels; all slices stay; nothing is masked."""
    stages = [replace(stage, windows=["soft"]) for stage in PLAN.stages]
    plan = replace(
        PLAN,
        modalities={"0": "CT"},
        ctv_modality=None,
        scalings=[],
        stages=stages,
        margin_mm=0.0,
        neighbours=0,
    )
    raw = np.full((1, 6, 80, 80), -1000.0, dtype=np.float32)
    raw[0, :, 20:60, 15:65] = 50
    properties = {
        "original_spacing": np.array([3.0, 1.0, 1.0]),
        "crop_bbox": [(0, 6), (0, 80), (0, 80)],
    }
    seg = np.zeros((1, *raw.shape[1:]), dtype=np.int32)
    data, seg, properties = make(plan).apply_process(raw, plan.spacing, properties, seg)
    assert properties["crop_bbox"] == [(0, 6), (15, 65), (10, 70)]
    assert data.shape == (3, 6, 50, 60)
    assert not data[-1].any()
    assert not seg.any()
    assert data[0, 0, 25, 25] == pytest.approx(175 / 350)


def test_zscores_are_those_of_the_body():
    """Without CT the first modality's own extent is the body: 1 and 3 there, mean 2 and deviation 1."""
    plan = replace(
        PLAN,
        modalities={"0": "MR"},
        ct_modality=None,
        ctv_modality=None,
        windows=[],
        scalings=[replace(PLAN.scalings[0], modality=0, name="MR", lower=-2.0, upper=2.0, zscore=True)],
        stages=[replace(PLAN.stages[1], windows=[], start_from=None)],
        postproc_grid={},
        neighbours=0,
    )
    raw = np.zeros((1, 4, 20, 20), dtype=np.float32)
    raw[0, :, 5:15, 5:10], raw[0, :, 5:15, 10:15] = 1, 3
    properties = {"original_spacing": np.array([3.0, 1.0, 1.0]), "crop_bbox": [(0, 4), (0, 20), (0, 20)]}
    seg = np.zeros((1, *raw.shape[1:]), dtype=np.int32)
    data, _, _ = make(plan, "narrow").apply_process(raw, plan.spacing, properties, seg)
    assert data[0, 1, 10, 6] == pytest.approx(0.25)  # -1 of -2..2
    assert data[0, 1, 10, 12] == pytest.approx(0.75)
    assert np.isnan(data[-2]).all()


def test_empty_ctv_is_refused():
    data, seg, properties = raw_case()
    data[2] = 0
    with pytest.raises(UserError, match="CTV of a case is empty"):
        make().apply_process(data, PLAN.spacing, properties, seg)


def test_can_be_sent_to_worker_processes():
    assert pickle.loads(pickle.dumps(make())).recipe.channels == 9
