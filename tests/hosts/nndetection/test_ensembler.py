"""Boxes of tiles and models made into one prediction: offsets, linking, zone and HU filter, state files."""

import numpy as np
import pytest
import torch

from nndet_psma.boxes.detections import Detections

pytestmark = pytest.mark.usefixtures("nndetection")

SHAPE = (12, 40, 40)
GRID = {
    "transpose_backward": [0, 1, 2],
    "original_spacing": np.array([3.0, 1.0, 1.0]),
    "spacing_after_resampling": np.array([3.0, 2.0, 2.0]),
    "crop_bbox": [(5, 17), (10, 90), (20, 100)],
    "original_size_of_raw_data": np.array([30, 120, 120]),
    "itk_origin": (0.0, 0.0, 0.0),
    "itk_spacing": (1.0, 1.0, 3.0),
    "itk_direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
}


def case(hu=50.0):
    """One shown channel. HU 50, but 200 for x >= 30; the CTV ends at y 20 (1 mm of distance per voxel)."""
    data = np.zeros((3, *SHAPE), dtype=np.float32)
    data[1] = hu
    data[1, :, :, 30:] = 200.0
    data[2] = np.maximum(np.arange(SHAPE[1]) - 19, 0)[:, None]
    return {"data": data}


def make(dim, boxes=(), parameters=None, content=None, models=1):
    """An ensembler fed with one tile (2D: one per slice) at the origin. ``boxes``: (tile origin, box, score)."""
    from nndet_psma.hosts.nndetection.evidence import FilterLimits
    from nndet_psma.hosts.nndetection.module import PSMAModule

    cls = PSMAModule.get_ensembler_cls("boxes", dim)
    limits = FilterLimits(10.0, (100.0, 150.0))
    made = cls.from_case(content or case(), dict(GRID), parameters or {}, limits=limits)
    for number in range(models):
        made.add_model(f"model{number}_t0")
        for origin, box, score in boxes:
            result = {
                "pred_boxes": [torch.tensor([box], dtype=torch.float32)],
                "pred_scores": [torch.tensor([score])],
                "pred_labels": [torch.tensor([0.0])],
            }
            batch = {
                "tile_origin": [torch.tensor([o]) for o in origin],
                "data": torch.zeros(1, 1, *SHAPE[-dim:]),
            }
            made.process_batch(result, batch)
    return made


def predicted(made, **kwargs):
    result = made.get_case_result(**kwargs)
    return result["pred_boxes"].numpy(), result["pred_scores"].numpy()


# the middle of the CTV at y 10, x 12: nnDetection's box, so the object is y 9..14, x 11..15
SLICE_BOX = [8.0, 10.0, 14.0, 15.0]  # y0, x0, y1, x1
STACK = [((z, 0, 0), SLICE_BOX, score) for z, score in ((3, 0.6), (4, 0.9), (5, 0.7))]


class TestSlices:
    def test_boxes_of_a_tile_are_placed_in_their_slice(self):
        """Tile at slice 4, y 10, x 20: 2 + 10, 3 + 20, 6 + 10, 8 + 20, and z 4..5; no boxes stay none."""
        from nndet_psma.hosts.nndetection.ensembler import PSMAEnsembler25D

        boxes = [torch.tensor([[2.0, 3.0, 6.0, 8.0]]), torch.zeros(0, 4)]
        placed = PSMAEnsembler25D._apply_offsets_to_boxes(boxes, [[4, 10, 20], [5, 0, 0]])
        assert placed[0].tolist() == [[4, 12, 5, 16, 23, 28]]
        assert placed[1].shape == (0, 6)

    def test_neighbouring_slices_become_one_box(self):
        """Slices 3..5: the object's z is 3..6, nnDetection's box of it 2..6; score of the best slice."""
        boxes, scores = predicted(make(2, STACK))
        np.testing.assert_allclose(boxes, [[2, 8, 6, 14, 10, 15]])
        np.testing.assert_allclose(scores, [0.9])

    def test_a_gap_is_bridged_as_far_as_told(self):
        apart = [STACK[0], ((6, 0, 0), SLICE_BOX, 0.8)]  # slices 3 and 6: two without a box
        assert len(predicted(make(2, apart))[0]) == 2
        assert len(predicted(make(2, apart, {"link_gap": 2}))[0]) == 1

    def test_several_models_of_a_plan_are_fused(self):
        """Both say the same: one box, whose score is the mean of equal scores."""
        boxes, scores = predicted(make(2, STACK, models=2))
        np.testing.assert_allclose(boxes, [[2, 8, 6, 14, 10, 15]], atol=1e-5)
        np.testing.assert_allclose(scores, [0.9], atol=1e-6)

    def test_filters_judge_slices(self):
        """One slice of three lies in bright voxels of x >= 30: without it the lesion is two slices high."""
        content = case()
        content["data"][1, 5] = 200.0
        made = make(2, STACK, {"hu_rule": (0, 0.5)}, content)
        np.testing.assert_allclose(predicted(made)[0], [[2, 8, 5, 14, 10, 15]])

    def test_no_boxes_at_all(self):
        empty = make(2)
        empty.process_batch(
            {
                "pred_boxes": [torch.zeros(0, 4)],
                "pred_scores": [torch.zeros(0)],
                "pred_labels": [torch.zeros(0)],
            },
            {"tile_origin": [torch.tensor([0])] * 3, "data": torch.zeros(1, 1, 40, 40)},
        )
        assert predicted(empty)[0].shape == (0, 6)

    def test_size_filter_of_nndetection_is_not_swept(self):
        from nndet_psma.hosts.nndetection.ensembler import PSMAEnsembler3D, PSMAEnsembler25D

        start, values = PSMAEnsembler25D.sweep_parameters()
        assert "remove_small_boxes" not in values
        assert "remove_small_boxes" in PSMAEnsembler3D.sweep_parameters()[1]
        assert list(values)[-4:] == ["zone_share", "hu_rule", "link_iou", "link_gap"]
        assert set(values) <= set(start)


