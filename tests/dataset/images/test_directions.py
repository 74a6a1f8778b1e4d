"""Axes that rounding has brought off right angles, and axes that are sheared."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import SimpleITK as sitk

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import itk_agrees, read_geometry, read_volume, write_volume

GRID = Geometry((5, 6, 7), (2.0, 1.0, 1.0), (10.0, -20.0, 30.0))


def _nifti(file, shear, units=2):
    """An sform alone, whose first row (RAS) is -1, shear, 0: x and y axis off right angles by so many radians."""
    write_volume(file, np.arange(210, dtype=np.int16).reshape(GRID.shape), GRID)
    content = bytearray(file.read_bytes())
    content[123] = units
    struct.pack_into("<2h", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, -1, shear, 0, -10, 0, -1, 0, 20, 0, 0, 2, 30)
    file.write_bytes(content)
    return file


def test_rounded_axes_are_made_orthonormal_and_told(tmp_path, caplog):
    """0.001 rad is 0.057 degrees. The nearest turns both axes by half of it, against each other."""
    file = _nifti(tmp_path / "a.nii", 1e-3)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(file))
    volume = read_volume(file)
    half = 5e-4
    expected = [1, -half, 0, half, 1, 0, 0, 0, 1]
    np.testing.assert_allclose(volume.geometry.direction, expected, atol=1e-6)
    matrix = np.reshape(volume.geometry.direction, (3, 3))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(volume.geometry.spacing, (2, 1, 1), atol=1e-6)
    assert volume.geometry.origin == GRID.origin
    np.testing.assert_array_equal(volume.array, np.arange(210).reshape(GRID.shape))
    read_geometry(file)
    assert len(caplog.records) == 1
    assert f"{file}: the axes are not quite at right angles: [[1.0, -0.001, 0.0]" in caplog.text
    assert "taken as [[1.0, -0.0005, 0.0], [0.0005, 1.0, 0.0]" in caplog.text
    assert not itk_agrees(file)


def test_exact_axes_are_as_itk_reads_them(tmp_path, caplog):
    file = _nifti(tmp_path / "a.nii", 5e-5)
    assert read_geometry(file).direction == pytest.approx(sitk.ReadImage(str(file)).GetDirection())
    assert itk_agrees(file)
    assert not caplog.text


@pytest.mark.parametrize(
    ("shear", "found"),
    [(2e-3, r"0\.11 degrees: \[\[1\.0, -0\.002"), (0.3, r"17 degrees: \[\[1\.0, -0\.2873")],
)
def test_sheared_axes_are_refused(tmp_path, shear, found):
    """Of a column (-0.3, 1) the first entry is -0.2873 of its length, the sine of 16.7 degrees."""
    with pytest.raises(UserError, match=f"not at right angles.*at most 0.1 degrees.*found {found}.*Resample"):
        read_geometry(_nifti(tmp_path / "a.nii", shear))


def test_in_another_unit_nothing_is_guessed(tmp_path):
    with pytest.raises(UserError, match=r"not at right angles.*Resample"):
        read_geometry(_nifti(tmp_path / "a.nii", 1e-3, units=3))


def test_other_formats_alike(tmp_path, caplog):
    header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\n"
    header += "TransformMatrix = 1 0 0 0.001 1 0 0 0 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(header.encode() + bytes(8))
    expected = [1, 5e-4, 0, -5e-4, 1, 0, 0, 0, 1]
    np.testing.assert_allclose(
        np.abs(read_geometry(tmp_path / "a.mha").direction), np.abs(expected), atol=1e-6
    )
    assert "not quite at right angles" in caplog.text
