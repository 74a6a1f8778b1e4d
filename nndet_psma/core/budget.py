"""How many bytes a file may unfold to: small files can stand for more than a machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BudgetError(ValueError):
    """A file unfolds to more than it may."""


class Budget:
    """Bytes that what is read from one file may take; whoever unfolds something asks before it is there.

    Args:
        most: in bytes, or whatever is counted.
        unit: what is counted, for messages.
    """

    def __init__(self, most: int, unit: str = "bytes") -> None:
        self.most = most
        self.left = most
        self.unit = unit

    def take(self, amount: int) -> None:
        """Set ``amount`` bytes aside.

        Raises:
            BudgetError: they are not left.
        """
        self.left -= amount
        if self.left < 0:
            raise BudgetError(f"it unfolds to more than {self.most} {self.unit}")


def read_npz(file: Path, budget: Budget) -> dict[str, NDArray[Any]]:
    """Arrays of an ``.npz`` by name, none of them of objects; sizes are compared before an array is made.

    Raises:
        BudgetError: it unfolds to more than it may.
        ValueError: an array is longer or shorter than its header says, or of objects.
        OSError, KeyError, EOFError, RuntimeError, SyntaxError, zlib.error, zipfile.BadZipFile: it is damaged.
    """
    import zipfile

    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            budget.take(info.file_size)
            with archive.open(info) as member:
                version = npy.read_magic(member)
                if version not in readers:
                    raise ValueError(f"{info.filename} is an array of another version")
                shape, fortran, dtype = readers[version](member)
                told = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
                if dtype.hasobject or min((0, *shape)) < 0 or told != info.file_size - member.tell():
                    raise ValueError(f"{info.filename} does not hold what its header says")
                flat = np.frombuffer(bytearray(member.read()), dtype)
                arrays[info.filename.removesuffix(".npy")] = flat.reshape(
                    shape, order="F" if fortran else "C"
                )
    return arrays
