"""Texts that would fill the memory or the stack are refused as faults of their file."""

from __future__ import annotations

import time

import pytest

from nndet_psma.core import parsing
from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.parsing import MAX_DEPTH, parse_json, parse_yaml, read_text

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


def test_depth_ends_where_it_is_said_to():
    levels = MAX_DEPTH - 1
    assert parse_json("[" * levels + "]" * levels) is not None
    assert parse_yaml("[" * levels + "]" * levels) is not None
    for parse in (parse_json, parse_yaml):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 900 + "]" * 900])
def test_deep_json(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON \(nested too deeply"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000, "nested too deeply"),
        ("- " * 3000 + "x", "nested too deeply"),
        ("&a [*a]", "nested too deeply"),  # a list that holds itself
        (LAUGHS, "unfolds to too many"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("n: " + "9" * 5000, "digits"),
    ],
)
def test_yaml_that_means_harm(text, message):
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    assert time.monotonic() - start < 20


def test_numbers_of_thousands_of_digits(tmp_path):
    (tmp_path / "a.json").write_text(f'{{"n": {"9" * 5000}}}')
    with pytest.raises(UserError, match=r"a\.json: not valid JSON \(Exceeds the limit"):
        read_json(tmp_path / "a.json")


def test_size_is_told_before_reading(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("[1, 2]")
    monkeypatch.setattr(parsing, "MAX_BYTES", 5)
    with pytest.raises(ValueError, match="6 bytes, which is too large: at most 5"):
        read_text(tmp_path / "a.json")
