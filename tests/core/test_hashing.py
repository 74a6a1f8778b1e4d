"""Hashes tell contents apart and nothing else."""

from __future__ import annotations

import pytest

from nndet_psma.core.hashing import hash_files, hash_json


def test_key_order_does_not_matter_content_does():
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    assert hash_json([1, 2]) != hash_json([2, 1])
    assert len(hash_json(None)) == 16


def test_known_value():
    # blake2b of "[1]" with 8 bytes, computed with b2sum -l 64: must stay, artefacts on disk hold such hashes
    assert hash_json([1]) == "d904f97e24baef89"


@pytest.fixture
def files(tmp_path):
    for name, content in {"a": b"xy", "b": b"", "c": b"x", "d": b"y"}.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in "abcd"}


def test_files(files):
    assert hash_files([files["a"]]) == hash_files([files["a"]])
    assert hash_files([files["a"], files["b"]]) != hash_files([files["c"], files["d"]])
    assert hash_files([files["c"], files["d"]]) != hash_files([files["d"], files["c"]])


def test_content_cannot_move_between_files(tmp_path, files):
    # "x|" + "y" and "x" + "|y" hold the same bytes in a row
    first, second = tmp_path / "e", tmp_path / "f"
    first.write_bytes(b"x|")
    second.write_bytes(b"|y")
    assert hash_files([first, files["d"]]) != hash_files([files["c"], second])


def test_large_file_is_read_in_blocks(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(b"a" * ((1 << 20) + 1))
    whole = hash_files([file])
    file.write_bytes(b"a" * (1 << 20) + b"b")
    assert hash_files([file]) != whole
