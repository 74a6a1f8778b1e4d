"""Named classes that users and third parties add: own decorator, entry points, or a dotted path.

Names stand in plans and thresholds, and these come from anywhere. Whoever names a module makes its code run, so dotted
paths count only where the user says so: with ``--trust-code``, in his own configuration, or by registering the class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from nndet_psma.core.errors import UserError, did_you_mean

T = TypeVar("T")

TRUST_VARIABLE = "NNDET_PSMA_TRUST_CODE"
"""Set to 1 where dotted paths in files are imported; a variable, so that processes that are started know it, too."""


@contextmanager
def trusted_code(trusted: bool = True) -> Iterator[None]:
    """Within the block dotted paths are imported; ``trusted=False`` changes nothing."""
    before = os.environ.get(TRUST_VARIABLE)
    if trusted:
        os.environ[TRUST_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(TRUST_VARIABLE, None)
        else:
            os.environ[TRUST_VARIABLE] = before


class Registry(Generic[T]):
    """Maps names to classes; refuses a name twice; a miss lists what exists.

    Names are part of file formats (plans and checkpoints hold them): never rename a registered class.

    Args:
        kind: what is registered, for messages ("planner").
        group: entry-point group searched for names that are not registered in this process.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._classes: dict[str, type[T]] = {}

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator; the key is the class name.

        Raises:
            ValueError: another class of that name is registered already.
        """
        name = cls.__name__
        other = self._classes.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"two {self.kind}s are named {name}: {other.__module__} and {cls.__module__}")
        self._classes[name] = cls
        return cls

    def __getitem__(self, name: str) -> type[T]:
        """The class called ``name``: registered, offered by an entry point, or a dotted path that may be imported.

        Raises:
            UserError: nothing of that name (the message lists what exists), or code that nobody vouches for.
        """
        if name not in self._classes:
            self._load(name)
        if name in self._classes:
            return self._classes[name]
        raise UserError(
            f"unknown {self.kind} '{name}'",
            expected=f"one of {', '.join(self) or 'none registered'}",
            remedy=did_you_mean(name, self),
        )

    def package_of(self, name: str) -> tuple[str, str] | None:
        """Name and version of the installed package whose entry point brings ``name``; None where none does."""
        found = (entry.dist for entry in self._entries() if entry.name == name)
        package = next((each for each in found if each is not None), None)
        return None if package is None else (package.name, package.version)

    def __contains__(self, name: object) -> bool:
        return name in set(self)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._classes, *(entry.name for entry in self._entries())}))

    def _entries(self) -> list[EntryPoint]:
        return [] if self.group is None else list(entry_points(group=self.group))

    def _load(self, name: str) -> None:
        matching = [entry for entry in entry_points(group=self.group or "") if entry.name == name]
        if len(matching) > 1:
            raise UserError(
                f"{self.kind} '{name}' is offered by several installed packages",
                found=", ".join(entry.value for entry in matching),
                remedy="Uninstall all but one of them",
            )
        if matching:
            try:
                self._classes[name] = matching[0].load()
            except MemoryError:
                raise  # not the package's fault
            except (
                Exception
            ) as error:  # another package's code: it may fail in any way, a SyntaxError included
                raise UserError(
                    f"{self.kind} '{name}' cannot be imported",
                    found=str(error) or type(error).__name__,
                    remedy=f"Mend or uninstall the package that offers {matching[0].value}",
                ) from None
        elif "." in name:
            self._classes[name] = _import_dotted(name, self.kind)


def _import_dotted(path: str, kind: str) -> type:
    if os.environ.get(TRUST_VARIABLE) != "1":
        raise UserError(
            f"{kind} '{path}' is code from outside this package, and was not imported",
            remedy="If you know it and trust it, add --trust-code (in Python: trust_code=True), or register the class "
            "with -o additional_imports=[MODULE]",
        )
    module_name, _, class_name = path.rpartition(".")
    try:
        found: object = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two: dots in front
        raise UserError(
            f"{kind} '{path}' cannot be imported",
            found=str(error),
            remedy="Install the package, or correct the path",
        ) from None
    if not isinstance(found, type):
        raise UserError(
            f"{kind} '{path}' is not a class",
            expected="the dotted path of a class, e.g. my_package.planner.MyPlanner",
        )
    return found
