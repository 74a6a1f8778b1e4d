"""Which cases a task has: names, patients, who is healthy, who is scanned twice.

What case i is depends on the seed and i only, never on the number of cases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Split = Literal["train", "test"]

BLOCK = 8
"""In every block of eight cases one has no positive node, and one patient is scanned twice in a row."""

# Xu et al. 2023, table 1, training set
RISK_GROUPS = {"metastatic": 31, "high": 13, "intermediate": 7, "unknown": 1}
MEDIAN_PSA = {"metastatic": 3.0, "high": 1.2, "intermediate": 0.7, "unknown": 0.8}
"""ng/mL; the order of the groups is real, the numbers are made up."""


@dataclass(frozen=True)
class CaseSpec:
    """What is fixed about a case before it is drawn.

    Attributes:
        case_id: ``psma_000`` in training, ``psma_test_000`` in test; other kinds of task have another stem.
        split: "train" or "test".
        index: of the case in its split.
        patient: of the patient in its split; two scans of one patient have neighbouring cases.
        diseased: has at least one positive node.
        seed: of the task.
    """

    case_id: str
    split: Split
    index: int
    patient: int
    diseased: bool
    seed: int

    @property
    def patient_id(self) -> str:
        """Identifier of the patient, unique over both splits."""
        return f"{'P' if self.split == 'train' else 'T'}{self.patient:03d}"

    def chance(self, purpose: str) -> np.random.Generator:
        """A stream of random numbers of its own for "patient", "scan", "header" or "clinical".

        "patient" and "clinical" are shared by all scans of the patient.
        """
        purposes = {"patient": 0, "scan": 1, "header": 2, "clinical": 3}
        owner = self.patient if purpose in ("patient", "clinical") else self.index
        return np.random.default_rng([self.seed, int(self.split == "test"), purposes[purpose], owner])


def plan_case(seed: int, split: Split, index: int, stem: str = "psma") -> CaseSpec:
    """The specification of one case of a patient; needs nothing but its own number.

    Args:
        seed: of the task.
        split: "train" or "test".
        index: of the case in its split.
        stem: first part of its identifier.
    """
    block, place = divmod(index, BLOCK)
    rng = np.random.default_rng([seed, int(split == "test"), 4, block])
    second = 1 + int(rng.integers(BLOCK - 1))  # this case is the second scan of the one before
    healthy = int(rng.choice([k for k in range(BLOCK) if k not in (second, second - 1)]))
    patient = block * (BLOCK - 1) + place - (place >= second)
    return CaseSpec(name_case(stem, split, index), split, index, patient, place != healthy, seed)


def name_case(stem: str, split: Split, index: int) -> str:
    """Identifier of a case: ``stem_000`` in training, ``stem_test_000`` in test."""
    return f"{stem if split == 'train' else f'{stem}_test'}_{index:03d}"


def clinical_row(spec: CaseSpec, *, prostatectomy: bool) -> dict[str, str]:
    """Row of ``clinical.csv`` of a case: case_id, patient_id, nccn_risk, psa (ng/mL), prostatectomy (0 or 1)."""
    rng = spec.chance("clinical")
    shares = np.array(list(RISK_GROUPS.values()), dtype=float)
    risk = str(rng.choice(list(RISK_GROUPS), p=shares / shares.sum()))
    psa = MEDIAN_PSA[risk] * np.exp(rng.normal(0, 0.8)) * (1.0 if spec.diseased else 0.4)
    return {
        "case_id": spec.case_id,
        "patient_id": spec.patient_id,
        "nccn_risk": risk,
        "psa": f"{max(psa, 0.05):.2f}",
        "prostatectomy": str(int(prostatectomy)),
    }
