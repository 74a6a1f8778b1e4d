"""Reading, writing and resampling volumes."""

from __future__ import annotations

import os
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from nndet_psma.boxes.box import boxes_from_instances
from nndet_psma.boxes.geometry import Geometry, map_boxes
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import (
    Volume,
    canonical_geometry,
    original_geometry,
    read_geometry,
    read_volume,
    resample_volume,
    write_volume,
)

ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
]


def _direction(order, signs, tilt_degrees=0.0):
    """Column c of the identity is patient axis order[c], with its sign; all turned round the z axis."""
    matrix = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[row, column] = sign
    angle = np.deg2rad(tilt_degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return tuple(float(value) for value in (turn @ matrix).ravel())


def _geometry(order, signs, tilt=0.0):
    return Geometry((3, 4, 5), (2.5, 1.0, 0.75), (10.0, -20.0, 30.0), _direction(order, signs, tilt))


@pytest.mark.parametrize("tilt", [0.0, 12.0])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_canonical_reading_equals_itk_and_boxes_come_back(tmp_path, order, signs, tilt):
    geometry = _geometry(order, signs, tilt)
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    file = tmp_path / "a.mha"
    write_volume(file, array, geometry)

    oriented = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
    volume = read_volume(file)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(oriented))
    assert volume.geometry.spacing == pytest.approx(oriented.GetSpacing()[::-1])
    assert volume.geometry.origin == pytest.approx(oriented.GetOrigin())
    assert volume.geometry.direction == pytest.approx(oriented.GetDirection())
    assert read_geometry(file).same_grid(volume.geometry, 1e-6)

    # the box of voxel (z 1, y 2, x 3) of the file, value 1*20 + 2*5 + 3 = 33
    _, box = boxes_from_instances((volume.array == 33).astype(int))
    back = map_boxes(box, volume.geometry, original_geometry(file))
    np.testing.assert_allclose(back, [[1, 2, 3, 2, 3, 4]], atol=1e-9)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
def test_the_same_patient_gives_the_same_array_however_stored(tmp_path, order, signs):
    straight = Geometry((3, 4, 5), (2.5, 1.0, 0.75), (10.0, -20.0, 30.0))
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(straight.spacing[::-1])
    image.SetOrigin(straight.origin)
    stored = sitk.PermuteAxes(image, order)
    stored = sitk.Flip(stored, [sign < 0 for sign in signs])
    sitk.WriteImage(stored, str(tmp_path / "a.nii.gz"))
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.geometry.same_grid(straight, 1e-4)


def test_raw_reading_keeps_the_order_of_the_file(tmp_path):
    geometry = _geometry((2, 0, 1), (1.0, -1.0, 1.0))
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    write_volume(tmp_path / "a.mha", array, geometry)
    volume = read_volume(tmp_path / "a.mha", canonical=False)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.geometry.same_grid(geometry, 1e-9)
    assert volume.array.dtype == np.int16


def test_canonical_geometry_of_a_flip_by_hand():
    # x runs to the right (-1) from 10 mm in steps of 0.75: its fifth voxel, at 10 - 3 = 7 mm, comes first
    geometry = Geometry((3, 4, 5), (2.5, 1.0, 0.75), (10.0, 0.0, 0.0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    expected = Geometry((3, 4, 5), (2.5, 1.0, 0.75), (7.0, 0.0, 0.0))
    assert canonical_geometry(geometry) == expected
    assert canonical_geometry(expected) == expected


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_truncated_file(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    write_volume(file, np.random.default_rng(0).integers(0, 999, (6, 8, 8)), Geometry((6, 8, 8), (1, 1, 1)))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * 0.8)])
    with pytest.raises(UserError, match=r"truncated|cannot be read") as caught:
        read_volume(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_not_an_image(tmp_path):
    (tmp_path / "a.nii.gz").write_text("<html>404</html>")
    with pytest.raises(UserError, match="not an image"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match="does not exist"):
        read_volume(tmp_path / "b.nii.gz")


def test_four_axes_only_when_the_fourth_is_trivial(tmp_path):
    sitk.WriteImage(sitk.Image([5, 4, 3, 2], sitk.sitkInt16), str(tmp_path / "a.mha"))
    with pytest.raises(UserError, match="not 3D; expected 3 axes; found 4 axes"):
        read_volume(tmp_path / "a.mha")
    sitk.WriteImage(sitk.Image([5, 4, 3, 1], sitk.sitkInt16), str(tmp_path / "b.mha"))
    assert read_volume(tmp_path / "b.mha").array.shape == (3, 4, 5)


def test_a_plane_is_one_slice(tmp_path):
    sitk.WriteImage(sitk.Image([5, 4], sitk.sitkInt16), str(tmp_path / "a.mha"))
    assert read_volume(tmp_path / "a.mha").array.shape == (1, 4, 5)


def test_colour_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image([5, 4, 3], sitk.sitkVectorUInt8, 3), str(tmp_path / "a.mha"))
    with pytest.raises(UserError, match="several values per voxel"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha"])
def test_nan_and_infinity(tmp_path, value, suffix):
    array = np.zeros((3, 4, 5), dtype=np.float32)
    array[0, 0, :2] = value
    write_volume(tmp_path / f"a{suffix}", array, Geometry((3, 4, 5), (1, 1, 1)))
    with pytest.raises(UserError, match="NaN or infinite; found 2 such voxels"):
        read_volume(tmp_path / f"a{suffix}")


def test_sheared_axes(tmp_path):
    header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\n"
    header += "TransformMatrix = 1 0 0 0.3 0.95 0 0 0 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + bytes(8))
    with pytest.raises(UserError, match="right angles"):
        read_volume(tmp_path / "a.mha")


def test_nearest_resampling_keeps_ids_and_fills():
    volume = Volume(np.array([[[1, 2]]], dtype=np.int32), Geometry((1, 1, 2), (1, 1, 1)))
    # twice as fine along x and one voxel beyond the image: 1 1 2 2 and fill
    target = Geometry((1, 1, 5), (1, 1, 0.5), (-0.25, 0.0, 0.0))
    resampled = resample_volume(volume, target, order=0, fill=0)
    assert resampled.array.dtype == np.int32
    np.testing.assert_array_equal(resampled.array, [[[1, 1, 2, 2, 0]]])


@pytest.mark.parametrize("order", [1, 3])
def test_resampling_a_ramp_is_exact(order):
    ramp = np.broadcast_to(np.arange(20.0) * 10, (9, 9, 20)).copy()
    volume = Volume(ramp, Geometry((9, 9, 20), (1, 1, 1)))
    # centres at x = 9.5 and 10.5 of the ramp; a cubic spline of a straight line is the line, away from the border
    resampled = resample_volume(volume, Geometry((1, 1, 2), (1, 1, 1), (9.5, 4.0, 4.0)), order=order, fill=-1)
    np.testing.assert_allclose(resampled.array, [[[95.0, 105.0]]], atol=1e-2)


def test_resampling_knows_only_three_orders():
    volume = Volume(np.zeros((2, 2, 2)), Geometry((2, 2, 2), (1, 1, 1)))
    with pytest.raises(ValueError, match="0, 1 or 3"):
        resample_volume(volume, volume.geometry, order=2, fill=0)


def test_a_mask_of_truth_values_survives_writing_and_resampling(tmp_path):
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[1, 1, 1] = True
    geometry = Geometry((3, 4, 5), (1, 1, 1))
    write_volume(tmp_path / "a.nii.gz", mask, geometry)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, mask)
    assert resample_volume(Volume(mask, geometry), geometry, order=0, fill=0).array.dtype == np.bool_


