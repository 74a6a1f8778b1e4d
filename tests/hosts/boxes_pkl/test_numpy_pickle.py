"""Pickle files of numbers: everything NumPy writes comes back, and nothing else is ever executed."""

from __future__ import annotations

import codecs
import io
import os
import pickle
import pickletools
import subprocess
import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nndet_psma.hosts.boxes_pkl.read import UnsafePickleError, load_plain
from nndet_psma.hosts.boxes_pkl.write import dump_plain

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", ">f8", "<i8", "|u1", "|b1", "<f2", ">i2"]),
    hnp.array_shapes(min_dims=0, min_side=0),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | ARRAYS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


def _same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, np.ndarray | np.generic):
        assert found.dtype == wanted.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, wanted)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for each, other in zip(found, wanted, strict=True):
            _same(each, other)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            _same(found[key], wanted[key])
    else:
        assert found == wanted


@settings(max_examples=60)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_reads_what_pickle_writes(value, protocol):
    _same(load_plain(pickle.dumps(value, protocol=protocol)), value)


@settings(max_examples=60)
@given(PLAIN)
def test_pickle_reads_what_we_write_without_a_warning(value):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns when it is imported under an old name
        _same(pickle.loads(dump_plain(value)), value)
    _same(load_plain(dump_plain(value)), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_scalars_orders_and_shared_parts(protocol):
    shared = np.arange(6, dtype=np.float32).reshape(2, 3)
    value = [
        np.float32(2.5),
        np.int64(-7),
        np.bool_(True),
        np.asfortranarray(shared),
        shared,
        shared,
        (1,),
        (1, 2),
        {},
    ]
    _same(load_plain(pickle.dumps(value, protocol=protocol)), value)


def test_module_names_of_both_numpy_versions():
    data = pickle.dumps(np.arange(3.0), protocol=2)
    names = {b"numpy.core.multiarray", b"numpy._core.multiarray"}
    (own,) = [name for name in names if name in data]
    for name in names:
        assert load_plain(data.replace(own, name)).tolist() == [0, 1, 2]
    assert b"numpy.core.multiarray" in dump_plain(np.arange(3.0))  # NumPy 1 has no other


class _Call:
    """What pickle turns into a call of any function."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def _attacks(trace):
    yield "system", _Call(os.system, f"touch {trace}")
    yield "eval", _Call(eval, f"open({str(trace)!r}, 'w')")
    yield "codec", _Call(codecs.encode, "x", "rot13")
    yield "subprocess", {"pred_boxes": _Call(subprocess.check_call, ["touch", str(trace)])}
    yield "class", _Call
    yield "objects", np.array([_Call(os.system, f"touch {trace}")], dtype=object)
    yield "records", np.zeros(2, dtype=[("a", "f4")])
    yield "text array", np.array(["a"])
    yield "dates", np.array(["2020-01-01"], dtype="datetime64[D]")
    yield "a type", np.dtype("f4")
    yield "the class", np.ndarray
    yield "a set", {1, 2}
    yield "complex", 1 + 2j
    yield "bytes of length", _Call(bytes, 10)
    yield "partly allowed", _Call(np.ndarray, (2,))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_anything_else_is_refused_and_not_run(tmp_path, protocol):
    trace = tmp_path / "was_here"
    for _, attack in _attacks(trace):
        program = pickle.dumps(attack, protocol=protocol)
        with pytest.raises(UnsafePickleError):
            load_plain(program)
    assert not trace.exists()


def test_the_attack_works_on_pickle_itself(tmp_path):
    """Otherwise the test above proves nothing."""
    pickle.loads(pickle.dumps(_Call(os.system, f"touch {tmp_path / 'was_here'}")))
    assert (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # a call without protocol
        b"(S'true'\nios\nsystem\n.",  # INST
        b"Pname\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension code
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x01OK\x00K\x01\x87RK\x05\x86R.",
    ],
)
def test_programs_written_by_hand(program):
    with pytest.raises(UnsafePickleError):
        load_plain(program)


def test_small_file_of_endless_content():
    """Each list holds the one before twice: 2 ** 60 items from 200 bytes; and one that holds itself."""
    value = []
    for _ in range(40):
        value = [value, value]
    with pytest.raises(UnsafePickleError, match="endless"):
        load_plain(pickle.dumps(value))
    value = []
    value.append(value)
    with pytest.raises(UnsafePickleError, match="endless"):
        load_plain(pickle.dumps(value))


def _call(name, arguments):
    """``name(*arguments)`` in a pickle program, whose text stands in the memo at 0."""
    return b"c" + name + b"\n(" + arguments + b"tR"


@pytest.mark.parametrize("repeats", [1, 40])
def test_content_that_grows_is_refused(repeats):
    """A text of 1 MB encoded again and again, and arrays that all show the same bytes: each time anew in memory."""
    text = b"\x80\x02]X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x00a"
    encoded = _call(b"_codecs\nencode", b"h\x00X\x06\x00\x00\x00latin1") + b"a"
    dtype = _call(b"numpy\ndtype", b"X\x02\x00\x00\x00u1I00\nI01\n")
    state = b"(I1\n(J" + (1 << 20).to_bytes(4, "little") + b"t" + dtype + b"I00\nh\x01tb"
    array = _call(b"numpy.core.multiarray\n_reconstruct", b"cnumpy\nndarray\n(I0\ntC\x01b") + state + b"a"
    data = b"\x80\x03]B" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x01a"
    for program in (text + encoded * repeats + b".", data + array * repeats + b"."):
        if repeats == 1:
            assert len(load_plain(program)[-1]) == 1 << 20
        else:
            with pytest.raises(UnsafePickleError, match="grows without measure"):
                load_plain(program)


def test_deep_nesting_is_no_crash():
    """A tuple in a tuple ... a hundred thousand times: as a value, a key, a name."""
    deep = b"\x80\x02)" + b"\x85" * 100_000
    for program in (deep + b".", b"\x80\x02}" + deep[2:] + b"Ns.", deep + b"X\x01\x00\x00\x00a\x93."):
        with pytest.raises(ValueError, match=r"endless|a key of type tuple|damaged|the name"):
            load_plain(program)


def test_announced_size_costs_no_memory():
    huge = b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"."
    with pytest.raises(ValueError, match=r"not enough data|expected"):
        load_plain(huge)
    with pytest.raises(ValueError, match="damaged"):
        load_plain(b"\x80\x02r\xff\xff\xff\xff.")  # a place in the memo with an empty stack


@given(st.binary(max_size=60))
def test_noise_is_an_error_and_never_a_crash(data):
    with suppress(ValueError):
        load_plain(data)


@given(st.data())
def test_damaged_files(data):
    whole = bytearray(pickle.dumps({"pred_boxes": np.ones((2, 6), np.float32), "restore": True}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        load_plain(bytes(whole))


def test_written_files_are_correct_programs():
    """The disassembler checks stack and marks."""
    listing = io.StringIO()
    pickletools.dis(dump_plain({"a": np.ones((2, 3)), "b": [1, (None, True)]}), out=listing)
    assert "highest protocol among opcodes = 3" in listing.getvalue()


def test_other_kinds_are_not_written():
    for value in ({1, 2}, object(), np.array(["a"]), 1j):
        with pytest.raises(TypeError, match="cannot be written as plain data"):
            dump_plain(value)


def test_nothing_is_imported():
    """A name that exists on disk but was never imported stays unimported."""
    code = (
        "import sys\n"
        "from nndet_psma.hosts.boxes_pkl.read import load_plain\n"
        "try:\n    load_plain(b'cantigravity\\nfly\\n.')\n"
        "except ValueError as error:\n    print(error)\n"
        "print('antigravity' in sys.modules, 'pickle' in sys.modules and 'loads')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "the name antigravity.fly"
    assert done.stdout.splitlines()[1].startswith("False")
