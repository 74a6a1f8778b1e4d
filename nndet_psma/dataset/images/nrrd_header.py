"""The header of a NRRD file judged before ITK sees it.

ITK's reader writes beyond its buffers on long lines that it cannot parse, which ends the whole process.
"""

from __future__ import annotations

import os
from pathlib import Path

from nndet_psma.dataset.images.nifti_bytes import damaged

_MAGIC = b"NRRD"
_LONGEST_FIELD = 1000
"""Bytes of a line with a field of the format; the longest, three vectors of numbers, has some 200."""
_LONGEST_LINE = 1 << 20
"""Of comments and of keys with values of their own, which writers of segmentations use; they are not parsed."""
_MOST_LINES = 10_000


def check_nrrd_header(file: Path) -> None:
    """Every line is a comment, a field of the format, or a key with a value; any other file passes.

    Source: "Definition of NRRD File Format", http://teem.sourceforge.net/nrrd/format.html, sections 2 and 3.

    Raises:
        Fault: the header is damaged.
    """
    if not os.access(file, os.R_OK):
        return  # ITK says so
    with file.open("rb") as handle:
        if handle.readline(_LONGEST_FIELD)[: len(_MAGIC)] != _MAGIC:
            return
        for number in range(2, _MOST_LINES):
            line = handle.readline(_LONGEST_LINE).rstrip(b"\r\n")
            if not line:
                return
            if line.startswith(b"#"):
                continue
            longest = _LONGEST_LINE - 2 if b":=" in line else _LONGEST_FIELD
            if b"\0" in line or b":" not in line or len(line) > longest:
                raise damaged(file, f"line {number} of its header is neither a field nor a comment")
    raise damaged(file, f"a header of more than {_MOST_LINES} lines")
