"""Truncated and damaged NIfTI files, which ITK reads without a word."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.images.nifti_bytes import check_length, check_nifti, parse_header


@pytest.fixture
def nifti(tmp_path):
    file = tmp_path / "a.nii"
    array = np.random.default_rng(0).integers(0, 999, (6, 8, 8)).astype(np.int16)
    write_volume(file, array, Geometry((6, 8, 8), (1, 1, 1)))
    return file


def test_header_by_hand(nifti):
    header = parse_header(nifti.read_bytes()[:540])
    # NIfTI-1: 352 bytes of header and extension flag, then 6 * 8 * 8 voxels of two bytes
    assert header.offset == 352
    assert header.length == 352 + 768 == nifti.stat().st_size
    assert header.floats is None
    assert parse_header(b"x" * 600) is None


def test_header_of_floats(tmp_path):
    write_volume(tmp_path / "a.nii", np.zeros((2, 2, 2), np.float32), Geometry((2, 2, 2), (1, 1, 1)))
    assert parse_header((tmp_path / "a.nii").read_bytes()[:540]).floats == np.dtype("<f4")


def test_whole_files_pass(nifti, tmp_path):
    for every_byte in (False, True):
        check_nifti(nifti, every_byte=every_byte)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(nifti.read_bytes()))
    check_nifti(packed, every_byte=True)
    check_length(packed)


def test_several_gzip_members_and_a_wrong_name_pass(nifti, tmp_path):
    content = nifti.read_bytes()
    members = tmp_path / "b.nii.gz"
    members.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    check_length(members)
    plain = tmp_path / "c.nii.gz"
    plain.write_bytes(content)
    check_length(plain)


@pytest.mark.parametrize("check", [check_nifti, check_length])
def test_truncated(nifti, tmp_path, check):
    content = nifti.read_bytes()
    nifti.write_bytes(content[:-1])
    with pytest.raises(UserError, match="truncated; found 1119 of 1120 bytes"):
        check(nifti)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(content)[:-30])
    with pytest.raises(UserError, match="truncated or damaged"):
        check(packed)
    packed.write_bytes(gzip.compress(content[:-10]))
    with pytest.raises(UserError, match="found 1110 of 1120 bytes"):
        check(packed)


def test_damaged_content_needs_every_byte(nifti, tmp_path):
    packed = bytearray(gzip.compress(nifti.read_bytes(), compresslevel=0))
    packed[700] ^= 255  # a stored voxel: length and structure stay right, only the checksum tells
    file = tmp_path / "b.nii.gz"
    file.write_bytes(bytes(packed))
    check_nifti(file)
    with pytest.raises(UserError, match="CRC"):
        check_nifti(file, every_byte=True)


def test_other_formats_are_not_looked_at(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"")
    check_nifti(tmp_path / "a.mha")
    check_length(tmp_path / "a.mha")


@pytest.mark.parametrize("bits", [8, 32])
def test_a_size_of_voxels_that_is_not_that_of_their_type(tmp_path, bits):
    """int16 voxels said to have 8 or 32 bits; bitpix are the bytes 72 and 73 of the header."""
    file = tmp_path / "p.nii"
    write_volume(file, np.ones((4, 5, 6), np.int16), Geometry((4, 5, 6), (1.0, 1.0, 1.0)))
    content = bytearray(file.read_bytes())
    assert content[72:74] == b"\x10\x00"
    content[72] = bits
    file.write_bytes(bytes(content) + bytes(240))
    with pytest.raises(UserError, match="a header with int16 voxels of another size than 16 bits"):
        read_volume(file)


def test_a_header_that_promises_more_than_the_file_can_hold(tmp_path):
    """30 000 slices of 1000 x 1000 voxels, 60 GB, in a file of some hundred bytes."""
    file = tmp_path / "p.nii.gz"
    write_volume(file, np.ones((4, 5, 6), np.int16), Geometry((4, 5, 6), (1.0, 1.0, 1.0)))
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[42:48] = np.array([1000, 1000, 30_000], "<i2").tobytes()
    file.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(UserError, match=r"at most \d+ of 60000000352 bytes"):
        read_volume(file)
