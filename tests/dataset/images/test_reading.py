"""Reading without ITK gives what ITK gives, and says what ITK hides."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.content_digest import content_digest
from nndet_psma.dataset.images.images import itk_agrees, read_volume, write_volume
from nndet_psma.dataset.images.nifti_header import parse_header
from nndet_psma.dataset.task.instances import value_counts

TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
GRID = Geometry((5, 6, 7), (3.0, 1.0, 1.5), (10.0, -20.0, 30.0))


def _same(file):
    """Values, type and grid are those that ITK reads and turns to LPS."""
    image = sitk.ReadImage(str(file))
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    image = sitk.DICOMOrient(image, "LPS")
    ours, itks = read_volume(file), sitk.GetArrayFromImage(image)
    assert ours.array.dtype == itks.dtype
    np.testing.assert_array_equal(ours.array, itks)
    np.testing.assert_allclose(ours.geometry.spacing, image.GetSpacing()[::-1], rtol=1e-6)
    np.testing.assert_allclose(ours.geometry.origin, image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(ours.geometry.direction, image.GetDirection(), atol=1e-6)


def _array(dtype="int16", shape=GRID.shape):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha"])
def test_types(tmp_path, dtype, suffix):
    write_volume(tmp_path / f"a{suffix}", _array(dtype), GRID)
    _same(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (False, True, True)])
def test_axis_orders(tmp_path, axes, flips):
    image = sitk.GetImageFromArray(_array())
    image.SetSpacing((1.5, 1.0, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(image, axes), flips), str(tmp_path / "a.nii.gz"))
    _same(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("degrees", [3.0, 44.0, 100.0])
def test_oblique(tmp_path, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    grid = Geometry(GRID.shape, GRID.spacing, GRID.origin, (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))
    write_volume(tmp_path / "a.nii.gz", _array(), grid)
    _same(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("scale", [(2.0, 5.0), (1.0, -1024.0), (float("nan"), 0.0), (0.1, 0.0)])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_slope_and_intercept(tmp_path, scale, dtype):
    file = tmp_path / "a.nii"
    write_volume(file, _array(dtype), GRID)
    content = bytearray(file.read_bytes())
    struct.pack_into("<2f", content, 112, *scale)
    file.write_bytes(bytes(content))
    ours, itks = read_volume(file).array, sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    assert ours.dtype == itks.dtype
    np.testing.assert_allclose(ours, itks, rtol=1e-6)


@pytest.mark.parametrize("slope", [0.0, float("nan")])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_without_slope_there_is_no_intercept_either(tmp_path, dtype, slope):
    """The standard, and nibabel: scl_slope 0 means no scaling at all; ITK adds the intercept all the same."""
    file = tmp_path / "a.nii"
    write_volume(file, _array(dtype), GRID)
    assert itk_agrees(file)
    content = bytearray(file.read_bytes())
    struct.pack_into("<2f", content, 112, slope, -1024.0)
    file.write_bytes(bytes(content))
    ours = read_volume(file, canonical=False).array
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, _array(dtype))
    np.testing.assert_array_equal(ours, np.asarray(nib.load(file).dataobj).T)
    assert not itk_agrees(file)


def test_big_endian_and_a_trailing_axis(tmp_path):
    file = tmp_path / "a.nii"
    write_volume(file, _array(), GRID)
    little = file.read_bytes()
    content = bytearray(little)
    for position, count, kind in [(0, 1, "i"), (40, 8, "h"), (70, 2, "h"), (76, 8, "f"), (108, 3, "f")]:
        struct.pack_into(
            f">{count}{kind}", content, position, *struct.unpack_from(f"<{count}{kind}", little, position)
        )
    for position, count, kind in [(252, 2, "h"), (256, 18, "f")]:
        struct.pack_into(
            f">{count}{kind}", content, position, *struct.unpack_from(f"<{count}{kind}", little, position)
        )
    content[123] = 2  # units: mm
    content[352:] = np.frombuffer(little[352:], "<i2").astype(">i2").tobytes()
    file.write_bytes(bytes(content))
    _same(file)
    file.write_bytes(little)
    content = bytearray(little)
    struct.pack_into("<8h", content, 40, 4, 7, 6, 5, 1, 1, 1, 1)
    file.write_bytes(bytes(content))
    _same(file)


def test_a_spacing_of_zero_is_not_taken_for_one(tmp_path):
    file = tmp_path / "a.nii"
    write_volume(file, _array(), GRID)
    content = bytearray(file.read_bytes())
    struct.pack_into("<f", content, 80, 0.0)
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"spacing is not positive; found .*0\.0"):
        read_volume(file)


def test_qform_by_hand():
    """A rotation of 90 degrees about z is the quaternion (cos 45, 0, 0, sin 45): x goes to y, y to -x."""
    header = bytearray(540)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 7, 6, 5, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1.0, 2.0, 3.0, 4.0, 0, 0, 0, 0)
    struct.pack_into("<2h", header, 252, 1, 0)
    struct.pack_into("<6f", header, 256, 0.0, 0.0, np.sin(np.pi / 4), 10.0, 20.0, 30.0)
    qform, sform = parse_header(bytes(header)).affines
    assert sform is None
    expected = [[0, -3, 0, 10], [2, 0, 0, 20], [0, 0, 4, 30]]
    np.testing.assert_allclose(qform, expected, atol=1e-6)
    struct.pack_into("<f", header, 76, 0.0)  # pixdim[0] of many programs: as 1
    np.testing.assert_allclose(parse_header(bytes(header)).affines[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("code", "is_complex"), [(32, True), (1792, True), (2048, True), (128, False), (99, False)]
)
def test_types_that_are_not_decoded(code, is_complex):
    header = bytearray(540)
    struct.pack_into("<i", header, 0, 540)
    struct.pack_into("<2h", header, 12, code, 64)
    parsed = parse_header(bytes(header))
    assert (parsed.dtype, parsed.is_complex) == (None, is_complex)


def test_nan_is_told_from_infinity(tmp_path):
    array = _array("float32")
    array[1, 2, 3] = np.inf
    write_volume(tmp_path / "a.nii.gz", array, GRID)
    with pytest.raises(UserError, match="1 such voxels") as caught:
        read_volume(tmp_path / "a.nii.gz")
    assert caught.value.kind == "infinite voxels"
    array[0, 0, :2] = np.nan
    write_volume(tmp_path / "a.nii.gz", array, GRID)
    with pytest.raises(UserError, match="3 such voxels") as caught:
        read_volume(tmp_path / "a.nii.gz")
    assert caught.value.kind == "NaN voxels"


def test_several_gzip_members_and_padding(tmp_path):
    write_volume(tmp_path / "a.nii", _array(), GRID)
    content = (tmp_path / "a.nii").read_bytes()
    file = tmp_path / "b.nii.gz"
    file.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]) + bytes(64))
    np.testing.assert_array_equal(read_volume(file).array, _array())


def test_memory_is_one_volume(tmp_path):
    """16 MB of int16 in 100 slices: the array, blocks of 1 MB, and no second copy."""
    shape = (100, 256, 320)
    write_volume(tmp_path / "a.nii.gz", np.zeros(shape, np.int16), Geometry(shape, (1.0, 1.0, 1.0)))
    read_volume(tmp_path / "a.nii.gz")
    tracemalloc.start()
    array = read_volume(tmp_path / "a.nii.gz").array
    content_digest(array)
    value_counts(array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * array.nbytes


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(
        st.sampled_from(["int8", "uint8", "int16", "uint32", "int64", "float32", "bool"]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_counts_are_those_of_numpy(array):
    values, counts = value_counts(array)
    expected, numbers = np.unique(array, return_counts=True)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(counts, numbers)


def test_digest_sees_values_not_types():
    array = _array("int16")
    digest = content_digest(array)
    for dtype in ("uint8", "int32", "float32", "float64"):
        assert content_digest(array.astype(dtype)) == digest
    assert content_digest(array + 1) != digest
    assert content_digest(array.reshape(5, 7, 6)) != digest
    fractions = array.astype(np.float32) + 0.5
    assert content_digest(fractions) == content_digest(fractions.astype(np.float64)) != digest
    assert content_digest(array.astype(np.float32) + 1e6) != digest  # beyond 16 bits
