"""Coronal and sagittal planes and PET: what is up, what is left, and which SUV is black."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.report.case_images import CaseImages
from nndet_psma.report.charts.cross_sections import cross_sections, pet_pictures
from nndet_psma.report.charts.drawing import View
from nndet_psma.report.shots import Shot

SHAPE = (30, 40, 50)
SHOT = Shot("case_1", 15, (18.0, 23.0, 22.0, 27.0), "case_1", "hit", "hit")  # its middle: y 20, x 25
FOUND = SimpleNamespace(
    boxes=Detections(
        np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64), {"slice": np.zeros(0), "hit": np.zeros(0)}
    )
)


def _images(bright, pet=None):
    """Black but for a cube of 3 voxels round ``bright`` (z, y, x), on a grid of 2 mm."""
    image = np.full(SHAPE, -125.0, dtype=np.float32)
    z, y, x = bright
    image[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = 225.0
    grid = Geometry(SHAPE, (2.0, 2.0, 2.0), origin=(0.0, 0.0, 0.0))
    return CaseImages(image, (-125.0, 225.0), True, None, np.zeros(SHAPE, dtype=np.int32), grid, pet)


def _pixels(picture):
    data = base64.b64decode(picture.uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)


def _brightest(pixels):
    """(down, right) as shares of the picture, of the middle of what is bright away from letters and scale bar."""
    height, width = pixels.shape
    inner = pixels[height // 8 : -height // 8, width // 10 : -width // 10] > 200
    rows, columns = np.nonzero(inner)
    return (rows.mean() + height // 8) / height, (columns.mean() + width // 10) / width


@pytest.mark.parametrize(
    ("bright", "coronal", "sagittal"),
    [
        ((19, 20, 30), ("up", "right"), None),  # 8 mm towards the head, 10 mm to the patient's left
        ((12, 20, 20), ("down", "left"), None),
        ((19, 25, 25), None, ("up", "right")),  # 10 mm to the back
        ((12, 14, 25), None, ("down", "left")),
    ],
)
def test_the_head_is_up_and_the_right_and_the_front_are_on_the_left(bright, coronal, sagittal):
    for picture, expected in zip(
        cross_sections(SHOT, _images(bright), FOUND), (coronal, sagittal), strict=True
    ):
        pixels = _pixels(picture)
        if expected is None:  # the cube is not on this plane
            assert not (pixels[60:-60, 80:-80] > 225).sum() > 2000
            continue
        down, right = _brightest(pixels)
        assert ("up" if down < 0.45 else "down" if down > 0.55 else "middle") == expected[0]
        assert ("left" if right < 0.45 else "right" if right > 0.55 else "middle") == expected[1]


def test_planes_say_what_they_are():
    coronal, sagittal = cross_sections(SHOT, _images((15, 20, 25)), FOUND)
    assert coronal.alt.startswith("Coronal plane of case case_1")
    assert sagittal.alt.startswith("Sagittal plane of case case_1")
    assert "axial slice 16" in coronal.alt  # counted from 1
    assert coronal.size == (640, 480)


def test_pet_is_dark_where_uptake_is_high_and_its_scale_is_named():
    """10 of 60000 voxels have SUV 20, fewer than 1 in 1000: the scale ends at its least, SUV 5."""
    pet = np.zeros(SHAPE, dtype=np.float32)
    pet[15, 18:20, 22:27] = 20.0
    view = View(10.0, 15.0, 30.0, 35.0)
    alone, fused = pet_pictures(SHOT, _images((15, 20, 25), pet), view)
    assert alone.alt == "PET of slice 16 of case case_1, SUV 0 (white) to 5.0 (black)"
    assert "SUV 0 to 5.0" in fused.alt
    pixels = _pixels(alone)
    height, width = pixels.shape
    assert pixels[round(height * 9 / 20), round(width * 9.5 / 20)] < 40  # y 19, x 24.5
    assert pixels[round(height * 15 / 20), round(width * 9.5 / 20)] > 240


def test_no_pet_no_pictures():
    assert pet_pictures(SHOT, _images((15, 20, 25)), View(0.0, 0.0, 10.0, 10.0)) == []
