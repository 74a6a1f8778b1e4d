"""nnDetection's toy task: cubes, solid or with a hole."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.phantom.squares import SquaresOptions, draw_squares, object_mask, plan_square
from nndet_psma.dataset.phantom.task import generate_task


def test_mask_of_a_hole_by_hand():
    mask = object_mask((20, 20, 20), [2, 3, 4], 10, hole=True)
    # 10 slices of 10 x 10 without the inner 2 x 2
    assert mask.sum() == 10 * (100 - 4)
    assert mask[2:12].sum() == mask.sum()
    assert not mask[:, 7:9, 8:10].any()
    assert mask[2, 3:13, 4:8].all()
    assert object_mask((20, 20, 20), [2, 3, 4], 10, hole=False).sum() == 1000


@given(st.integers(0, 50), st.integers(0, 30), st.sampled_from([(32, 40, 64), (33, 32, 32)]))
def test_one_object_of_the_stated_class(seed, index, size):
    case = draw_squares(plan_square(seed, "train", index), SquaresOptions(size))
    extent = [len(np.unique(axis)) for axis in np.nonzero(case.labels)]
    assert extent[0] == extent[1] == extent[2]
    assert 16 <= extent[0] < 32
    solid = case.labels.sum() == extent[0] ** 3
    assert case.classes == {1: 0 if solid else 1}
    image = case.images[0]
    assert image.shape == size
    assert image.min() >= 0
    assert image.max() <= 1
    # uniform noise has the mean 0.5; +0.4 clipped at 1 has 0.9 - 0.4²/2 = 0.82
    assert image[case.labels == 0].mean() == pytest.approx(0.5, abs=0.02)
    assert image[case.labels == 1].mean() == pytest.approx(0.82, abs=0.03)


def test_both_classes_occur_and_cases_differ():
    cases = [draw_squares(plan_square(0, "train", k), SquaresOptions((32, 32, 32))) for k in range(12)]
    assert {case.classes[1] for case in cases} == {0, 1}
    assert len({case.images[0].tobytes() for case in cases}) == 12


def test_too_small_for_an_object():
    with pytest.raises(UserError, match=r"too small for an object; expected at least 32.*--image_size"):
        SquaresOptions((64, 31, 64))


def test_task_on_disk(tmp_path):
    folder = tmp_path / "Task000_Example"
    request = {"kind": "squares", "seed": 0, "options": SquaresOptions((32, 40, 48))}
    generate_task(folder, cases=2, test_cases=1, **request)
    assert json.loads((folder / "dataset.json").read_text()) == {
        "task": "Task000_Example",
        "name": "Example",
        "dim": 3,
        "target_class": None,
        "test_labels": True,
        "labels": {"0": "Square", "1": "SquareHole"},
        "modalities": {"0": "MRI"},
    }
    names = {f.name for f in (folder / "raw_splitted").rglob("*") if f.is_file()}
    stems = ("case_000", "case_001", "case_test_000")
    assert names == {f"{s}{end}" for s in stems for end in ("_0000.nii.gz", ".nii.gz", ".json")}
    assert not (folder / "clinical.csv").exists()
    image = sitk.ReadImage(str(folder / "raw_splitted/imagesTr/case_001_0000.nii.gz"))
    assert image.GetSize() == (48, 40, 32)
    stated = json.loads((folder / "raw_splitted/labelsTr/case_001.json").read_text())
    assert stated == {
        "instances": {"1": draw_squares(plan_square(0, "train", 1), request["options"]).classes[1]}
    }
    generate_task(folder, cases=1, test_cases=0, **request)
    assert len(list((folder / "raw_splitted").rglob("*.nii.gz"))) == 2
