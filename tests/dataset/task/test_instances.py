"""Instance masks and their classes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.instances import read_instances, read_labels


def _labels(task):
    description = read_description(task.paths.root)
    return read_labels(list_cases(task.paths, description)[0], description)


def test_labels(raw_task):
    volume, classes = _labels(raw_task)
    assert classes == {1: 0, 2: 0}
    assert volume.array.dtype == np.uint8
    assert (volume.array == 1).sum() == 1
    assert (volume.array == 2).sum() == 8


def test_a_case_without_lesions(raw_task, tiny_geometry):
    write_volume(raw_task.label("case_a"), np.zeros(tiny_geometry.shape, np.uint8), tiny_geometry)
    raw_task.table("case_a").write_text('{"instances": {}}')
    assert _labels(raw_task)[1] == {}


def test_whole_numbers_stored_as_floats_are_ids(raw_task, tiny_geometry):
    mask = np.zeros(tiny_geometry.shape, np.float32)
    mask[0, 0, 0], mask[1, 1, 1] = 1, 2
    write_volume(raw_task.label("case_a"), mask, tiny_geometry)
    assert _labels(raw_task)[0].array.max() == 2


def test_order_of_ids_is_numeric(tmp_path):
    (tmp_path / "a.json").write_text('{"instances": {"10": 1, "2": 0}}')
    assert list(read_instances(tmp_path / "a.json").items()) == [(2, 0), (10, 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no mapping 'instances'"),
        ([], "no mapping 'instances'"),
        ({"instances": [0]}, "no mapping 'instances'"),
        ({"instances": {"a": 0}}, "instance id is no number from 1.*found 'a'"),
        ({"instances": {"0": 0}}, "instance id is no number from 1"),
        ({"instances": {"1": "0"}}, "class of instance 1 is no number"),
        ({"instances": {"1": True}}, "class of instance 1 is no number"),
        ({"instances": {"1": -1}}, "class of instance 1 is no number"),
        ({"instances": {"1": 0, "2": 1}}, "instance 2 has a class.*expected 0 to 0; found 1"),
        ({"instances": {"1": 0, "3": 0}}, r"disagree.*ids 2 only in the mask; ids 3 only in case_a.json"),
    ],
)
def test_bad_json(raw_task, content, message):
    raw_task.table("case_a").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        _labels(raw_task)


@pytest.mark.parametrize(("value", "listed"), [(0.5, "0.5"), (-1.0, "-1")])
def test_bad_mask(raw_task, tiny_geometry, value, listed):
    mask = np.zeros(tiny_geometry.shape, np.float32)
    mask[0, 0, 0] = value
    write_volume(raw_task.label("case_a"), mask, tiny_geometry)
    with pytest.raises(UserError, match=f"no instance ids.*found {listed}"):
        _labels(raw_task)


def test_case_without_labels(raw_task):
    description = read_description(raw_task.paths.root)
    with pytest.raises(UserError, match="case x has no labels"):
        read_labels(RawCase("x", (raw_task.image("case_a"),)), description)
