"""One thing that a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nndet_psma.core.errors import UserError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A problem of a raw task.

    Attributes:
        kind: short stable name, to count and filter by.
        severity: an error stops the preparation; a warning is for the user to judge.
        file: where.
        what: the problem in words.
        found: what is there.
        expected: what should be there.
        remedy: how to mend it.
    """

    kind: str
    severity: Severity
    file: str | None
    what: str
    found: str | None = None
    expected: str | None = None
    remedy: str | None = None

    @classmethod
    def of(cls, error: UserError, kind: str, severity: Severity = "error") -> Finding:
        """The finding that says what ``error`` says."""
        return cls(kind, severity, error.file, error.what, error.found, error.expected, error.remedy)

    def to_error(self) -> UserError:
        """The error that says what the finding says."""
        return UserError(
            self.what, file=self.file, expected=self.expected, found=self.found, remedy=self.remedy
        )
