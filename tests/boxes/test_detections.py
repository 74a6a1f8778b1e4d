"""The container keeps its columns together."""

from __future__ import annotations

import numpy as np
import pytest

from nndet_psma.boxes.detections import Detections


@pytest.fixture
def three():
    boxes = [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]
    return Detections.build(boxes, [0.2, 0.9, 0.2], [1, 0, 2], slice=[5, 6, 7])


def test_build_types_and_defaults():
    found = Detections.build([[0, 0, 0, 1, 1, 1]], 0.5)
    assert found.boxes.dtype == found.scores.dtype == np.float64
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0]
    assert found.dim == 3


@pytest.mark.parametrize("dim", [2, 3])
def test_no_boxes_have_a_dimension(dim):
    assert Detections.build([], [], dim=dim).boxes.shape == (0, 2 * dim)
    assert Detections.empty(dim).dim == dim


def test_empty_keeps_column_types():
    found = Detections.empty(2, {"slice": np.zeros(3, dtype=np.int16), "votes": np.zeros((3, 4))})
    assert found.columns["slice"].dtype == np.int16
    assert found.columns["votes"].shape == (0, 4)


@pytest.mark.parametrize(("field", "value"), [("scores", [0.5, 0.5]), ("labels", [0, 0])])
def test_other_lengths_are_refused(field, value):
    columns = {"scores": [0.5], "labels": [0]} | {field: value}
    with pytest.raises(ValueError, match=rf"1 boxes, but columns of other lengths: {{'{field}': 2}}"):
        Detections.build([[0, 0, 1, 1]], **columns)


def test_further_column_of_other_length_is_refused():
    with pytest.raises(ValueError, match="'slice': 2"):
        Detections.build([[0, 0, 1, 1]], [0.5], slice=[1, 2])


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4)])
def test_other_box_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, 4\] or \[N, 6\]"):
        Detections(np.zeros(shape), np.zeros(shape[0]), np.zeros(shape[0], dtype=np.int64))


def test_select_by_mask_and_by_order(three):
    assert three.select(np.array([True, False, True])).columns["slice"].tolist() == [5, 7]
    turned = three.select(np.array([2, 0]))
    assert turned.labels.tolist() == [2, 1]
    assert turned.boxes[:, 2].tolist() == [3, 1]


def test_sorting_is_stable(three):
    found = three.sorted_by_score()
    assert found.labels.tolist() == [0, 1, 2]
    assert found.columns["slice"].tolist() == [6, 5, 7]


def test_concatenate(three):
    both = Detections.concatenate([three, Detections.empty(2, three.columns), three])
    assert len(both) == 6
    assert both.columns["slice"].tolist() == [5, 6, 7, 5, 6, 7]
    assert len(Detections.concatenate([], dim=2)) == 0


def test_concatenate_refuses_different_columns(three):
    with pytest.raises(ValueError, match="different columns"):
        Detections.concatenate([three, Detections.empty(2)])


def test_with_columns_replaces_and_leaves_the_original(three):
    changed = three.with_columns(slice=[0, 0, 0], voter=[1, 1, 1])
    assert sorted(changed.columns) == ["slice", "voter"]
    assert three.columns["slice"].tolist() == [5, 6, 7]
    assert len(changed) == 3
