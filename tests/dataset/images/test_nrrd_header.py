"""Headers on which ITK's reader of NRRD ends the process are refused before; good ones pass."""

from __future__ import annotations

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_volume, write_volume

GRID = Geometry((4, 5, 6), (3.0, 1.0, 2.0), (5.0, -3.0, 7.0))
ARRAY = np.arange(120, dtype=np.int16).reshape(GRID.shape)


@pytest.fixture
def file(tmp_path):
    write_volume(tmp_path / "p.nrrd", ARRAY, GRID)
    return tmp_path / "p.nrrd"


def _insert(file, line: bytes) -> None:
    """As the third line."""
    lines = file.read_bytes().split(b"\n", 2)
    file.write_bytes(b"\n".join([*lines[:2], line, lines[2]]))


def test_good_headers(file):
    for line in (b"# " + b"x" * 5000, b"Segment0_Terminology:=" + b"x" * 5000, b"content: node"):
        _insert(file, line)
        volume = read_volume(file)
        assert np.array_equal(volume.array, ARRAY)
        assert volume.geometry == GRID


@pytest.mark.parametrize(
    "line",
    [b"space" + b"\xcd" * 5000, b"space: " + b"x" * 5000, b"space", b"spa\0ce: left-posterior-superior"],
)
def test_lines_that_are_no_field(file, line):
    """On the first two, memory of the process was overwritten."""
    _insert(file, line)
    with pytest.raises(UserError, match="line 3 of its header is neither a field nor a comment"):
        read_volume(file)


def test_the_name_does_not_matter(file):
    _insert(file, b"space" + b"\xcd" * 5000)
    other = file.rename(file.with_suffix(".mha"))
    with pytest.raises(UserError, match="line 3 of its header"):
        read_volume(other)
