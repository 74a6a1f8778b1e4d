"""Every form of a submission, read back by somebody else's reader."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from faster_coco_eval import COCO, COCOeval_faster
from picai_eval import evaluate_folder
from picai_eval.analysis_utils import parse_detection_map

from nndet_psma.artifacts.prediction import PredictedLesion, Prediction, SliceBox
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.stages.submit import FORMATS, SubmitJob, convert_nndetection, read_predictions, submit

# x runs to the patient's right and z from head to feet: voxel (z, y, x) lies at (30 - 1.5 x, 2 y - 20, 300 - 4 z)
GRID = Geometry(
    (10, 40, 48), (4.0, 2.0, 1.5), (30.0, -20.0, 300.0), (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
)
TURNED = Geometry((48, 40, 10), (1.5, 2.0, 4.0), (30.0, -20.0, 300.0), (0, 0, -1.0, 0, 1.0, 0, -1.0, 0, 0))


def _lesion(box, score, grid=GRID, label=0, slices=None):
    low, high = np.array(box[:3], float), np.array(box[3:], float)
    centre = grid.to_patient(((low + high) / 2)[None])[0]
    thin = (
        [(z, *box[1:3], z + 1, *box[4:]) for z in range(int(box[0]), int(box[3]))]
        if slices is None
        else slices
    )
    return PredictedLesion(
        score,
        label,
        ("node", "bone")[label],
        tuple(map(float, box)),
        tuple(np.round(centre, 4).tolist()),
        tuple(((high - low) * grid.spacing).tolist()),
        [SliceBox(tuple(map(float, each)), score, 2) for each in thin],
    )


FIRST = _lesion((2, 5, 10, 4, 9, 16), 0.9)
SECOND = _lesion((6, 20.25, 30.5, 8, 26.5, 36), 0.6, label=1)
THIRD = _lesion((7, 30, 5, 8, 34, 9), 0.2)


def _prediction(case_id, lesions, candidates, grid=GRID):
    whole = (0.0, 0.0, 0.0, *map(float, grid.shape))
    return Prediction(case_id, "made", "ctv", grid, whole, lesions, candidates)


PREDICTIONS = [
    _prediction("b", [FIRST, SECOND], [FIRST, SECOND, THIRD]),
    _prediction("a", [], [THIRD]),
    _prediction("c", [], []),
]


def _submit(tmp_path, form, **options):
    return submit(SubmitJob(options.pop("predictions", PREDICTIONS), form, tmp_path, **options))


def test_boxes_json(tmp_path):
    """World coordinates by the grid above: voxel edges lie half a voxel before the first centre."""
    _submit(tmp_path, "boxes-json")
    content = json.loads((tmp_path / "boxes.json").read_text())
    assert [case["case_id"] for case in content["cases"]] == ["a", "b", "c"]
    found = content["cases"][1]["lesions"][0]
    assert found["box_voxels"] == [2, 5, 10, 4, 9, 16]
    # z edges 2..4: 300 - 4 * (1.5, 3.5); y 5..9: 2 * (4.5, 8.5) - 20; x 10..16: 30 - 1.5 * (9.5, 15.5)
    assert found["box_mm"] == {"min": [6.75, -11, 286], "max": [15.75, -3, 294]}
    assert found["centre_mm"] == [11.25, -7, 290]
    assert found["size_mm"] == [8, 8, 9]
    image = sitk.Image(48, 40, 10, sitk.sitkUInt8)
    grid = content["cases"][1]["image"]
    image.SetSpacing(grid["spacing"][::-1])
    image.SetOrigin(grid["origin"])
    image.SetDirection(grid["direction"])
    index = image.TransformPhysicalPointToContinuousIndex(found["centre_mm"])
    assert np.allclose(index, [12.5, 6.5, 2.5])  # x, y, z; ITK counts from voxel centres


def test_lesion_tables(tmp_path):
    _submit(tmp_path, "lesions-csv")
    lesions, cases = pd.read_csv(tmp_path / "lesions.csv"), pd.read_csv(tmp_path / "cases.csv")
    assert lesions[["case_id", "lesion", "name"]].to_numpy().tolist() == [["b", 1, "node"], ["b", 2, "bone"]]
    assert lesions.loc[1, ["z0", "y0", "x0", "z1", "y1", "x1"]].tolist() == [6, 20.25, 30.5, 8, 26.5, 36]
    assert lesions.loc[0, ["centre_x_mm", "centre_y_mm", "centre_z_mm"]].tolist() == [11.25, -7, 290]
    assert lesions[["slices", "votes"]].to_numpy().tolist() == [[2, 2], [2, 2]]
    assert cases.to_numpy().tolist() == [["a", "ctv", 0, 0], ["b", "ctv", 2, 0.9], ["c", "ctv", 0, 0]]


def test_luna_tables(tmp_path):
    """Ranked candidates, and every case in a table of its own."""
    _submit(tmp_path, "luna-csv")
    found = pd.read_csv(tmp_path / "luna.csv")
    assert list(found.columns) == ["seriesuid", "coordX", "coordY", "coordZ", "probability"]
    assert found["seriesuid"].tolist() == ["a", "b", "b", "b"]
    assert found.loc[1].tolist()[1:] == [11.25, -7, 290, 0.9]
    assert pd.read_csv(tmp_path / "luna_cases.csv")["seriesuid"].tolist() == ["a", "b", "c"]


def _truth(tmp_path, boxes_by_case):
    for case, boxes in boxes_by_case.items():
        array = np.zeros(GRID.shape, np.uint8)
        for z0, y0, x0, z1, y1, x1 in boxes:
            array[z0:z1, y0:y1, x0:x1] = 1
        write_volume(tmp_path / "truth" / f"{case}.nii.gz", array, GRID)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_detection_maps_by_picai_eval(tmp_path, suffix):
    """b: 0.9 hits, 0.6 hits, 0.2 is false; a: 0.2 is false and its lesion is missed. c: nothing.

    Of three lesions two are found before any false candidate: precision 1 up to recall 2/3, and no further. Cases: b
    scores 0.9 (positive), a 0.2 (positive), c 0 (negative): AUC 1.
    """
    _submit(tmp_path / "maps", "detection-map", suffix=suffix)
    _truth(
        tmp_path, {"b": [(2, 5, 10, 4, 9, 16), (6, 20, 30, 8, 26, 36)], "a": [(0, 0, 0, 2, 3, 3)], "c": []}
    )
    subjects = ["a", "b", "c"]
    metrics = evaluate_folder(tmp_path / "maps", tmp_path / "truth", subject_list=subjects, verbose=0)
    assert pytest.approx(2 / 3) == metrics.AP
    assert metrics.auroc == 1.0
    found = sorted(score for _, score, _ in metrics.lesion_results["b"])
    assert found == pytest.approx([0.2, 0.6, 0.9])


def test_detection_map_on_the_grid_of_the_image(tmp_path):
    _submit(tmp_path, "detection-map", which="lesions")
    image = sitk.ReadImage(str(tmp_path / "b_detection_map.nii.gz"))
    assert image.GetSpacing() == pytest.approx((1.5, 2.0, 4.0))
    assert image.GetOrigin() == pytest.approx(GRID.origin)
    assert image.GetDirection() == pytest.approx(GRID.direction)
    array = sitk.GetArrayFromImage(image)
    assert array.dtype == np.float32
    assert image.GetPixel(*image.TransformPhysicalPointToIndex(FIRST.centre_mm)) == pytest.approx(0.9)
    # centres 20.5..25.5 and 30.5 lies on the edge 30.5: voxels 20..25 of y, 30..35 of x
    wanted = np.zeros(GRID.shape, np.float32)
    wanted[2:4, 5:9, 10:16], wanted[6:8, 20:26, 30:36] = 0.9, 0.6
    assert np.array_equal(array, wanted)
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "c_detection_map.nii.gz"))).any()


def test_label_maps(tmp_path):
    """Overlapping lesions: the better one has the voxels; the table counts what each has."""
    behind = _lesion((2, 5, 10, 4, 9, 20), 0.5)  # of its 2 x 4 x 10 voxels the better lesion has 2 x 4 x 6
    done = _submit(tmp_path, "label-map", predictions=[_prediction("b", [FIRST, behind], [])])
    image = sitk.ReadImage(str(tmp_path / "b_lesions.nii.gz"))
    array = sitk.GetArrayFromImage(image)
    table = pd.read_csv(tmp_path / "lesions.csv")
    assert {n: int((array == n).sum()) for n in (1, 2)} == {1: 48, 2: 32}
    assert table[["lesion", "score", "voxels"]].to_numpy().tolist() == [[1, 0.9, 48], [2, 0.5, 32]]
    stats = sitk.LabelShapeStatisticsImageFilter()
    stats.Execute(sitk.Cast(image, sitk.sitkUInt16))
    assert stats.GetCentroid(1) == pytest.approx(FIRST.centre_mm)
    assert done.lost == {}
    inside = _lesion((2, 6, 11, 3, 8, 14), 0.4)
    assert _submit(tmp_path, "label-map", predictions=[_prediction("b", [FIRST, inside], [])]).lost == {
        "b": 1
    }


def test_coco_by_faster_coco_eval(tmp_path):
    """Held against itself as truth every box is found; one box shifted by half its width is no longer."""
    _submit(tmp_path, "coco-json", classes={0: "node", 1: "bone"})
    truth = COCO(str(tmp_path / "coco.json"))
    assert {c["id"]: c["name"] for c in truth.dataset["categories"]} == {1: "node", 2: "bone"}
    assert len(truth.dataset["images"]) == 30
    assert sorted(truth.getImgIds()) == list(range(1, 31))
    image = truth.loadImgs([13])[0]  # cases a, b, c of ten slices each: the third slice of b
    assert (image["case_id"], image["slice"], image["height"], image["width"]) == ("b", 2, 40, 48)
    (found,) = truth.loadAnns(truth.getAnnIds(imgIds=[13]))
    assert (found["bbox"], found["category_id"], found["score"]) == ([10, 5, 6, 4], 1, 0.9)

    def precision(results):
        (tmp_path / "r.json").write_text(json.dumps(results))
        scorer = COCOeval_faster(
            truth, truth.loadRes(str(tmp_path / "r.json")), "bbox", print_function=lambda *_: 0
        )
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
        return scorer.stats_as_dict["AP_50"]

    results = json.loads((tmp_path / "coco_results.json").read_text())
    assert len(results) == 6  # b: 2 + 2 + 1 slices, a: 1
    assert precision(results) == pytest.approx(1.0)
    results[1]["bbox"][0] += 3.1
    assert precision(results) < 0.9


def test_coco_of_thick_and_thin_slices_and_turned_axes(tmp_path):
    """The model's slices were twice as thick, or half as thick, as the image's; and x is the first array axis."""
    thick = _lesion((2, 5, 10, 6, 9, 16), 0.8, slices=[(2, 5, 10, 4, 9, 16), (4, 6, 10, 6, 9, 16)])
    thin = _lesion((8, 0, 0, 9, 2, 2), 0.7, slices=[(8, 0, 0, 8.5, 2, 2), (8.5, 0, 0, 9, 2, 3)])
    turned = _lesion((10, 5, 2, 16, 9, 4), 0.5, TURNED, slices=[(10, 5, 2, 16, 9, 3), (10, 6, 3, 16, 9, 4)])
    both = [_prediction("a", [], [thick, thin]), _prediction("t", [], [turned], TURNED)]
    _submit(tmp_path, "coco-json", predictions=both)
    content = json.loads((tmp_path / "coco.json").read_text())
    places = [(a["image_id"] - 1, a["bbox"]) for a in content["annotations"]]
    assert places == [
        *((z, [10, 5, 6, 4]) for z in (2, 3)),
        *((z, [10, 6, 6, 3]) for z in (4, 5)),
        (8, [0, 0, 2, 2]),  # the lower half: equal scores keep the first
        (10 + 2, [5, 10, 4, 6]),  # rows are x, columns y
        (10 + 3, [6, 10, 3, 6]),
    ]
    assert [image["height"] for image in content["images"][-10:]] == [48] * 10


def test_nndetection_files_by_pickle(tmp_path):
    """Its order is z0, y0, z1, y1, x0, x1, and boxes begin one voxel earlier."""
    _submit(tmp_path, "nndet-pkl")
    found = pickle.loads((tmp_path / "b_boxes.pkl").read_bytes())
    assert found["pred_boxes"].tolist() == [
        [1, 4, 4, 9, 9, 16],
        [5, 19.25, 8, 26.5, 29.5, 36],
        [6, 29, 8, 34, 4, 9],
    ]
    assert found["pred_scores"].tolist() == pytest.approx([0.9, 0.6, 0.2])
    assert found["pred_labels"].tolist() == [0, 1, 0]
    assert found["itk_spacing"] == (1.5, 2.0, 4.0)
    assert found["original_size_of_raw_data"].tolist() == [10, 40, 48]
    assert pickle.loads((tmp_path / "c_boxes.pkl").read_bytes())["pred_boxes"].shape == (0, 6)


def test_nndetection_files_come_back(tmp_path):
    _submit(tmp_path / "pkl", "nndet-pkl")
    found = read_predictions(tmp_path / "pkl", {0: "node", 1: "bone"})
    assert [each.case_id for each in found] == ["a", "b", "c"]
    for ours, theirs in zip(found[1].candidates, PREDICTIONS[0].candidates, strict=True):
        assert ours.box == theirs.box
        assert ours.score == pytest.approx(theirs.score)
        assert (ours.name, ours.centre_mm) == (theirs.name, pytest.approx(theirs.centre_mm))
    assert [lesion.score for lesion in found[1].lesions] == pytest.approx([0.9, 0.6])  # from 0.5 on
    assert [part.box[0] for part in found[1].candidates[0].slices] == [2, 3]


def test_nndetection_models_vote(tmp_path):
    """Two models: the lesion both see gets the mean score, one seen by one alone half of its own."""
    other = [_prediction("b", [], [_lesion((2, 5, 10, 4, 9, 16), 0.5), THIRD])]
    _submit(tmp_path / "one", "nndet-pkl", predictions=[_prediction("b", [], [FIRST, SECOND])])
    _submit(tmp_path / "two", "nndet-pkl", predictions=other)
    folders = [tmp_path / "one", tmp_path / "two"]
    (found,) = convert_nndetection(folders, classes={}, score_threshold=0.2, min_votes=2)
    assert [lesion.score for lesion in found.candidates] == pytest.approx([0.7, 0.3, 0.1])
    assert [lesion.box for lesion in found.lesions] == [FIRST.box]
    assert found.lesions[0].slices[0].votes == 2
    assert {lesion.name for lesion in found.candidates} == {"class_0", "class_1"}
    with pytest.raises(UserError, match="3 votes needed; expected from 1 to the 2 models"):
        convert_nndetection(folders, classes={}, min_votes=3)
    (tmp_path / "two/b_boxes.pkl").rename(tmp_path / "two/x_boxes.pkl")
    with pytest.raises(UserError, match="case b is not in every folder"):
        convert_nndetection(folders, classes={})


def test_classes_without_a_name_are_refused(tmp_path):
    _submit(tmp_path, "nndet-pkl", predictions=[_prediction("b", [], [FIRST, SECOND])])
    with pytest.raises(UserError, match=r"b_boxes\.pkl: boxes of class 1; expected 0 \(node\)\. .*--classes"):
        convert_nndetection([tmp_path], classes={0: "node"})
    (found,) = convert_nndetection([tmp_path], classes={0: "node", 1: "bone", 2: "other"})
    assert [lesion.name for lesion in found.candidates] == ["node", "bone"]


def test_grid_of_nndetection_files_from_the_images(tmp_path):
    _submit(tmp_path / "pkl", "nndet-pkl", predictions=PREDICTIONS[:1])
    file = tmp_path / "pkl/b_boxes.pkl"
    content = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps({**content, "itk_origin": None}))
    with pytest.raises(UserError, match=r"nothing tells the grid of case b.*--images"):
        read_predictions(tmp_path / "pkl")
    write_volume(tmp_path / "images/b_0000.nii.gz", np.zeros(GRID.shape, np.int16), GRID)
    (found,) = convert_nndetection([tmp_path / "pkl"], images=tmp_path / "images", classes={})
    assert found.image.same_grid(GRID)
    moved = Geometry(GRID.shape, GRID.spacing)
    write_volume(tmp_path / "images/b_0000.nii.gz", np.zeros(GRID.shape, np.int16), moved)
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="the files of case b are of different images"):
        convert_nndetection([tmp_path / "pkl"], images=tmp_path / "images", classes={})
    with pytest.raises(UserError, match="no image of case b"):
        convert_nndetection([tmp_path / "pkl"], images=tmp_path, classes={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box": (2.0, 5, 10, 4, 9, 60)}, "a box outside the image of 10 x 40 x 48 voxels"),
        ({"box": (2.0, 5, 10, 40, 9, 16)}, "a box outside the image"),
        (
            {"box": (4.0, 9, 16, 2, 5, 10)},
            "an upper corner not above its lower one; the order is z0, y0, x0, z1",
        ),
        ({"box": (2.0, 5, 4, 9)}, "other than six numbers"),
        ({"slices": [SliceBox((2.0, 9, 10, 3, 5, 16), 0.5, 1)]}, "an upper corner not above"),
        ({"score": 4.2}, r"score 4\.2 and label 0"),
        ({"label": -1}, "score 0.9 and label -1"),
    ],
)
def test_boxes_of_other_programs_are_checked(tmp_path, changes, message):
    """Ours as they are, and what reaches a voxel beyond the image, are read."""
    fine = replace(THIRD, box=(-1.0, 30, 5, 8, 34, 9))
    _prediction("a", [], [FIRST, fine]).write(tmp_path / "a_boxes.json")
    assert len(read_predictions(tmp_path)[0].candidates) == 2
    _prediction("a", [], [fine, replace(FIRST, **changes)]).write(tmp_path / "a_boxes.json")
    with pytest.raises(UserError, match=rf"a_boxes\.json: candidates\[1\] has .*{message}"):
        read_predictions(tmp_path)


def test_boxes_of_nndetection_outside_the_image(tmp_path):
    _submit(tmp_path, "nndet-pkl", predictions=PREDICTIONS[:1])
    file = tmp_path / "b_boxes.pkl"
    content = pickle.loads(file.read_bytes())
    far = content["pred_boxes"] + np.array([0, 0, 0, 0, 40, 40], np.float32)
    file.write_bytes(pickle.dumps({**content, "pred_boxes": far}))
    with pytest.raises(UserError, match=r"b_boxes.pkl: box 1 of 3 lies outside the image of 10 x 40 x 48"):
        read_predictions(tmp_path)
    with pytest.raises(UserError, match="no order of corners; expected each of z0,y0,z1,y1,x0,x1 once"):
        convert_nndetection([tmp_path], classes={}, order=["z0", "y0"])


def test_what_is_chosen(tmp_path):
    """Limits apply to what the format is for; the index says what was chosen."""
    done = _submit(tmp_path, "luna-csv", score_threshold=0.5, max_per_case=1)
    assert [(case.case_id, len(case.lesions)) for case in done.cases] == [("a", 0), ("b", 1), ("c", 0)]
    index = json.loads((tmp_path / "submission.json").read_text())
    assert (index["boxes"], index["score_threshold"], index["max_per_case"]) == ("candidates", 0.5, 1)
    done = _submit(tmp_path, "luna-csv", which="lesions")
    assert [len(case.lesions) for case in done.cases] == [0, 2, 0]
    assert {name: form.which for name, form in FORMATS.items() if form.which == "lesions"}.keys() == {
        "boxes-json", "lesions-csv", "label-map",
    }  # fmt: skip


def test_mistakes(tmp_path):
    for options, message in (
        ({"form": "pdf"}, "unknown format 'pdf'; expected one of boxes-json"),
        ({"form": "luna-csv", "predictions": []}, "there are no predictions to submit"),
        ({"form": "luna-csv", "predictions": PREDICTIONS[:1] * 2}, "case b is there twice"),
        ({"form": "luna-csv", "score_threshold": 2.0}, "limits that make no sense"),
        ({"form": "luna-csv", "max_per_case": 0}, "limits that make no sense"),
    ):
        with pytest.raises(UserError, match=message):
            _submit(tmp_path / "x", options.pop("form"), **options)
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path)


def test_real_predictions_make_valid_detection_maps(trained, tmp_path):
    """Many overlapping candidates of an untrained detector: picai_eval sees one component per painted lesion."""
    predictions = read_predictions(trained.model / "consolidated/test_predictions")
    done = _submit(tmp_path, "detection-map", predictions=predictions)
    for case in done.cases:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{case.case_id}_detection_map.nii.gz")))
        scores, _ = parse_detection_map(array)
        assert len(scores) == len(case.lesions) - done.lost.get(case.case_id, 0) > 0
        assert max(scores.values()) == pytest.approx(case.lesions[0].score)