ORIGIN = (0, 0, 0)
INSIDE = (ORIGIN, [2.0, 8.0, 6.0, 14.0, 10.0, 15.0], 0.9)  # centre y 11.5: in the CTV
BORDER = (ORIGIN, [2.0, 22.0, 6.0, 28.0, 10.0, 15.0], 0.8)  # y 23..28, centre 25.5: 25 - 19 = 6 mm outside
BRIGHT = (ORIGIN, [2.0, 8.0, 6.0, 14.0, 30.0, 36.0], 0.7)  # x 31..36: 200 HU


class TestVolumes:
    @pytest.mark.parametrize(
        ("parameters", "kept"),
        [
            ({}, [0.9, 0.8, 0.7]),
            ({"zone_share": 0.5}, [0.9, 0.7]),  # 5 mm of 10
            ({"zone_share": 0.6}, [0.9, 0.8, 0.7]),  # 6 mm: not farther
            ({"hu_rule": (1, 0.5)}, [0.9, 0.8]),  # above 150 HU
            ({"hu_rule": (7, 0.5)}, [0.9, 0.8, 0.7]),  # the plan has two thresholds only
            ({"zone_share": 0.1, "hu_rule": (0, 0.1)}, [0.9]),
        ],
    )
    def test_filters(self, parameters, kept):
        made = make(3, [INSIDE, BORDER, BRIGHT], parameters)
        np.testing.assert_allclose(predicted(made)[1], kept, atol=1e-6)

    def test_boxes_without_filters_are_nndetections_own(self):
        from nndet.inference.ensembler.detection import BoxEnsemblerSelective

        ours = make(3, [INSIDE, BORDER, BRIGHT], models=2)
        theirs = BoxEnsemblerSelective.from_case(case(), dict(GRID), {})
        theirs.model_results, theirs.model_weights = ours.model_results, ours.model_weights
        expected, found = theirs.get_case_result(), ours.get_case_result()
        assert set(expected) == set(found)
        assert set(ours.get_case_result(restore=True)) == {*expected, "extra_voxels"}
        np.testing.assert_allclose(found["pred_boxes"], expected["pred_boxes"], atol=1e-4)
        np.testing.assert_allclose(found["pred_scores"], expected["pred_scores"], atol=1e-6)

    def test_unknown_hu_is_kept(self):
        made = make(3, [BRIGHT], {"hu_rule": (0, 0.5)}, case(hu=np.nan))
        assert len(predicted(made)[0]) == 1

    def test_restored_and_not_are_the_same_boxes(self):
        """The object's y and x are doubled (2 mm to 1 mm) and moved by the crop, z only moved.

        z 3..6, y 9..14, x 11..15 become 8..11, 28..38, 42..50; nnDetection's truth begins one voxel before.
        """
        made = make(3, [INSIDE, BORDER], {"zone_share": 0.1})
        restored, _ = predicted(made, restore=True)
        np.testing.assert_allclose(restored, [[7, 27, 11, 38, 41, 50]])
        np.testing.assert_allclose(predicted(made)[0], [INSIDE[1]])

    @pytest.mark.parametrize("ratio", [1, 2, 3])
    def test_a_perfect_box_is_perfect_in_the_image(self, ratio):
        """Voxels 6..12 of the image are 6/ratio..12/ratio here; nnDetection's truth in the image is 5..12."""
        box = [v / ratio for v in (6 - ratio, 6 - ratio, 12, 12, 6 - ratio, 12)]
        made = make(3, [(ORIGIN, box, 0.9)])
        made.properties["original_spacing"] = np.ones(3)
        made.properties["spacing_after_resampling"] = np.full(3, float(ratio))
        made.properties["crop_bbox"] = [(0, 40)] * 3
        np.testing.assert_allclose(predicted(made)[0], [box])
        np.testing.assert_allclose(predicted(made, restore=True)[0], [[5, 5, 12, 12, 5, 12]])

    def test_off_comes_first_in_the_sweep(self):
        """nnDetection takes the first of equal values."""
        from nndet_psma.hosts.nndetection.ensembler import PSMAEnsembler3D

        start, values = PSMAEnsembler3D.sweep_parameters()
        assert values["zone_share"][0] is None
        assert values["hu_rule"][0] is None
        assert start["zone_share"] is None
        assert start["hu_rule"] is None


