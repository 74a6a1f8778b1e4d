"""The file of raw predictions: everything comes back, nothing is run, damage is named."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
from fake_models import boxes_2d, raw_of

from nndet_psma.artifacts.raw_predictions import is_current, read_raw, write_raw
from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError

STORE = Geometry((4, 10, 12), (4.0, 2.0, 2.0))


@pytest.fixture
def file(tmp_path):
    first = boxes_2d([(1, 2, 3, 5, 7, 0.8), (2, 2.5, 3, 5, 7, 0.4)])
    raw = raw_of({"a": [first, Detections.empty(2)], "b": [boxes_2d([(0, 1, 1, 2, 2, 0.1)])]}, STORE)
    write_raw(tmp_path / "case_0.npz", raw)
    return tmp_path / "case_0.npz"


def test_round_trip(file):
    raw = read_raw(file)
    assert raw.meta.parts == {"a": 2, "b": 1}
    assert raw.meta.store == STORE
    first, empty = raw.voters["a"]
    assert first.boxes.tolist() == [[2, 3, 5, 7], [2.5, 3, 5, 7]]
    assert first.scores.tolist() == [0.8, 0.4]
    assert first.columns["slice"].tolist() == [1, 2]
    assert set(first.columns) == {"slice", "zone_mm", "hu_quantiles"}
    assert first.columns["hu_quantiles"].shape == (2, 10)
    assert len(empty) == 0
    assert empty.dim == 2


def test_current_means_same_origin_and_whole(file):
    assert is_current(file, "made")
    assert not is_current(file, "other")
    assert not is_current(file.with_name("none.npz"), "made")
    file.write_bytes(file.read_bytes()[:-40])
    assert not is_current(file, "made")


@pytest.mark.parametrize("keep", [0, 30, 300, -10])
def test_damaged_file_is_named(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        UserError, match=r"case_0\.npz: raw predictions cannot be read.*Delete the file and predict again"
    ):
        read_raw(file)


def test_flipped_byte_is_found_or_harmless(file):
    """Wherever a bit flips: either the very same content, or the error."""
    whole, content = file.read_bytes(), read_raw(file)
    caught = 0
    for position in range(0, len(whole), 23):
        for mask in (0xFF, 0x01):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            file.write_bytes(bytes(damaged))
            try:
                raw = read_raw(file)
            except UserError as error:
                assert "raw predictions cannot be read" in str(error)  # noqa: PT017
                caught += 1
            else:
                assert raw.meta == content.meta
                assert np.array_equal(raw.voters["a"][0].boxes, content.voters["a"][0].boxes)
    assert caught > 50


def test_pickle_is_not_run(tmp_path):
    trace = tmp_path / "was_here"

    class Attack:
        def __reduce__(self):
            return trace.touch, ()

    for name, content in (("a.npz", pickle.dumps(Attack())), ("b.npz", None)):
        if content is None:
            with (tmp_path / name).open("wb") as handle:
                np.savez(handle, meta=np.array([Attack()], dtype=object))
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="raw predictions cannot be read"):
            read_raw(tmp_path / name)
    assert not trace.exists()


def test_other_version_or_missing_part(file):
    with zipfile.ZipFile(file) as archive:
        assert "b/0/boxes.npy" in archive.namelist()
    with np.load(file) as content:
        arrays = dict(content)
    meta = json.loads(str(arrays["meta"]))
    without = {name: array for name, array in arrays.items() if name != "b/0/boxes"}
    np.savez(file, **without)
    with pytest.raises(UserError, match="b/0/boxes"):
        read_raw(file)
    np.savez(file, **{**arrays, "meta": np.array(json.dumps({**meta, "version": 99}))})
    with pytest.raises(UserError, match="of another version"):
        read_raw(file)


def _with_member(file, name, content):
    """The file with one member replaced."""
    with zipfile.ZipFile(file) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, old in members.items():
            archive.writestr(each, content if each == name else old)


def _npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"no array", "magic string"),
        (
            _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 4)}\n"),
            "does not hold what its header says",
        ),
        (
            _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 4)}\n", bytes(65)),
            "does not hold what its header says",
        ),
        (
            _npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 4)}\n", bytes(64)),
            "does not hold what its header says",
        ),
        (_npy("{'descr': '|S8', 'fortran_order': False, 'shape': (2, 4)}\n", bytes(64)), "are numbers, not"),
    ],
)
def test_arrays_that_are_none(file, content, found):
    """The second asks for 32 GB."""
    _with_member(file, "a/0/boxes.npy", content)
    with pytest.raises(UserError, match=rf"raw predictions cannot be read.*{found}"):
        read_raw(file)


def test_files_that_grow_too_large(file, monkeypatch):
    monkeypatch.setattr("nndet_psma.artifacts.raw_predictions._MOST_BYTES", 100_000)
    assert read_raw(file)
    _with_member(file, "a/0/boxes.npy", bytes(100_001))
    assert file.stat().st_size < 10_000
    with pytest.raises(UserError, match="it unfolds to more than 100000 bytes"):
        read_raw(file)
