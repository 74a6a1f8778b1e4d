"""dataset.json, read strictly."""

from __future__ import annotations

import json

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.description import Role, read_description

GOOD = {
    "task": "Task100_PSMA",
    "dim": 3,
    "labels": {"0": "node", "1": "recurrence"},
    "modalities": {"0": "CT", "1": "ctv", "2": "SPECT"},
    "target_class": 1,
    "test_labels": True,
    "psma": {"tracer": "Ga"},
    "licence": "ignored",
}


def _write(folder, content):
    (folder / "dataset.json").write_text(json.dumps(content))


def test_good(tmp_path):
    _write(tmp_path, GOOD)
    description = read_description(tmp_path)
    assert description.name == description.task == "Task100_PSMA"
    assert description.labels == {0: "node", 1: "recurrence"}
    assert [description.role(i) for i in range(3)] == [Role.CT, Role.CTV, Role.OTHER]
    assert description.image_modalities == (0, 2)
    assert description.ctv_modality == 1
    assert description.target_class == 1
    assert description.test_labels is True
    assert description.psma == {"tracer": "Ga"}


def test_json_round_trip(tmp_path):
    _write(tmp_path, GOOD)
    description = read_description(tmp_path)
    _write(tmp_path, description.to_json())
    assert read_description(tmp_path) == description


@pytest.mark.parametrize("name", ["dataset.json", "dataset.yaml"])
def test_a_byte_order_mark_is_skipped(tmp_path, name):
    (tmp_path / name).write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_description(tmp_path).task == "Task100_PSMA"


def test_yaml_with_numbers_as_keys_out_of_order(tmp_path):
    text = "task: Task1_A\nname: A\ndim: 2\nlabels: {0: node}\nmodalities: {1: PET, 0: CT}\n"
    (tmp_path / "dataset.yaml").write_text(text)
    description = read_description(tmp_path)
    assert description.modalities == {0: "CT", 1: "PET"}
    assert description.image_modalities == (0, 1)
    assert description.ctv_modality is None
    assert (description.name, description.dim, description.test_labels) == ("A", 2, False)


@pytest.mark.parametrize("key", ["task", "dim", "labels", "modalities"])
def test_missing_key(tmp_path, key):
    _write(tmp_path, {name: value for name, value in GOOD.items() if name != key})
    with pytest.raises(UserError, match=f"key '{key}' is missing"):
        read_description(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": 3}, "'task' has the wrong type"),
        ({"dim": 4}, "'dim' is wrong; expected 2 or 3; found 4"),
        ({"dim": "3"}, "'dim' is wrong"),
        ({"dim": True}, "'dim' is wrong"),
        ({"labels": ["node"]}, "'labels' has the wrong type"),
        ({"labels": {}}, "'labels' has the wrong type"),
        ({"labels": {"0": 5}}, "a name in 'labels' is not a text"),
        ({"labels": {"zero": "node"}}, "a key of 'labels' is not a number"),
        ({"labels": {"1": "node"}, "target_class": None}, 'not consecutive.*expected "0"; found "1"'),
        ({"labels": {"0": "Background", "1": "node"}}, "no class for the background"),
        ({"modalities": {"0": "CT", "2": "PET"}}, "keys of 'modalities' are not consecutive"),
        ({"modalities": {"0": "CTV"}}, "no modality besides the CTV"),
        ({"modalities": {"0": "CT", "1": "CTV", "2": "ctv"}}, "several modalities are called CTV"),
        ({"modalities": {"0": "PET", "1": "pet "}}, "two modalities are called 'pet'"),
        ({"target_class": 2}, "target_class is no class"),
        ({"target_class": "node"}, "'target_class' has the wrong type"),
        ({"test_labels": "yes"}, "'test_labels' has the wrong type"),
        ({"psma": [1]}, "'psma' has the wrong type"),
    ],
)
def test_wrong_value(tmp_path, changes, message):
    _write(tmp_path, {**GOOD, **changes})
    with pytest.raises(UserError, match=message):
        read_description(tmp_path)


def test_files(tmp_path):
    with pytest.raises(UserError, match="no data set description"):
        read_description(tmp_path)
    (tmp_path / "dataset.yml").write_text("a: [")
    with pytest.raises(UserError, match="not valid YAML") as caught:
        read_description(tmp_path)
    assert "\n" not in str(caught.value)
    _write(tmp_path, GOOD)
    with pytest.raises(UserError, match=r"several.*dataset.json, dataset.yml"):
        read_description(tmp_path)
    (tmp_path / "dataset.yml").unlink()
    _write(tmp_path, [1])
    with pytest.raises(UserError, match="not a mapping"):
        read_description(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_description(tmp_path)
