"""Files that are damaged, cut, or never were written whole: ITK reads and writes them without a word."""

from __future__ import annotations

import re
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import SimpleITK as sitk

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.images.whole import check_whole

ARRAY = np.random.default_rng(0).integers(0, 100, (20, 40, 50)).astype(np.int16)
GRID = Geometry(ARRAY.shape, (1.0, 1.0, 1.0))
SUFFIXES = [".mha", ".nrrd", ".nii.gz"]


@contextmanager
def full_disk(after):
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_zeroed_bytes_are_damage(tmp_path, suffix, place):
    file = tmp_path / f"a{suffix}"
    write_volume(file, ARRAY, GRID)
    content = bytearray(file.read_bytes())
    at = int(place * len(content))
    content[at : at + 100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|truncated") as caught:
        read_volume(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("cut", [1, 6, 5000])
def test_a_cut_end_is_noticed(tmp_path, suffix, cut):
    file = tmp_path / f"a{suffix}"
    write_volume(file, ARRAY, GRID)
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"truncated|damaged"):
        read_volume(file)


@pytest.mark.parametrize(
    ("suffix", "old", "new"), [(".mha", b"50 40 20", b"50 40 10"), (".nrrd", b"50 40 20", b"50 40 10")]
)
def test_more_data_than_the_header_says(tmp_path, suffix, old, new):
    file = tmp_path / f"a{suffix}"
    write_volume(file, ARRAY, GRID)
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    with pytest.raises(UserError, match=r"damaged; found 80000 bytes of voxels where the header says 40000"):
        read_volume(file)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_data_beside_the_header(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(file), useCompression=True)
    np.testing.assert_array_equal(read_volume(file).array, ARRAY)
    (data,) = [each for each in tmp_path.iterdir() if each.suffix in (".zraw", ".gz")]
    content = bytearray(data.read_bytes())
    content[20000:20100] = bytes(100)
    data.write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(data))}: .*damaged"):
        read_volume(file)


def test_what_cannot_be_verified_is_not_read(tmp_path):
    file = tmp_path / "a.nrrd"
    write_volume(file, ARRAY, GRID)
    file.write_bytes(file.read_bytes().replace(b"encoding: gzip\n", b"encoding: gzip\nbyte skip: 0\n", 1))
    with pytest.raises(UserError, match="cannot be verified"):
        check_whole(file, ARRAY.nbytes)


def test_uncompressed_files_are_read(tmp_path):
    for suffix in (".mha", ".nrrd", ".nii"):
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(tmp_path / f"a{suffix}"), useCompression=False)
        np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, ARRAY)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".nii"])
@pytest.mark.parametrize("after", [0, 100, 20000])
def test_a_full_disk_leaves_the_old_file(tmp_path, suffix, after):
    file = tmp_path / f"a{suffix}"
    file.write_text("the old one")
    with full_disk(after), pytest.raises(UserError, match=r"could not be written whole.*disk full"):
        write_volume(file, ARRAY, GRID)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert file.read_text() == "the old one"


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(UserError, match="too long"):
        write_volume(tmp_path / f"{'x' * 250}.nii.gz", ARRAY, GRID)