def test_array_and_grid_must_fit():
    with pytest.raises(ValueError, match="does not fit"):
        Volume(np.zeros((2, 2, 2)), Geometry((2, 2, 3), (1, 1, 1)))


@pytest.mark.parametrize(("dtype", "stored"), [("f2", "f4"), (">i2", "i2"), ("u2", "u2"), ("f8", "f8")])
def test_types_that_itk_does_not_know_are_converted(tmp_path, dtype, stored):
    array = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    write_volume(tmp_path / "a.nii.gz", array, Geometry((3, 4, 5), (1, 1, 1)))
    back = read_volume(tmp_path / "a.nii.gz").array
    assert back.dtype == np.dtype(stored)
    np.testing.assert_array_equal(back, array)


def test_nifti_is_unpacked_once_and_not_by_itk(tmp_path, monkeypatch):
    array = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    write_volume(tmp_path / "a.nii.gz", array, Geometry((3, 4, 5), (1, 1, 1)))
    monkeypatch.setattr(sitk, "ReadImage", lambda *_: pytest.fail("unpacked by ITK"))
    back = read_volume(tmp_path / "a.nii.gz").array
    np.testing.assert_array_equal(back, array)
    back[0, 0, 0] = 7  # the reader's own, free to write on


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(0.0, 0.0), (1.0, 0.0), (1.0, -1024.0), (0.5, 3.0)])
def test_values_and_types_are_those_of_itk(tmp_path, dtype, slope, intercept):
    file = tmp_path / "a.nii"
    array = np.arange(60, dtype=dtype).reshape(3, 4, 5)
    write_volume(file, array, Geometry((3, 4, 5), (2.5, 1.0, 0.75), (1.0, 2.0, 3.0)))
    content = bytearray(file.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()  # scl_slope, scl_inter of NIfTI-1
    file.write_bytes(content)
    found = read_volume(file)
    peer = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
    expected = sitk.GetArrayFromImage(peer)
    assert found.array.dtype == expected.dtype
    np.testing.assert_allclose(found.array, expected, rtol=1e-6)
    assert found.geometry.origin == pytest.approx(peer.GetOrigin())


def test_a_wrong_checksum_is_damage_in_integers_too(tmp_path):
    file = tmp_path / "a.nii.gz"
    array = (
        np.random.default_rng(0).integers(-999, 999, (20, 60, 60)).astype(np.int16)
    )  # ITK reads ahead in small ones
    write_volume(file, array, Geometry(array.shape, (1, 1, 1)))
    content = bytearray(file.read_bytes())
    content[-8] ^= 0xFF  # gzip ends with four bytes of checksum and four of length
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged.*checksum"):
        read_volume(file)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_names_that_are_not_utf8_end_in_an_error(tmp_path, suffix):
    """SimpleITK would abort the process."""
    geometry = Geometry((3, 4, 5), (1.0, 1.0, 1.0))
    write_volume(tmp_path / f"a{suffix}", np.zeros((3, 4, 5), np.int16), geometry)
    file = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    (tmp_path / f"a{suffix}").rename(file)
    for call in (read_geometry, read_volume, lambda f: write_volume(f, np.zeros((3, 4, 5)), geometry)):
        with pytest.raises(UserError, match="the name is not UTF-8"):
            call(file)