@pytest.mark.parametrize(("dim", "boxes"), [(2, STACK), (3, [INSIDE, BORDER, BRIGHT])])
def test_state_file_holds_all_that_a_sweep_needs(dim, boxes, tmp_path):
    made = make(dim, boxes)
    before = predicted(made)
    made.save_state(tmp_path, "a")
    assert type(made).get_case_ids(tmp_path) == ["a"]
    loaded = type(made).from_checkpoint(tmp_path, "a", device="cpu")
    for expected, found in zip(before, predicted(loaded), strict=True):
        np.testing.assert_allclose(found, expected)
    loaded.update_parameters(hu_rule=(0, 1.0), zone_share=0.1)
    made.update_parameters(hu_rule=(0, 1.0), zone_share=0.1)
    np.testing.assert_allclose(predicted(loaded)[0], predicted(made)[0])


def test_fusing_is_done_once_while_only_our_thresholds_change(tmp_path, monkeypatch):
    made = make(3, [INSIDE, BORDER, BRIGHT])
    made.save_state(tmp_path, "a")
    cls, calls = type(made), []
    genuine = cls.process_ensemble
    monkeypatch.setattr(
        cls, "process_ensemble", lambda self, *parts: calls.append(1) or genuine(self, *parts)
    )
    kept = []
    for parameters in ({}, {"zone_share": 0.5}, {"hu_rule": (0, 0.5)}, {"model_score_thresh": 0.75}):
        loaded = cls.from_checkpoint(tmp_path, "a", device="cpu")
        loaded.update_parameters(**parameters)
        kept.append(len(predicted(loaded)[0]))
    assert kept == [3, 2, 2, 2]
    assert len(calls) == 2  # at first, and for nnDetection's own threshold


def test_evidence_of_boxes_beyond_the_case_is_that_at_its_edge():
    from nndet_psma.hosts.nndetection.evidence import CaseEvidence

    evidence = CaseEvidence.of_case(case()["data"])
    outside = Detections.build([[-5, -5, -5, -1, -1, -1], [20, 50, 50, 30, 60, 60]], [0.5, 0.5])
    known = evidence.beside(outside)
    np.testing.assert_allclose(known.columns["hu_quantiles"][:, 0], [50.0, 200.0])
    np.testing.assert_allclose(known.columns["zone_mm"], [0.0, 20.0])  # y 39: 39 - 19


def test_limits_are_those_of_the_plan():
    from nndet_psma.hosts.nndetection.evidence import FilterLimits

    found = FilterLimits.of_grid(6.48, {"hu_threshold": [None, 120.0, 80.0]})
    assert found == FilterLimits(6.48, (80.0, 120.0))
    assert FilterLimits.of_grid(0.0, {}).hu_thresholds == ()


@pytest.mark.parametrize("dim", [2, 3])
def test_nndetections_own_sweep_finds_the_zone(dim, tmp_path):
    """The only false alarm lies 6 mm outside; with it the average precision is below 1, without it 1."""
    from nndet.inference.sweeper import BoxSweeper

    if dim == 2:
        wrong = [((z, 0, 0), [22.0, 10.0, 28.0, 15.0], 0.95) for z in (3, 4, 5)]
        made = make(2, [*STACK, *wrong])
    else:
        made = make(3, [INSIDE, (ORIGIN, BORDER[1], 0.95)])
    predictions, truth = tmp_path / "predictions", tmp_path / "truth"
    predictions.mkdir()
    truth.mkdir()
    made.save_state(predictions, "a")
    np.savez(truth / "a_boxes_gt.npz", boxes=np.array([INSIDE[1]]), classes=np.array([0]))
    sweeper = BoxSweeper(
        ["node"], predictions, truth, "mAP_IoU_0.10_0.50_0.05_MaxDet_100", type(made), tmp_path / "sweep"
    )
    found = sweeper.run_postprocessing_sweep()
    assert found["zone_share"] == 0.1
    assert found["hu_rule"] is None
    assert (tmp_path / "sweep" / "sweep_zone_share.json").is_file()
