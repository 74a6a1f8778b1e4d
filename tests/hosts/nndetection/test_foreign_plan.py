import json

import pytest

from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import read_description
from nndet_psma.hosts.nndetection.foreign_plan import PLAN_FILE, foreign_plan, numbers
from nndet_psma.planners.describe import describe_plan

FOLDS = [FoldPlan(["b"], ["a"])]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[32 40 40]", [32, 40, 40]),
        ("[3.  1.5 1. ]", [3, 1.5, 1]),
        (["1", ["2", "3"]], [1, 2, 3]),
        ("4", [4]),
        ("1e-05", [1e-5]),
        ("(np.float64(7.0), np.int64(-2))", [7, -2]),  # the digits of "float64" are no number
        ("", []),
    ],
)
def test_numbers_of_text(text, values):
    assert numbers(text) == values


@pytest.fixture
def fold(box_task):
    return box_task.source() / "fold0"


def read(box_task, fold):
    return foreign_plan(fold, read_description(box_task.paths.root), FOLDS)


def test_the_plan_of_a_3d_model(box_task, fold):
    plan = read(box_task, fold)
    assert (plan.plan_id, plan.planner, plan.trainer) == ("D3V001_3d", "D3V001", "RetinaUNetV001")
    assert plan.spacing == (3.0, 1.5, 1.0)
    assert plan.batch_size == 4
    assert plan.classes == {"0": "node", "1": "bone"}
    assert plan.folds == FOLDS
    # (50 + 10) epochs of 2500 batches
    assert (plan.stages[0].iterations, plan.stages[0].warmup) == (150_000, 4000)
    detector = plan.detector3d
    assert detector.patch_size == (8, 16, 16)
    assert detector.strides == [(1, 1, 1), (1, 2, 2), (2, 2, 2)]
    assert detector.kernels == [(1, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert detector.channels == [32, 48, 48]  # doubled at every stage, at most 48
    assert detector.levels == [1, 2]
    # every combination: two widths, one height, one depth
    assert detector.anchor_shapes == [[(2, 5, 7), (3, 5, 7)], [(4, 10, 14), (6, 10, 14)]]


def test_transposed_axes_go_back(box_task, fold):
    """nnDetection put the image's axis 2 first: its axes are (2, 0, 1), so ours are its (1, 2, 0)."""
    content = json.loads((fold / PLAN_FILE).read_text())
    content |= {"transpose_backward": ["1", "2", "0"], "patch_size": "[ 8 16 32]"}
    (fold / PLAN_FILE).write_text(json.dumps(content))
    detector = read(box_task, fold).detector3d
    assert detector.patch_size == (16, 32, 8)
    assert detector.strides[1] == (2, 2, 1)
    assert detector.anchor_shapes[0][0] == (5, 7, 2)


def test_the_plan_of_a_2d_model_is_one_voxel_thin(box_task, fold):
    content = json.loads((fold / PLAN_FILE).read_text())
    content["patch_size"] = "[16 16]"
    content["architecture"] |= {"conv_kernels": [["3", "3"], ["3", "3"]], "strides": [["2", "2"]]}
    content["architecture"]["decoder_levels"] = ["1"]
    content["anchors"] = {"width": [["2.0"]], "height": [["5.0", "6.0"]]}
    (fold / PLAN_FILE).write_text(json.dumps(content))
    detector = read(box_task, fold).detector3d
    assert detector.patch_size == (1, 16, 16)
    assert detector.strides == [(1, 1, 1), (1, 2, 2)]
    assert detector.kernels == [(1, 3, 3), (1, 3, 3)]
    assert detector.anchor_shapes == [[(1, 2, 5), (1, 2, 6)]]


def test_the_plan_survives_its_file_and_describes_itself(box_task, fold, tmp_path):
    plan = read(box_task, fold)
    plan.write(tmp_path / "plan.json")
    assert type(plan).read(tmp_path / "plan.json") == plan
    rows = {row.key: row.value for row in describe_plan(plan)}
    assert rows["detector3d.patch_size"] == "(8, 16, 16)"


@pytest.mark.parametrize("key", ["planner_id", "architecture", "anchors", "patch_size", "transpose_backward"])
def test_another_file_is_refused(box_task, fold, key):
    content = json.loads((fold / PLAN_FILE).read_text())
    del content[key]
    (fold / PLAN_FILE).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=rf"plan_debug\.json: is no plan that nnDetection v0\.1 writes.*{key}"
    ):
        read(box_task, fold)


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "not valid YAML"), ("- 1", "is no configuration of nnDetection")]
)
def test_a_damaged_configuration_is_named(box_task, fold, content, said):
    (fold / "config_resolved.yaml").write_text(content)
    with pytest.raises(UserError, match=rf"config_resolved\.yaml: {said}"):
        read(box_task, fold)


def test_a_missing_configuration_is_named(box_task, fold):
    (fold / "config_resolved.yaml").unlink()
    with pytest.raises(UserError, match="file does not exist"):
        read(box_task, fold)
