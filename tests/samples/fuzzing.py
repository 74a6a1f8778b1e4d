"""Mutations of files as hypothesis draws them, and a reader's bounds in time and memory."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

SECONDS = 20  # on a machine whose two cores are shared; every reader needs milliseconds
MEMORY = 2 << 30
_STATM = Path("/proc/self/statm")

# how, where (share of the file; half of them in its first 600 bytes, where headers are), how much, with what
_WHERE = st.one_of(st.integers(0, 599), st.floats(0, 1, exclude_max=True))
_BYTE_MUTATION = st.tuples(
    st.sampled_from(("flip", "zero", "fill", "cut", "insert", "delete", "repeat")),
    _WHERE,
    st.sampled_from((1, 1, 2, 4, 8, 100, 5000)),
    st.integers(0, 255),
)
BYTE_MUTATIONS = st.lists(_BYTE_MUTATION, min_size=1, max_size=3)

DEEP: Any = 0
for _ in range(150):
    DEEP = [DEEP]
ODD_VALUES = (
    None, True, "", "x" * 300, "\x1b[31m\u202e\ud800", "../../x", 0, -1, 2**63, 10**400, 0.5, 1e-300, 1e308,
    float("nan"), float("inf"), [], {}, [[]], {"": None}, DEEP, list(range(5000)),
)  # fmt: skip
_JSON_MUTATION = st.tuples(
    st.sampled_from(("replace", "delete", "add")),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, len(ODD_VALUES) - 1),
)
JSON_MUTATIONS = st.lists(_JSON_MUTATION, min_size=1, max_size=3)


def mutated(content: bytes, mutations: list[tuple[str, int | float, int, int]]) -> bytes:
    """``content`` after some of :data:`BYTE_MUTATIONS`."""
    data = bytearray(content)
    for how, where, count, value in mutations:
        at = int(where * len(data)) if isinstance(where, float) else min(where, len(data))
        part = data[at : at + count]
        if how == "flip":
            data[at : at + 1] = bytes(byte ^ (1 << value % 8) for byte in part[:1])
        elif how == "cut":
            del data[at:]
        else:
            new = {
                "zero": bytes(len(part)),
                "fill": bytes([value]) * len(part),
                "insert": bytes([value]) * count + part,
                "delete": b"",
                "repeat": part * 3,
            }
            data[at : at + count] = new[how]
    return bytes(data)


def mutated_json(content: Any, mutations: list[tuple[str, float, int]]) -> bytes:
    """``content`` after some of :data:`JSON_MUTATIONS`, as text."""
    root = {"": json.loads(json.dumps(content))}
    for how, where, index in mutations:
        value = deepcopy(ODD_VALUES[index])  # it may be changed in its turn
        places = list(_places(root))
        holder, key = places[int(where * len(places))]
        if how == "replace":
            holder[key] = value
        elif how == "delete" and holder is not root:
            del holder[key]
        elif isinstance(holder[key], dict):
            holder[key]["unheard of"] = value
        elif isinstance(holder[key], list):
            holder[key].append(value)
    return json.dumps(root[""]).encode()


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every value below ``value``, as its holder and key, as deep as files of the package go."""
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(each, dict | list) and depth < 10:
            yield from _places(each, depth + 1)


@contextmanager
def bounded() -> Iterator[None]:
    """Fails a block that takes too long, or more memory than a reader of a small file may ask for.

    Raises:
        TimeoutError: after :data:`SECONDS`.
        MemoryError: for the allocation that goes beyond :data:`MEMORY`.
    """

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    if _STATM.is_file():
        held = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
