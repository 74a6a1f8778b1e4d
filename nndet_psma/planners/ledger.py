"""Where planners write down why: one rule and one piece of evidence per decided key."""

from __future__ import annotations

from nndet_psma.artifacts.plan import Decision


class Ledger:
    """Decisions in the order in which they are taken."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}

    def note(self, key: str, rule: str, evidence: str) -> None:
        """Record why ``key`` (dotted, as in the plan) has its value.

        Raises:
            ValueError: the key was decided before.
        """
        if key in self.decisions:
            raise ValueError(f"'{key}' is decided twice")
        self.decisions[key] = Decision(rule, evidence)
