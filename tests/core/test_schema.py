"""Typed JSON: what is accepted, and that every refusal names the key."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from nndet_psma.core.schema import AtMost, Id, Label, SchemaError, Within, added, from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    size: int
    name: str = "x"


@dataclass(frozen=True)
class Outer:
    ratio: float
    inner: Inner
    many: list[Inner] = field(default_factory=list)
    pair: tuple[int, float] = (0, 0.0)
    row: tuple[float, ...] = ()
    table: dict[str, list[int]] = field(default_factory=dict)
    maybe: int | None = None
    part: Inner | None = None
    kind: Literal["cpu", "gpu"] = "cpu"
    flag: bool = False
    anything: Any = None


@dataclass(frozen=True)
class Bounded:
    count: Annotated[int, Within(1, 5)] = 1
    step: Annotated[float, Within(0.01, 100)] | None = 1.0
    many: Annotated[list[Annotated[int, Within(0, 9)]], AtMost(2)] = field(default_factory=list)
    id: Id = "a"
    label: Label = "a"
    table: dict[str, Label] = field(default_factory=dict)


GOOD: dict[str, Any] = {"ratio": 0.5, "inner": {"size": 3}}


def test_round_trip():
    outer = Outer(
        0.5, Inner(1), [Inner(2, "b")], (3, 4.0), (5.0, 6.0), {"k": [7]}, 8, Inner(9), "gpu", True, {"a": [1]}
    )
    assert from_plain(Outer, json.loads(json.dumps(to_plain(outer)))) == outer


def test_numpy_becomes_plain():
    plain = to_plain({"a": np.float32(0.5), "b": np.arange(2), "c": (np.int64(1), [np.bool_(True)])})
    assert json.dumps(plain) == '{"a": 0.5, "b": [0, 1], "c": [1, [true]]}'


def test_defaults_and_whole_numbers():
    found = from_plain(Outer, GOOD | {"ratio": 1, "maybe": 3.0})
    assert found.ratio == 1.0
    assert isinstance(found.ratio, float)
    assert found.maybe == 3
    assert isinstance(found.maybe, int)
    assert found.many == []


@pytest.mark.parametrize(
    ("change", "key", "problem"),
    [
        ({"nonsense": 1}, "nonsense", "unknown key; known keys are anything, flag"),
        (
            {"inner": {"size": 1, "sise": 2}},
            "inner.sise",
            "did you mean size? Known keys are name, size",
        ),
        ({"inner": {}}, "inner.size", "missing key"),
        ({"inner": 3}, "inner", "expected an object, found int"),
        ({"inner": {"size": "3"}}, "inner.size", "expected int, found '3'"),
        ({"inner": {"size": True}}, "inner.size", "expected int, found True"),
        ({"inner": {"size": 1.5}}, "inner.size", "expected int, found 1.5"),
        ({"ratio": True}, "ratio", "expected float, found True"),
        ({"ratio": None}, "ratio", "expected float, found None"),
        ({"flag": 1}, "flag", "expected bool, found 1"),
        ({"many": [{"size": 1}, {"size": "a"}]}, "many[1].size", "expected int, found 'a'"),
        ({"many": {"size": 1}}, "many", "expected a list, found dict"),
        ({"pair": [1]}, "pair", "expected 2 values, found 1"),
        ({"pair": [1, "b"]}, "pair[1]", "expected float, found 'b'"),
        ({"row": [1.0, None]}, "row[1]", "expected float, found None"),
        ({"table": {"k": [1, 2.5]}}, "table.k[1]", "expected int, found 2.5"),
        ({"table": [1]}, "table", "expected an object, found list"),
        ({"maybe": "3"}, "maybe", "expected int, found '3'"),
        ({"part": {"size": None}}, "part.size", "expected int, found None"),
        ({"kind": "tpu"}, "kind", r"expected one of ['cpu', 'gpu'], found 'tpu'"),
    ],
)
def test_refusals_name_the_key(change, key, problem):
    with pytest.raises(SchemaError) as caught:
        from_plain(Outer, GOOD | change)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert str(caught.value).startswith(f"{key}: ")


def test_top_level():
    with pytest.raises(SchemaError, match="top level: expected an object, found list"):
        from_plain(Outer, [])
    with pytest.raises(SchemaError, match=r"^plan_cfg\.ratio: missing key"):
        from_plain(Outer, {"inner": {"size": 1}}, "plan_cfg")


@pytest.mark.parametrize("value", [None, 4])
def test_optional(value):
    assert from_plain(Outer, GOOD | {"maybe": value}).maybe == value


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_json_does_not_have(value):
    # json.loads accepts NaN and Infinity; a threshold of NaN would silently compare false for ever
    with pytest.raises(SchemaError, match="ratio: expected a finite number"):
        from_plain(Outer, GOOD | {"ratio": float(value)})


@pytest.mark.parametrize(
    ("change", "key", "problem"),
    [
        ({"count": 0}, "count", "expected a number in [1, 5], found 0"),
        ({"count": 6.0}, "count", "expected a number in [1, 5], found 6"),
        (
            {"count": 10**4000},
            "count",
            "expected a number of at most 9007199254740992, found one of 13288 bits",
        ),
        ({"count": 1e300}, "count", "expected a number of at most 9007199254740992"),
        ({"count": "3"}, "count", "expected int, found '3'"),
        ({"step": 1e-9}, "step", "expected a number in [0.01, 100], found 1e-09"),
        ({"step": 10**400}, "step", "expected a number of at most"),
        ({"many": [1, 2, 3]}, "many", "expected at most 2 items, found 3"),
        ({"many": [1, 10]}, "many[1]", "expected a number in [0, 9], found 10"),
        ({"id": "../x"}, "id", "expected a name, found '../x'"),
        ({"id": ""}, "id", "expected a name"),
        ({"id": ".hidden"}, "id", "expected a name"),
        ({"id": "a" * 151}, "id", "expected a name"),
        ({"label": "<script>"}, "label", "expected a name of 1 to 100 characters without"),
        ({"label": "a/b"}, "label", "expected a name of 1 to 100"),
        ({"label": "a\u202eb"}, "label", "expected a name of 1 to 100"),  # right to left from here
        ({"label": "a\nb"}, "label", "expected a name of 1 to 100"),
        ({"label": " "}, "label", "expected a name of 1 to 100"),
        ({"label": "x" * 100_001}, "label", "expected at most 100000 characters, found 100001"),
        ({"table": {"0": "a&b"}}, "table.0", "expected a name of 1 to 100"),
    ],
)
def test_bounds(change, key, problem):
    with pytest.raises(SchemaError) as caught:
        from_plain(Bounded, change)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert len(str(caught.value)) < 500


def test_what_lies_within_its_bounds():
    content = {
        "count": 5,
        "step": None,
        "many": [0, 9],
        "id": "PSMA25D_3w+.x-1",
        "label": "Lymphknoten (iliakal), T2*",
    }
    assert to_plain(from_plain(Bounded, content)) == {**content, "table": {}}
    assert from_plain(Bounded, {"label": "Waldeyer's ring"}).label == "Waldeyer's ring"


def test_what_was_added_to_a_format_is_written_only_where_it_is_used():
    @dataclass(frozen=True)
    class Grown:
        old: int = 1
        new: int = added(2)

    assert to_plain(Grown()) == {"old": 1}
    assert to_plain(Grown(new=3)) == {"old": 1, "new": 3}
    assert to_plain([Grown(new=2)]) == [{"old": 1}]
