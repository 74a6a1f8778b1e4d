"""The message a user reads, and its way out of a worker process."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from nndet_psma.core.errors import UserError


def _raise(file):
    raise UserError("is broken", file=file, expected="whole", found="half", remedy="Mend it")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("is broken"), "is broken."),
        (UserError("is broken."), "is broken."),
        (UserError("is broken", file=Path("a/b.nii")), "a/b.nii: is broken."),
        (UserError("is broken", found="half"), "is broken; found half."),
        (UserError("is broken", expected="whole", found="half"), "is broken; expected whole; found half."),
        (UserError("is broken", remedy="Mend it."), "is broken. Mend it."),
    ],
)
def test_text(error, text):
    assert str(error) == text


def test_pickling_keeps_every_part():
    with pytest.raises(UserError) as caught:
        _raise("f")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert vars(copy) == vars(caught.value)
    assert str(copy) == str(caught.value)


def test_survives_a_worker_process():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        error = pool.submit(_raise, "f").exception()
    assert isinstance(error, UserError)
    assert str(error) == "f: is broken; expected whole; found half. Mend it."
    assert error.file == "f"
