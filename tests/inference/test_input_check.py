"""New images: what the check of data sets finds in them, and how far they are from the training images."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_place import GRID, tiny_case

from nndet_psma.artifacts.dataset_summary import AxisRange
from nndet_psma.artifacts.training_images import TrainingImages
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.inference.input_check import check_files, check_volumes, refuse_warned, unlike_training

TRAINING = TrainingImages(
    AxisRange((3.0, 0.8, 0.8), (3.0, 0.9, 0.9), (4.0, 1.0, 1.0)),
    AxisRange((300.0, 350.0, 350.0), (330.0, 400.0, 400.0), (360.0, 500.0, 500.0)),
)
CT, CTV, _ = tiny_case("test_0")
SOFT = np.where(CTV > 0, 0.25, 0.0).astype(np.float32)
UPTAKE = np.linspace(0, 12, CT.size, dtype=np.float32).reshape(CT.shape)


def described(*modalities: str) -> DatasetDescription:
    return DatasetDescription("T", "T", 3, {0: "node"}, dict(enumerate(modalities)), None, False, {})


def on_disk(folder, *arrays) -> RawCase:
    for index, array in enumerate(arrays):
        write_volume(folder / f"p_{index:04d}.nii.gz", array, GRID)
    return RawCase("p", tuple(folder / f"p_{index:04d}.nii.gz" for index in range(len(arrays))))


def kinds(warnings) -> list[str]:
    return [warning.kind for warning in warnings]


def test_range_of_the_training_images():
    cases = [
        SimpleNamespace(spacing=(3.0, 1.0, 0.5), shape=(100, 10, 20)),
        SimpleNamespace(spacing=(5.0, 2.0, 0.5), shape=(40, 10, 30)),
    ]
    found = TrainingImages.of(cases)
    assert found == TrainingImages(
        AxisRange((3.0, 1.0, 0.5), (4.0, 1.5, 0.5), (5.0, 2.0, 0.5)),
        AxisRange((200.0, 10.0, 10.0), (250.0, 15.0, 12.5), (300.0, 20.0, 15.0)),
    )
    assert TrainingImages.of([]) is None
    with pytest.raises(ValueError, match="extent_mm must be positive"):
        TrainingImages(found.spacing_mm, replace(found.extent_mm, minimum=(200.0, 21.0, 10.0)))


@pytest.mark.parametrize(
    ("shape", "spacing", "found"),
    [
        ((100, 400, 400), (3.0, 1.0, 1.0), []),
        ((60, 400, 400), (6.0, 1.0, 1.0), []),  # 1.5 times the thickest slices
        ((59, 400, 400), (6.1, 1.0, 1.0), [("spacing unlike training", "6.1 mm")]),
        ((200, 400, 400), (1.9, 1.0, 1.0), [("spacing unlike training", "1.9 mm")]),
        ((100, 300, 800), (3.0, 1.6, 0.5), [("spacing unlike training", "1.6 mm, 0.5 mm")]),
        ((181, 400, 400), (3.0, 1.0, 1.0), [("extent unlike training", "543 mm")]),
        ((100, 400, 230), (3.0, 1.0, 1.0), [("extent unlike training", "230 mm")]),
    ],
)
def test_far_from_the_training_images(shape, spacing, found):
    warnings = list(unlike_training(Geometry(shape, spacing), TRAINING, "p_0000.nii.gz"))
    assert [(warning.kind, warning.found) for warning in warnings] == found


def test_what_is_expected_is_the_range_of_the_axis():
    (warning,) = unlike_training(Geometry((59, 400, 400), (6.1, 1.0, 1.0)), TRAINING, "p_0000.nii.gz")
    assert str(warning.to_error()) == (
        "p_0000.nii.gz: the spacing along z is far from that of the training images; expected 3 to 4 mm; "
        "found 6.1 mm. Check the header; the model has seen no such images."
    )


PADDED = np.pad(CT[:, 2:-2, 2:-2] + 1024, ((0, 0), (2, 2), (2, 2)), constant_values=-2000 + 1024)

IMAGES = {
    "good": ((CT, CTV), []),
    "shifted": ((CT + 1100, CTV), ["CT without intercept"]),
    "shifted with its padding": ((PADDED, CTV), ["CT not in HU"]),
    "wrapped to 16 bits": ((CT.view(np.uint16), CTV), ["CT wrapped around"]),
    "wrapped to 12 bits": ((CT % 4096, CTV), ["CT wrapped around"]),
    "soft": ((CT, SOFT), ["mask not binary"]),
    "Bq/ml": ((CT, UPTAKE * 3000, CTV), ["PET not SUV"]),
    "SUV": ((CT, UPTAKE, CTV), []),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_checked_as_those_of_a_data_set(name, tmp_path):
    arrays, found = IMAGES[name]
    names = ("CT", "CTV") if len(arrays) == 2 else ("CT", "PET", "CTV")
    warnings = check_files(on_disk(tmp_path, *arrays), described(*names), None)
    assert kinds(warnings) == found
    assert all("/" not in str(warning.file) for warning in warnings)  # results are passed on


@pytest.mark.parametrize("name", IMAGES)
def test_images_in_memory_are_checked_alike(name, trained):
    arrays, found = IMAGES[name]
    names = ("CT", "CTV") if len(arrays) == 2 else ("CT", "PET", "CTV")
    modalities = {str(index): each for index, each in enumerate(names)}
    plan = replace(trained.plan, modalities=modalities, ctv_modality=len(names) - 1, training_images=None)
    flipped = Geometry(GRID.shape, GRID.spacing, GRID.origin, (1, 0, 0, 0, -1, 0, 0, 0, 1))
    volumes = {each: Volume(array, flipped) for each, array in zip(names, arrays, strict=True)}
    ctv = volumes.pop("CTV")
    assert kinds(check_volumes("p", volumes, ctv, plan)) == found


def test_both_are_compared_with_the_training_images(trained, tmp_path):
    """Those of the tiny task are 10 x 4 by 40 x 2 by 48 x 2 mm, all alike."""
    plan = trained.plan
    same = AxisRange((40.0, 80.0, 96.0), (40.0, 80.0, 96.0), (40.0, 80.0, 96.0))
    assert plan.training_images is not None
    assert plan.training_images.extent_mm == same
    assert plan.training_images.spacing_mm.median == (4.0, 2.0, 2.0)
    thick = Geometry(GRID.shape, (7.0, 2.0, 2.0), GRID.origin)
    for index, array in enumerate((CT, CTV)):
        write_volume(tmp_path / f"p_{index:04d}.nii.gz", array, thick)
    case = RawCase("p", tuple(tmp_path / f"p_{index:04d}.nii.gz" for index in (0, 1)))
    by_file = check_files(case, described("CT", "CTV"), plan.training_images)
    by_array = check_volumes("p", {"CT": Volume(CT, thick)}, Volume(CTV, thick), plan)
    assert kinds(by_file) == kinds(by_array) == ["spacing unlike training", "extent unlike training"]


def test_an_unused_ctv_is_not_judged(tmp_path):
    assert check_files(on_disk(tmp_path, CT, SOFT), described("CT"), None) == []


def test_an_empty_or_outer_region_in_memory_is_told(trained):
    outside = np.zeros_like(CTV)
    outside[:, :3, :3] = 1
    for mask, kind in ((np.zeros_like(CTV), "empty CTV"), (outside, "CTV outside the body")):
        found = check_volumes("p", {"CT": Volume(CT, GRID)}, Volume(mask, GRID), trained.plan)
        assert kinds(found) == [kind]


def test_strict_names_the_first_and_counts_the_others(tmp_path):
    refuse_warned("p", [])
    warnings = check_files(on_disk(tmp_path, CT + 1100, SOFT), described("CT", "CTV"), None)
    with pytest.raises(UserError, match=r"case p was refused: this CT starts at 0.* and 1 more; expected HU"):
        refuse_warned("p", warnings)


def test_the_plan_keeps_its_hash(trained):
    """Plans of older releases lack the training images; models trained with them stay valid."""
    plan = trained.plan
    content = {key: value for key, value in plan.to_json().items() if key not in ("schema", "version")}
    del content["training_images"]
    older = type(plan).parse(content, "older plan")
    assert older.training_images is None
    assert older.content_hash() == plan.content_hash()
    assert replace(older, batch_size=plan.batch_size + 1).content_hash() != plan.content_hash()
