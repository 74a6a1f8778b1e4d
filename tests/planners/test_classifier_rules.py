"""Rules of classifiers, by hand."""

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.planners.classifier_rules import (
    class_folds,
    crop_margin,
    crop_shape,
    crop_side,
    crop_spacing,
    refuse_lonely_stations,
    training_stage,
)


@pytest.mark.parametrize(
    ("plane", "slices", "spacing"), [(0.7, 2.0, 1.0), (1.5, 2.0, 1.5), (0.7, 7.5, 1.5), (1.0, 5.0, 1.0)]
)
def test_spacing(plane, slices, spacing):
    assert crop_spacing(plane, slices) == spacing


@pytest.mark.parametrize(
    ("extent", "spacing", "side"),
    [
        (16.0, 1.0, 48),  # 16 + 24 = 40 mm
        (24.0, 1.0, 48),  # 48 mm exactly
        (24.1, 1.0, 64),
        (2.0, 1.0, 32),  # at least 32 mm
        (200.0, 1.0, 96),  # at most 96 mm
        (16.0, 1.5, 32),  # 40 mm are 27 voxels
    ],
)
def test_side(extent, spacing, side):
    assert crop_side([extent] * 5, spacing) == (side, pytest.approx(extent))


def test_side_looks_at_99_per_cent():
    sizes = [10.0] * 199 + [90.0]
    assert crop_side(sizes, 1.0)[0] == 48


def test_the_papers_cube_holds_what_augmentation_turns():
    """48 voxels turned by 45 degrees reach 24 * sqrt(2) = 33.9 from the middle, 9.9 beyond; with 5 of shift 15: 78."""
    assert crop_shape(48, "3d", 0) == (48, 48, 48)
    assert crop_margin((48, 48, 48), 180.0, 5.0) == (5, 15, 15)
    assert crop_margin((48, 48, 48), 0.0, 2.0) == (2, 2, 2)
    assert crop_shape(48, "2d", 2) == (5, 48, 48)


def test_stage():
    """50 passes over 70 objects in batches of 32: 3 steps each."""
    stage = training_stage("member0", ["w"], 50, 70, 32, 1e-3)
    assert (stage.iterations, stage.milestones, stage.warmup, stage.voter) == (150, [105, 135], 8, True)
    assert not training_stage("blind", [], 50, 70, 32, 1e-3).voter


def test_folds_keep_patients_whole_and_spread_positives():
    positives = {f"c{k}": int(k < 4) for k in range(12)}
    patients = {case: "twin" if case in ("c0", "c1") else case for case in positives}
    folds, evidence = class_folds(positives, patients, 5, 0)
    assert len(folds) == 3  # three patients have positive objects
    assert all(sum(positives[c] for c in fold.val) > 0 for fold in folds)
    assert all(("c0" in fold.val) == ("c1" in fold.val) for fold in folds)
    assert evidence.startswith("3 patients with positive objects")


def test_positives_of_one_patient_are_refused():
    positives = {"a": 2, "b": 1, "c": 0}
    with pytest.raises(UserError, match=r"all positive objects are of one patient.*found p"):
        class_folds(positives, {"a": "p", "b": "p", "c": "c"}, 5, 0)


def test_a_station_named_once_is_refused():
    with pytest.raises(
        UserError, match=r"'illiac' is named once; .*iliac \(2\), illiac \(1\)|'illiac' is named once"
    ):
        refuse_lonely_stations(["iliac", "iliac", "illiac"])
    refuse_lonely_stations(["iliac"])  # a single node is no slip
    refuse_lonely_stations([])
