"""The message a user reads, and its way out of a worker process."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from nndet_psma.core.errors import UserError, did_you_mean, name_error, utf8_path


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


def test_paths_for_libraries_in_c():
    assert utf8_path(Path("a/é.nii")) == "a/é.nii"
    with pytest.raises(UserError, match=r"the name is not UTF-8\. Rename"):
        utf8_path(Path(os.fsdecode(b"caf\xe9.nii")))


def test_errors_of_names(tmp_path):
    with pytest.raises(OSError, match="too long") as caught:
        (tmp_path / ("x" * 300)).open()
    assert "the name is too long for the file system. Give the case" in str(name_error(caught.value))
    assert name_error(OSError(errno.EIO, "input/output error")) is None
    with pytest.raises(UnicodeEncodeError) as caught:
        "caf\udce9".encode()
    assert str(name_error(caught.value)).startswith("caf\udce9: the name is not UTF-8")
    with pytest.raises(UnicodeEncodeError) as caught:
        "é".encode("ascii")
    assert name_error(caught.value) is None


def test_the_nearest_name_is_offered():
    known = ["Task100_PSMAPhantom", "Task200_Pelvis"]
    assert did_you_mean("Task100_PSMAPhantm", known) == "Did you mean Task100_PSMAPhantom?"
    assert did_you_mean("900", known) is None
    error = UserError("no task '1'", expected="a task", remedy=did_you_mean("Task20_Pelvis", known))
    assert str(error) == "no task '1'; expected a task. Did you mean Task200_Pelvis?"
