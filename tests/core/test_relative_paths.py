"""Paths in texts begin at the task."""

from pathlib import Path

import pytest

from nndet_psma.core.relative_paths import relative_text

TASK = Path("/home/doe/data/Task1_A")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/doe/data/Task1_A/imagesTr/a.nii: bad", "imagesTr/a.nii: bad"),
        ("in /home/doe/data/Task1_A: two of /home/doe/data/Task1_A/b", "in .: two of b"),
        ("/home/doe/data/Task1_A. Mend it", ".. Mend it"),
        ("/home/doe/data/Task1_A.zip", "/home/doe/data/Task1_A.zip"),
        ("/home/doe/data/Task1_AB/c", "/home/doe/data/Task1_AB/c"),
        ("no path", "no path"),
    ],
)
def test_relative_text(text, expected):
    assert relative_text(text, TASK) == expected


def test_inner_folder_first_and_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    link = tmp_path / "link"
    assert relative_text(f"{tmp_path}/real/a {link}/b {tmp_path}/c", link, tmp_path) == "a b c"
