"""Pickle files that hold nothing but numbers, written for nnDetection's own tools.

Written by hand rather than by Python: what NumPy 2 pickles names a module that NumPy 1 does not have, and nnDetection
usually runs on NumPy 1. :mod:`nndet_psma.hosts.boxes_pkl.read` reads them.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dump_plain(value: Any) -> bytes:
    """The same kinds of value as a pickle file (protocol 3) that NumPy 1 and 2 both read.

    Raises:
        TypeError: another kind of value.
    """
    return b"\x80\x03" + _encoded(value) + b"."


def _encoded(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<I", len(text)) + text
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_encoded, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_encoded, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_encoded(key) + _encoded(item) for key, item in value.items()) + b"u"
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return _encoded_array(value)
    raise TypeError(f"cannot be written as plain data: {type(value).__name__}")


def _encoded_array(array: NDArray[Any]) -> bytes:
    """What NumPy's own reduction of an array is, with the module name that both NumPy 1 and 2 know."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    data = little.tobytes()
    code, order = little.dtype.str[1:], "|" if array.dtype.itemsize == 1 else "<"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _encoded((0,)) + b"C\x01b\x87R"
    dtype = b"cnumpy\ndtype\n" + _encoded((code, False, True)) + b"R"
    dtype += _encoded((3, order, None, None, None, -1, -1, 0)) + b"b"
    content = b"B" + struct.pack("<I", len(data)) + data
    return empty + b"(" + _encoded(1) + _encoded(array.shape) + dtype + b"\x89" + content + b"tb"
