"""What a pickle file of numbers refers to: stand-ins for NumPy's names, so that nothing of NumPy is called for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_NUMERIC = re.compile(r"(b1|[iu][1248]|f[248])")
ORDERS = ("<", ">", "=", "|")
GLOBALS = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.multiarray scalar": "scalar",
    "numpy._core.multiarray scalar": "scalar",
    "numpy.core.numeric _frombuffer": "frombuffer",
    "numpy._core.numeric _frombuffer": "frombuffer",
    "numpy dtype": "dtype",
    "numpy ndarray": "ndarray",
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
}


class UnsafePickleError(ValueError):
    """The file asks for something other than numbers, text and containers of them."""


@dataclass(frozen=True)
class GlobalName:
    """A name that the file refers to; nothing is imported for it."""

    name: str


@dataclass
class DType:
    """Type of an array's elements: a code such as ``f4`` and its byte order."""

    code: str
    order: str = "="

    def build(self) -> np.dtype[Any]:
        """As NumPy knows it."""
        return np.dtype((self.order if self.order in "<>" else "=") + self.code)


@dataclass
class ArrayState:
    """An array on its way: NumPy first makes an empty one, then gives it its state."""

    shape: tuple[int, ...] = (0,)
    dtype: DType | None = None
    fortran: bool = False
    data: bytes = b""
    scalar: bool = False
    built: Any = None

    def build(self) -> Any:
        """The array (or scalar) itself, in native byte order, writable.

        Raises:
            ValueError: content and shape do not fit.
        """
        if self.built is None:  # once, however often the file refers to it
            self.built = self._build()
        return self.built

    def _build(self) -> Any:
        if self.dtype is None:
            raise ValueError("damaged: an array without content")
        if not all(isinstance(n, int) and n >= 0 for n in self.shape):
            raise ValueError("damaged: an array of no shape")
        flat = np.frombuffer(self.data, self.dtype.build())
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        native = array.astype(array.dtype.newbyteorder("="))  # a copy that may be written to
        return native[()] if self.scalar else native


def _call_reconstruct(*_: Any) -> ArrayState:
    return ArrayState()


def _call_dtype(code: Any, *_: Any) -> DType:
    if not isinstance(code, str) or not _NUMERIC.fullmatch(code):
        raise UnsafePickleError("an array of other than numbers")
    return DType(code)


def _call_scalar(dtype: Any, data: Any) -> ArrayState:
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise UnsafePickleError("a scalar that is no number")
    return ArrayState((), dtype, False, data, scalar=True)


def _call_frombuffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> ArrayState:
    if not isinstance(dtype, DType) or not isinstance(data, bytes | bytearray):
        raise UnsafePickleError("an array of objects")
    return ArrayState(tuple(shape), dtype, order == "F", bytes(data))


def _call_encode(text: Any, encoding: Any) -> bytes:
    """How protocols before 3 write bytes."""
    if encoding != "latin1":
        raise UnsafePickleError("text in another encoding")
    return str(text).encode("latin1")


def _call_bytes(*arguments: Any) -> bytes:
    """How protocols before 3 write no bytes at all."""
    if arguments:
        raise UnsafePickleError("bytes made of something")
    return b""


CALLS: dict[str, Callable[..., Any]] = {
    "bytes": _call_bytes,
    "reconstruct": _call_reconstruct,
    "dtype": _call_dtype,
    "scalar": _call_scalar,
    "frombuffer": _call_frombuffer,
    "encode": _call_encode,
}
