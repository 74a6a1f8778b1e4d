"""What the machine refuses is said in one line; everything else stays what it is."""

import errno
import os

import numpy as np
import pytest
import torch

from nndet_psma.core.errors import UserError
from nndet_psma.core.shortages import memory_explained, shortage


def _os_error(code, file=None):
    return OSError(code, os.strerror(code), file)


DENIED = "/a/b: cannot be read or written; found {}. Check its permissions."
MEMORY = "memory ran out. Lower the batch size or the number of processes, or end other programs."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (_os_error(errno.EROFS, "/a/b"), DENIED.format("Read-only file system")),
        (_os_error(errno.EACCES, "/a/b"), DENIED.format("Permission denied")),
        (_os_error(errno.EMFILE), "too many open files. Raise the limit: ulimit -n 4096."),
        (_os_error(errno.ENOMEM), MEMORY),
        (ImportError("x.so: failed to map segment from shared object"), MEMORY),
        (ImportError("No module named 'x'"), None),
        (_os_error(errno.EACCES), None),  # of a process, not of a file
        (_os_error(errno.EIO, "/a"), None),
        (RuntimeError("shapes differ"), None),
        (KeyError("a"), None),
    ],
)
def test_shortage(error, text):
    told = shortage(error)
    assert (None if told is None else str(told)) == text


def test_memory_that_libraries_really_cannot_get():
    wanted = r"^memory ran out; found {} more wanted\. Lower x\.$"
    with pytest.raises(UserError, match=wanted.format(r"4\.00 EiB")), memory_explained("Lower x"):
        np.empty(1 << 62, np.uint8)
    with pytest.raises(UserError, match=wanted.format(r"1152921504\.607 GB")), memory_explained("Lower x"):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(ZeroDivisionError), memory_explained("Lower x"):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="another"), memory_explained("Lower x"):
        raise RuntimeError("another")
