"""b-values where the vendors keep them."""

import struct

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from nndet_psma.dataset.dicom.diffusion import b_value, is_isotropic


def private(creator, group, element, vr, value) -> Dataset:
    dataset = Dataset()
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    return dataset


@pytest.mark.parametrize(
    ("place", "vr", "value", "expected"),
    [
        (("SIEMENS MR HEADER", 0x19, 0x0C), "IS", 800, 800),
        (("SIEMENS MR HEADER", 0x19, 0x0C), "OB", b"400 ", 400),
        (("SIEMENS MR HEADER", 0x19, 0x0C), "OB", b"1000", 1000),
        (("GEMS_PARM_01", 0x43, 0x39), "IS", [1000000700, 8, 0, 0], 700),
        (("GEMS_PARM_01", 0x43, 0x39), "IS", [50, 8, 0, 0], 50),
        (("GEMS_PARM_01", 0x43, 0x39), "UN", b"1000000800\\8\\0\\0", 800),
        (("Philips Imaging DD 001", 0x2001, 0x03), "FL", 1500.0, 1500),
        (("Philips Imaging DD 001", 0x2001, 0x03), "UN", struct.pack("<f", 800.0), 800),
        (("Image Private Header", 0x65, 0x09), "FD", 1000.0, 1000),
        (("Image Private Header", 0x65, 0x09), "UN", struct.pack("<d", 50.0), 50),
        (("Philips Imaging DD 001", 0x2001, 0x03), "UN", b"\xff\xfe\xfd", None),
        (("Somebody Else", 0x19, 0x0C), "IS", 800, None),
    ],
)
def test_private_b_values(place, vr, value, expected):
    assert b_value(private(*place, vr, value)) == expected


def test_private_block_may_lie_elsewhere():
    dataset = private("Somebody Else", 0x19, 0x0C, "IS", 7)
    dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", 800)
    assert dataset[0x0019, 0x110C].value == 800
    assert b_value(dataset) == 800


def test_standard_attribute_comes_first():
    dataset = private("SIEMENS MR HEADER", 0x19, 0x0C, "IS", 800)
    dataset.DiffusionBValue = 600.0
    assert b_value(dataset) == 600


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("*ep_b800t", 800),
        ("*ep_b50#3", 50),
        ("ep_b0", 0),
        ("*ep_b50_800", 800),
        ("*tse2d1_25", None),
        ("", None),
    ],
)
def test_name_of_a_siemens_sequence(name, expected):
    dataset = Dataset()
    dataset.SequenceName = name
    assert b_value(dataset) == (None if name == "*ep_b50_800" else expected)


def test_empty_values_are_none():
    dataset = Dataset()
    dataset.DiffusionBValue = None
    dataset.add(DataElement(0x00430010, "LO", "GEMS_PARM_01"))
    dataset.add(DataElement(0x00431039, "IS", []))
    assert b_value(dataset) is None


@pytest.mark.parametrize(
    ("image_type", "direction", "expected"),
    [
        (["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"], None, True),
        (["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"], None, False),
        (["ORIGINAL", "PRIMARY"], "ISOTROPIC", True),
        (["ORIGINAL", "PRIMARY"], "DIRECTIONAL", False),
    ],
)
def test_trace_images(image_type, direction, expected):
    dataset = Dataset()
    dataset.ImageType = image_type
    if direction is not None:
        dataset.DiffusionDirectionality = direction
    assert is_isotropic(dataset) is expected


def test_siemens_direction_as_bytes():
    assert is_isotropic(private("SIEMENS MR HEADER", 0x19, 0x0D, "OB", b"ISOTROPIC "))
    assert not is_isotropic(private("SIEMENS MR HEADER", 0x19, 0x0D, "OB", b"DIRECTIONAL "))
