"""Named masks of a case, and a mask added to a task as a modality."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import read_geometry, write_volume
from nndet_psma.dataset.task.add_modality import add_modality
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.dataset.task.structures import find_structures, label_table, read_label_names

GRID = Geometry((2, 3, 4), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def _numbered(file, names):
    """A mask of numbers whose header carries the table of names as an extension."""
    array = np.zeros(GRID.shape, np.uint8)
    for value in names.values():
        array[0, 0, value % 4] = value
    write_volume(file, array, GRID)
    content = gzip.decompress(file.read_bytes())
    rows = "".join(f'<Label Key="{v}" Red="0.0"><![CDATA[{name}]]></Label>\n' for name, v in names.items())
    text = f"<CaretExtension><LabelTable>\n{rows}</LabelTable></CaretExtension>".encode()
    text += b" " * (-(len(text) + 8) % 16)
    extension = b"\x01\0\0\0" + struct.pack("<ii", len(text) + 8, 30) + text
    header = content[:108] + struct.pack("<f", 348 + len(extension)) + content[112:348]
    file.write_bytes(gzip.compress(header + extension + content[352:]))
    return array


def test_names_from_the_header(tmp_path):
    array = _numbered(tmp_path / "c1.nii.gz", {"iliac_artery_left": 65, "urinary_bladder": 21})
    assert label_table(tmp_path / "c1.nii.gz") == {"iliac_artery_left": 65, "urinary_bladder": 21}
    structures = find_structures(tmp_path, "c1")
    assert structures.matching(["iliac_*"]) == ["iliac_artery_left"]
    assert (structures.union(["iliac_artery_left"], GRID) == (array == 65)).all()
    assert (structures.union(structures.names, GRID) == (array > 0)).all()
    assert not structures.union([], GRID).any()


def test_a_folder_of_masks(tmp_path):
    (tmp_path / "c1").mkdir()
    left, right = np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape, np.uint8)
    left[0, 1, 1], right[1, 2, 3] = 1, 1
    write_volume(tmp_path / "c1" / "a.left.nii.gz", left, GRID)
    write_volume(tmp_path / "c1" / "b.nii.gz", right, GRID)
    structures = find_structures(tmp_path, "c1")
    assert structures.names == ["a.left", "b"]
    assert np.argwhere(structures.union(["a.left", "b"], GRID)).tolist() == [[0, 1, 1], [1, 2, 3]]


def test_masks_on_another_grid(tmp_path):
    fine = Geometry((4, 3, 4), (1.5, 1.0, 1.0), (0.0, 0.0, -0.75), GRID.direction)
    array = np.zeros(fine.shape, np.uint8)
    array[2:, 1, 1] = 1  # the two thin slices that make up the second thick one
    (tmp_path / "c1").mkdir()
    write_volume(tmp_path / "c1" / "a.nii.gz", array, fine)
    assert np.argwhere(find_structures(tmp_path, "c1").union(["a"], GRID)).tolist() == [[1, 1, 1]]


def test_an_interpolated_structure_is_refused(tmp_path):
    """Everything above 0 would be the structure, with a rim of its own thickness."""
    (tmp_path / "c1").mkdir()
    write_volume(tmp_path / "c1" / "bladder.nii.gz", np.full(GRID.shape, 0.3, np.float32), GRID)
    with pytest.raises(UserError, match=r"bladder\.nii\.gz: the mask was interpolated.*nearest neighbour\.$"):
        find_structures(tmp_path, "c1").union(["bladder"], GRID)


def test_numbers_without_names(tmp_path):
    write_volume(tmp_path / "c1.nii.gz", np.ones(GRID.shape, np.uint8), GRID)
    with pytest.raises(UserError, match=r"--labels NAMES\.json"):
        find_structures(tmp_path, "c1")
    (tmp_path / "names.json").write_text('{"iliac_artery_left": 1}')
    names = read_label_names(tmp_path / "names.json")
    assert find_structures(tmp_path, "c1", names).union(["iliac_artery_left"], GRID).all()


@pytest.mark.parametrize("text", ["[]", "{}", '{"a": 0}', '{"a": "1"}', '{"a": true}'])
def test_bad_tables(tmp_path, text):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UserError, match="no table of label names"):
        read_label_names(tmp_path / "names.json")


def test_no_structures(tmp_path):
    with pytest.raises(UserError, match="no structures of case c1"):
        find_structures(tmp_path, "c1")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", gzip.compress(b"short", mtime=0)])
def test_damaged_headers(tmp_path, content):
    file = tmp_path / "c1.nii.gz"
    file.write_bytes(content)
    with pytest.raises(UserError):
        find_structures(tmp_path, "c1")


def _task(root):
    paths = TaskPaths(root / "Task001_A")
    write_volume(paths.images("Tr") / "c1_0000.nii.gz", np.zeros(GRID.shape, np.int16), GRID)
    content = {"task": "Task001_A", "dim": 3, "labels": {"0": "node"}, "modalities": {"0": "CT"}, "extra": 1}
    (paths.root / "dataset.json").write_text(json.dumps(content))
    return paths


def test_add_and_replace_a_modality(tmp_path):
    paths = _task(tmp_path)
    mask = tmp_path / "mask.nii.gz"
    write_volume(mask, np.ones(GRID.shape, np.uint8), GRID)
    before = read_description(paths.root)
    assert add_modality(paths, before, "CTV", {"Tr": {"c1": mask}}, replace=False) == 1
    after = read_description(paths.root)
    assert (after.modalities, after.ctv_modality) == ({0: "CT", 1: "CTV"}, 1)
    assert json.loads((paths.root / "dataset.json").read_text())["extra"] == 1
    assert read_geometry(paths.images("Tr") / "c1_0001.nii.gz") == GRID
    with pytest.raises(UserError, match="has a modality ctv already"):
        add_modality(paths, after, "ctv", {"Tr": {"c1": mask}}, replace=False)
    other = tmp_path / "other.nii.gz"
    write_volume(other, np.zeros(GRID.shape, np.uint8), GRID)
    assert add_modality(paths, after, "ctv", {"Tr": {"c1": other}}, replace=True) == 1
    assert (paths.images("Tr") / "c1_0001.nii.gz").read_bytes() == other.read_bytes()
    assert add_modality(paths, after, "CTV", {"Tr": {"c1": other}}, replace=True) == 1  # again: nothing to do
    assert sorted(file.name for file in paths.images("Tr").iterdir()) == ["c1_0000.nii.gz", "c1_0001.nii.gz"]


def test_yaml_is_left_to_the_user(tmp_path):
    paths = _task(tmp_path)
    description = read_description(paths.root)
    (paths.root / "dataset.json").unlink()
    (paths.root / "dataset.yaml").write_text("task: Task001_A\n")
    with pytest.raises(UserError, match="1: CTV"):
        add_modality(paths, description, "CTV", {}, replace=False)
