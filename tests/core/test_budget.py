"""What files unfold to is bounded before it is there."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from nndet_psma.core.budget import Budget, BudgetError, read_npz


def _npz(file, **members: bytes):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file


def _header(shape, descr="<f8", body=b"") -> bytes:
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": descr, "fortran_order": False, "shape": shape})
    return text.getvalue() + body


def test_a_budget_ends():
    budget = Budget(10)
    budget.take(4)
    budget.take(6)
    with pytest.raises(BudgetError, match="it unfolds to more than 10 bytes"):
        budget.take(1)


def test_what_numpy_writes_comes_back(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "c/d": np.zeros((0, 4)),
        "e": np.array("text"),
        "f": np.array([True, False]),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz", Budget(10_000))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_header((10**9,)), "does not hold what its header says"),  # 8 GB announced, nothing there
        (_header((2, 10**30)), "does not hold what its header says"),
        (_header((-1,), body=bytes(8)), "does not hold what its header says|shape is not valid"),
        (_header((1,), body=bytes(16)), "does not hold what its header says"),
        (_header((1,), "|O", bytes(8)), "does not hold what its header says"),
        (bytes(50 << 20), "it unfolds to more than 1000000 bytes"),  # 50 kB in the file
        (b"no array", "magic string"),
    ],
)
def test_bombs(tmp_path, content, message):
    file = _npz(tmp_path / "a.npz", a=content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        read_npz(file, Budget(1_000_000))
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_the_budget_is_that_of_all_members(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **{str(n): np.zeros(1000) for n in range(10)})
    with pytest.raises(BudgetError):
        read_npz(tmp_path / "a.npz", Budget(50_000))
