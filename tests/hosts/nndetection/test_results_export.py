import json

import numpy as np
import pytest
from nndet_place import GRID, TRUTH

from nndet_psma.artifacts.model_folder import CONSOLIDATED, ModelFolder
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.boxes.box import to_nndetection
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.hosts.boxes_pkl.files import read_nndetection_boxes
from nndet_psma.hosts.boxes_pkl.read import load_plain
from nndet_psma.hosts.nndetection.launch import launch
from nndet_psma.hosts.nndetection.results_export import RAW_SPACE, export_results, truth_arrays
from nndet_psma.hosts.nndetection.results_import import import_results


@pytest.fixture
def imported(box_task):
    folder = ModelFolder(box_task.source("Imported"))
    import_results(box_task.paths, [box_task.source()], folder)
    return folder


@pytest.fixture
def target(box_task):
    return ModelFolder(box_task.source("Exported"))


def predictions(folder, fold, test):
    place = folder.fold(fold) / ("test_predictions" if test else "val_predictions")
    return [Prediction.read(file) for file in sorted(place.glob("*_boxes.json"))]


def test_validation_predictions_lie_where_nndetection_looks(box_task, imported, target):
    written = export_results(box_task.paths, predictions(imported, 0, False), target, 0, test=False)
    assert written == target.root / "fold0" / "val_predictions"
    again = target.root / "fold0" / "val_predictions_preprocessed"
    names = ["a_boxes.pkl", "c_boxes.pkl"]
    assert sorted(file.name for file in written.iterdir()) == names
    assert sorted(file.name for file in again.iterdir()) == names
    plan = load_plain((target.root / "fold0" / "plan.pkl").read_bytes())
    assert plan["data_identifier"] == RAW_SPACE
    for labels in ("labelsTr", f"{RAW_SPACE}/labelsTr"):
        truth = np.load(box_task.paths.preprocessed / labels / "a_boxes_gt.npz")
        # (2..5, 3..8, 4..9) as min - 1 .. end, in their order: z, y, z, y, x, x
        assert truth["boxes"].tolist() == [[1, 2, 5, 8, 3, 9]]
        assert truth["classes"].tolist() == [0]


def test_boxes_make_the_round_trip(box_task, imported, target):
    written = export_results(box_task.paths, predictions(imported, 0, False), target, 0, test=False)
    theirs = read_nndetection_boxes(box_task.source() / "fold0" / "val_predictions" / "a_boxes.pkl")
    back = read_nndetection_boxes(written / "a_boxes.pkl")
    np.testing.assert_allclose(back.detections.boxes, theirs.detections.boxes)
    np.testing.assert_allclose(back.detections.scores, theirs.detections.scores, atol=1e-6)
    assert back.geometry.same_grid(GRID)
    assert len(read_nndetection_boxes(written / "c_boxes.pkl").detections) == 0


def test_test_predictions_need_no_plan(box_task, imported, target):
    written = export_results(
        box_task.paths, predictions(imported, CONSOLIDATED, True), target, CONSOLIDATED, test=True
    )
    assert written == target.root / "consolidated" / "test_predictions"
    assert not (target.root / "consolidated" / "plan.pkl").exists()
    assert (box_task.paths.preprocessed / "labelsTs" / "t_boxes_gt.npz").is_file()


def test_truth_that_nndetection_made_is_left_alone(box_task, imported, target):
    file = box_task.paths.preprocessed / "labelsTr" / "a_boxes_gt.npz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"theirs")
    export_results(box_task.paths, predictions(imported, 0, False), target, 0, test=False)
    assert file.read_bytes() == b"theirs"


def test_an_earlier_export_leaves_nothing(box_task, imported, target):
    export_results(box_task.paths, predictions(imported, 0, False), target, 0, test=False)
    written = export_results(box_task.paths, predictions(imported, 1, False), target, 0, test=False)
    assert [file.name for file in written.iterdir()] == ["b_boxes.pkl"]


def test_mistakes_are_named(box_task, imported, target):
    with pytest.raises(UserError, match="no predictions to export"):
        export_results(box_task.paths, [], target, 0, test=False)
    with pytest.raises(UserError, match="model of this package"):
        export_results(box_task.paths, predictions(imported, 0, False), imported, 0, test=False)
    with pytest.raises(UserError, match="case a has no label"):
        export_results(box_task.paths, predictions(imported, 0, False), target, 0, test=True)


def test_truth_is_in_the_files_own_axes(box_task):
    """A mask stored upside down: boxes are counted in the file's order, not in the patient's."""
    flipped = Geometry(
        GRID.shape, GRID.spacing, origin=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1)
    )
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    mask[2:5, 3:8, 4:9] = 1
    write_volume(box_task.paths.labels("Tr") / "a.nii.gz", mask, flipped)
    case = list_cases(box_task.paths, read_description(box_task.paths.root))[0]
    arrays = truth_arrays(case, read_description(box_task.paths.root))
    assert arrays["boxes"].tolist() == [[1, 2, 5, 8, 3, 9]]


def test_truth_is_what_genuine_nndetection_makes(nndetection, box_task):
    from nndet.io.transforms.instances import get_bbox_np

    description = read_description(box_task.paths.root)
    for case in list_cases(box_task.paths, description):
        mask = np.zeros((1, *GRID.shape), dtype=np.int32)
        classes = {}
        for number, (box, label) in enumerate(TRUTH[case.case_id], start=1):
            mask[0, box[0] : box[3], box[1] : box[4], box[2] : box[5]] = number
            classes[number] = label
        theirs = get_bbox_np(mask, classes, dim=3)
        ours = truth_arrays(case, description)
        for key in ("boxes", "classes"):
            np.testing.assert_array_equal(ours[key], theirs[key])
            assert (ours[key].shape, ours[key].dtype) == (theirs[key].shape, theirs[key].dtype)
        if len(classes):
            tight = np.array([box for box, _ in TRUTH[case.case_id]], dtype=np.float64)
            np.testing.assert_array_equal(theirs["boxes"], to_nndetection(tight))


@pytest.mark.slow
def test_genuine_nndet_eval_scores_the_export(nndetection, box_task, imported, target, monkeypatch):
    """Both lesions are hit exactly before the false alarm: AP 1 at every IoU, by nnDetection's own command.

    No test case has a lesion of class 1, which nnDetection's mean over classes counts as -1: look at class 0.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for test in (False, True):
        found = predictions(imported, CONSOLIDATED, test)
        export_results(box_task.paths, found, target, CONSOLIDATED, test=test)
        arguments = ["901", "Exported", "-1", "--boxes", "--case", *(["--test"] if test else [])]
        assert launch("nndet_eval", arguments) == 0
        folder = target.fold(CONSOLIDATED) / ("test_results" if test else "val_results")
        scores = json.loads((folder / "results_boxes.json").read_text())
        for iou in ("0.10", "0.50", "0.90"):
            assert float(scores[f"0_AP_IoU_{iou}_MaxDet_100"]) == pytest.approx(1.0)
    assert (target.fold(CONSOLIDATED) / "val_results_preprocessed" / "results_boxes.json").is_file()
