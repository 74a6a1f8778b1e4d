"""What the planner of ``nodestatus`` decides and refuses."""

from __future__ import annotations

import json

import pytest

from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.cli.umbrella import main
from nndet_psma.core.atomic import read_json
from nndet_psma.dataset.phantom.node_status import NodeStatusOptions
from nndet_psma.dataset.phantom.task import generate_task
from nndet_psma.dataset.task.paths import TaskPaths

OPTIONS = NodeStatusOptions(size=(14, 56, 72), spacing=(6.0, 3.0, 3.0), nodes=4)
NO_CROPS = ["prep.process=false", "prep.check=false", "plan_cfg.target=cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> TaskPaths:
    paths = TaskPaths(tmp_path_factory.mktemp("data") / "Task102_NodeStatus")
    generate_task(paths.root, kind="node_status", cases=6, test_cases=0, seed=1, options=OPTIONS)
    return paths


@pytest.fixture
def task(made, monkeypatch):
    """The task with notes that a test may change; put back afterwards."""
    files = {file: file.read_text() for file in made.labels("Tr").glob("*.json")}
    monkeypatch.setenv("det_data", str(made.root.parent))
    yield made
    for file, text in files.items():
        file.write_text(text)


def change(paths, edit):
    for index in range(6):
        file = paths.labels("Tr") / f"nodes_{index:03d}.json"
        content = read_json(file)
        edit(index, content)
        file.write_text(json.dumps(content))


def prep(*options):
    return main(["prep", "102", "-np", "1", "-o", "prep.overwrite=true", *NO_CROPS, *options])


@pytest.mark.parametrize(
    ("preset", "size", "given", "sampling"),
    [("status", (1, 48, 48), "ct", "status_set"), ("location", (1, 48, 48), "ct", "location_set"),
     ("xmask", (1, 48, 48), "ct*mask", "status_set")],
)  # fmt: skip
def test_presets_are_the_papers(task, preset, size, given, sampling):
    assert prep(f"train=nodestatus_hartenstein2020_{preset}") == 0
    name = f"NodeStatus_Hartenstein2020_{ {'xmask': 'XMask'}.get(preset, preset.capitalize()) }"
    plan = read_plan(task.plan(name))
    assert (plan.crop.size, plan.crop.input, plan.sampling) == (size, given, sampling)
    assert plan.crop.stored == (11, 78, 78)  # turned by 45 degrees and shifted by 5
    assert plan.crop.outside_hu == (0.0 if preset == "xmask" else None)
    assert plan.network.kind == "vgg16conv"
    assert plan.network.widths == [64, 128, 256, 512, 512]
    assert [stage.name for stage in plan.stages] == ["member0"]
    assert plan.stages[0].learning_rate == 1e-4
    assert plan.augmentation.brightness == 0.5


def test_stations_that_hold_one_class_each(task, capsys):
    """The label decides the station: nothing can be balanced, and balanced by status it is when nobody insists."""

    def edit(index, content):
        content["stations"] = {k: "iliac" if v else "inguinal" for k, v in content["instances"].items()}

    change(task, edit)
    assert prep("plan_cfg.sampling=location") == 2
    error = capsys.readouterr().err
    assert "no station holds nodes of both classes" in error
    assert "iliac (" in error
    assert "inguinal (" in error
    assert "plan_cfg.sampling=status" in error
    assert prep() == 0
    assert read_plan(task.plan("NodeStatus")).sampling == "status"


def test_a_station_that_one_fold_alone_can_balance(task):
    """Both classes of one station in one patient only: the fold that validates him could not balance it."""

    def edit(index, content):
        content["stations"] = {k: "iliac" if v else "inguinal" for k, v in content["instances"].items()}
        if index == 0:
            content["stations"] = dict.fromkeys(content["instances"], "both")
            content["instances"] = {k: int(k) % 2 for k in content["instances"]}

    change(task, edit)
    assert prep() == 0
    assert read_plan(task.plan("NodeStatus")).sampling == "status"


def test_without_stations_location_is_refused_in_one_line(task, capsys):
    change(task, lambda index, content: content.pop("stations"))
    assert prep("plan_cfg.sampling=location") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "found unknown (24)" in error


def test_a_slip_of_the_pen(task, capsys):
    change(task, lambda index, content: index == 0 and content["stations"].update({"1": "illiac"}))
    assert prep() == 2
    assert "the station 'illiac' is named once; " in capsys.readouterr().err


@pytest.mark.parametrize(("label", "name"), [(0, "positive_node"), (1, "negative_node")])
def test_one_class_only(task, capsys, label, name):
    def edit(index, content):
        content["instances"] = dict.fromkeys(content["instances"], label)

    change(task, edit)
    assert prep() == 2
    assert f"no training node is a {name}" in capsys.readouterr().err


def test_positive_nodes_of_one_patient(task, capsys):
    def edit(index, content):
        content["instances"] = {k: int(index == 0 and k == "1") for k in content["instances"]}

    change(task, edit)
    assert prep("plan_cfg.sampling=status") == 2
    assert "all positive objects are of one patient" in capsys.readouterr().err


def test_few_nodes_are_warned_of(task, capsys):
    assert prep("plan_cfg.sampling=status") == 0
    assert "fewer than 10: trust the simple models" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("plan_cfg.margin_mm=5", "plan_cfg.margin_mm means nothing"),
        ("plan_cfg.spacing=[2.0,1.0,1.0]", "crops are isotropic"),
        ("plan_cfg.neighbours=1", "neighbours are of slices"),
        ("plan_cfg.flip=ab", "flip names axes"),
    ],
)
def test_options_that_make_no_sense(task, capsys, option, words):
    assert prep(option) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
