"""Pickle files that hold nothing but numbers, read without Python's pickle machinery.

nnDetection stores boxes in pickle files, and a pickle file is a program. Here its instructions are executed by a small
machine that knows plain values, containers and numeric NumPy arrays: nothing is imported and no foreign function is
called, so a file can do no more than describe data. Every other instruction or name is an error.

The format is that of Python's ``pickletools`` documentation; arrays are what NumPy's ``ndarray.__reduce__`` writes,
under the module names of NumPy 1 (``numpy.core``) and 2 (``numpy._core``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nndet_psma.hosts.boxes_pkl.stand_ins import (
    CALLS,
    GLOBALS,
    ORDERS,
    ArrayState,
    DType,
    GlobalName,
    UnsafePickleError,
)

_MAX_DEPTH = 50
_MAX_ITEMS = 100_000
_SLACK_BYTES = 1 << 20  # that a file may make beside its own size: plain data make no more than they are


def load_plain(data: bytes) -> Any:
    """Value of a pickle file: None, bool, int, float, str, bytes, list, tuple, dict, numeric arrays and NumPy scalars.

    Raises:
        UnsafePickleError: the file names a class or function other than NumPy's own for arrays, or uses an
            instruction that plain data do not need.
        ValueError: the file is damaged.
    """
    import pickletools

    machine = _Machine(len(data) + _SLACK_BYTES)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.execute(opcode.name, argument)
            if opcode.name == "STOP":
                return _Finisher(len(data) + _SLACK_BYTES).finished(machine.stack[-1])
    except UnsafePickleError:
        raise
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"damaged: {error}") from None
    raise ValueError("damaged: it has no end")


class _Machine:
    """Stack, marks and memo of a pickle program, which may make ``left`` bytes of texts."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def execute(self, name: str, argument: Any) -> None:
        if name in _IGNORED:
            return
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _HANDLERS:
            _HANDLERS[name](self, argument)
        else:
            raise UnsafePickleError(f"instruction {name}")

    def marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def put(self, argument: Any) -> None:
        self.memo[len(self.memo) if argument is None else int(argument)] = self.stack[-1]

    def get(self, argument: Any) -> None:
        self.stack.append(self.memo[int(argument)])

    def make_tuple(self, _: Any) -> None:
        items = self.marked()  # before the stack is named: it becomes another one
        self.stack.append(tuple(items))

    def make_list(self, _: Any) -> None:
        items = self.marked()
        self.stack.append(items)

    def make_dict(self, _: Any) -> None:
        items = self.marked()
        self.stack.append({})
        self._set(items)

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def appends(self, _: Any) -> None:
        items = self.marked()
        self._list().extend(items)

    def setitem(self, _: Any) -> None:
        items, self.stack = self.stack[-2:], self.stack[:-2]
        self._set(items)

    def setitems(self, _: Any) -> None:
        items = self.marked()
        self._set(items)

    def find_global(self, argument: Any) -> None:
        name = argument
        if name is None:
            member, module = self.stack.pop(), self.stack.pop()
            name = f"{module} {member}"
        if name not in GLOBALS:
            raise UnsafePickleError(f"the name {str(name).replace(' ', '.')}")
        self.stack.append(GlobalName(GLOBALS[name]))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, GlobalName) or function.name not in CALLS:
            raise UnsafePickleError(f"a call of {getattr(function, 'name', type(function).__name__)}")
        made = CALLS[function.name](*arguments)
        self.left -= len(made) if isinstance(made, bytes) else 0
        if self.left < 0:
            raise UnsafePickleError("content that grows without measure")
        self.stack.append(made)

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, DType):
            order = state[1]
            if order not in ORDERS or any(part is not None for part in state[2:5]):
                raise UnsafePickleError("an array of records")
            target.order = order
        elif isinstance(target, ArrayState):
            _, target.shape, target.dtype, fortran, target.data = state
            target.fortran = bool(fortran)
            if not isinstance(target.dtype, DType) or not isinstance(target.data, bytes | bytearray):
                raise UnsafePickleError("an array of objects")
        else:
            raise UnsafePickleError("an object with a state")

    def _list(self) -> list[Any]:
        if not isinstance(self.stack[-1], list):
            raise ValueError("damaged: an item without a list")
        return self.stack[-1]

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("damaged: an item without a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | bool | None):
                raise UnsafePickleError(f"a key of type {type(key).__name__}")
            target[key] = value


_IGNORED = {"PROTO", "FRAME", "STOP"}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def handler(machine: _Machine, _: Any) -> None:
        if len(machine.stack) < count:
            raise ValueError("damaged: a tuple without items")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return handler


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems,
    "GLOBAL": _Machine.find_global,
    "STACK_GLOBAL": _Machine.find_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
}


class _Finisher:
    """Puts arrays, of ``left_bytes`` together, in place of their descriptions; a file may be nested deeply, contain
    itself, or repeat itself.
    """

    def __init__(self, left_bytes: int) -> None:
        self.left, self.left_bytes = _MAX_ITEMS, left_bytes

    def finished(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if depth > _MAX_DEPTH or self.left < 0:
            raise UnsafePickleError("endless nesting")
        if isinstance(value, ArrayState):
            self.left_bytes -= len(value.data) if value.built is None else 0
            if self.left_bytes < 0:
                raise UnsafePickleError("content that grows without measure")
            return value.build()
        if isinstance(value, list | tuple):
            return type(value)(self.finished(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return {key: self.finished(item, depth + 1) for key, item in value.items()}
        if isinstance(value, GlobalName | DType):
            raise UnsafePickleError("a reference to NumPy itself")
        return value
