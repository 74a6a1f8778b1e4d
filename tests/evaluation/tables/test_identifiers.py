"""Identifiers of two tables: compared as written, otherwise only as the user says."""

from __future__ import annotations

from pathlib import Path

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.tables.identifiers import Named, Spelling, check_meeting

FILE = Path("p.csv")


def check(known, given, **options):
    check_meeting(Named(Path("t.csv"), known), Named(FILE, given), "cases", **options)


def test_as_written():
    names = ["001", "1", 1, "a.mhd"]
    assert Spelling().keys(names, FILE) == names


def test_numbers_and_suffixes():
    assert Spelling(numbers=True).keys(["001", 2, "3a", "1.5"], FILE) == [1, 2, "3a", "1.5"]
    both = Spelling((".mhd", ".raw"), numbers=True)
    assert both.keys(["007.mhd", "b.raw", "c.mhd.x"], FILE) == [7, "b", "c.mhd.x"]


@pytest.mark.parametrize("names", [["1", "001"], [1, "1"], ["1.mhd", "1"]])
def test_two_that_become_one_are_refused(names):
    with pytest.raises(UserError, match=r"p\.csv: two identifiers become one .*found '?1.* and '"):
        Spelling((".mhd",), numbers=True).keys([*names, "5"], FILE)


@pytest.mark.parametrize(
    ("known", "given", "remedy"),
    [
        (["001", "002"], ["1", "2"], r"expected such as '001'; found '1'\. If 001 and 1 .* --match-numbers"),
        ([1, 2], ["1"], "--match-numbers"),
        (["1.2.3"], ["1.2.3.mhd"], r"say --strip-suffix \.mhd"),
        (["a_0000"], ["a"], "say --strip-suffix _0000"),
        (["1", "2"], ["10", "20"], "Name them alike in both"),
    ],
)
def test_nothing_in_common(known, given, remedy):
    with pytest.raises(UserError, match=rf"p\.csv: no cases in common with t\.csv; .*{remedy}"):
        check(known, given)


def test_some_in_common(caplog):
    check(["a", "b", "c", "d"], ["b", "a", "x"])
    assert (
        "p.csv: 1 of 3 cases are not in t.csv ('x'); 2 of 4 cases of t.csv are not here ('c')" in caplog.text
    )
    caplog.clear()
    check(["a", "b"], ["a"], all_known=False)
    check(["a", "b"], ["b", "a"])
    check([], ["a"])
    check(["a"], [])
    assert caplog.text == ""
