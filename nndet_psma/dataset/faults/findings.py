"""One thing that a check has found, and the report of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nndet_psma.core.errors import UserError
from nndet_psma.core.relative_paths import relative_text
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.faults.kinds import KINDS, Fault, Severity

SCHEMA = "nndet_psma.check_report"
VERSION = 1


@dataclass(frozen=True)
class Finding:
    """A problem of a raw task.

    Attributes:
        kind: name of the catalogue (:mod:`nndet_psma.dataset.faults.kinds`), to count and filter by.
        severity: that of the kind.
        file: where.
        what: the problem in words.
        found: what is there.
        expected: what should be there.
        remedy: how to mend it.

    Raises:
        ValueError: the kind is not in the catalogue, or has another severity there.
    """

    kind: str
    severity: Severity
    file: str | None
    what: str
    found: str | None = None
    expected: str | None = None
    remedy: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"'{self.kind}' is no kind of the catalogue")
        if self.severity != KINDS[self.kind].severity:
            raise ValueError(f"'{self.kind}' is always {KINDS[self.kind].severity}, not {self.severity}")

    @classmethod
    def of(cls, error: UserError, kind: str | None = None) -> Finding:
        """The finding that says what ``error`` says.

        Args:
            error: the problem.
            kind: its kind; not needed for a :class:`~nndet_psma.dataset.faults.kinds.Fault`, which knows its own.

        Raises:
            ValueError: the kind is not in the catalogue, or none is given and the error has none.
        """
        name = error.kind if isinstance(error, Fault) else kind
        if name is None or name not in KINDS:
            raise ValueError(f"'{name}' is no kind of the catalogue")
        severity = KINDS[name].severity
        return cls(name, severity, error.file, error.what, error.found, error.expected, error.remedy)

    def to_error(self) -> UserError:
        """The error that says what the finding says."""
        return UserError(
            self.what, file=self.file, expected=self.expected, found=self.found, remedy=self.remedy
        )


@dataclass(frozen=True)
class CheckReport:
    """Everything a check has found, and the size of what it looked at.

    Attributes:
        task: folder name.
        full: all voxels were read.
        training_cases: complete ones.
        test_cases: complete ones.
        lesions: of the training cases, by their JSON.
        cases_without_lesions: training case ids; not a fault.
        findings: errors before warnings, else in the order of the files.
    """

    task: str
    full: bool
    training_cases: int = 0
    test_cases: int = 0
    lesions: int = 0
    cases_without_lesions: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """How many findings stop the preparation."""
        return sum(finding.severity == "error" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by kind, the most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def to_json(self, root: Path) -> dict[str, Any]:
        """The report file: schema name and version, sizes, counts by kind, findings.

        Args:
            root: folder of the task; paths in the file are relative to it, for it is handed on.
        """
        content = to_plain(self)
        findings = [
            {key: text and relative_text(text, root) for key, text in finding.items()}
            for finding in content.pop("findings")
        ]
        warnings = len(findings) - self.errors
        return {
            "schema": SCHEMA,
            "version": VERSION,
            **content,
            "errors": self.errors,
            "warnings": warnings,
            "counts": self.counts(),
            "findings": findings,
        }
