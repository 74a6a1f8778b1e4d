"""Folds: patients whole, strata and lesions spread, a lesion in every validation set; every compromise is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint
from nndet_psma.artifacts.plan import FoldPlan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.splits import Fold, make_folds, read_splits


@dataclass(frozen=True)
class FoldChoice:
    """Folds with the rule and the evidence that gave them."""

    folds: list[FoldPlan]
    rule: str
    evidence: str


def choose_folds(
    fingerprint: Fingerprint, splits_file: Path, *, num_folds: int, stratify_by: str, seed: int
) -> FoldChoice:
    """The user's splits.json where there is one, else folds grouped by patient.

    Raises:
        UserError: splits.json is wrong, one patient only, lesions in one patient only, or a fold would train
            without a lesion.
    """
    if splits_file.is_file():
        return _own_folds(fingerprint, splits_file)
    patients = _by_patient(fingerprint.cases)
    count, reason = fold_count(
        num_folds, len(patients), sum(any(c.lesions for c in cases) for cases in patients.values())
    )
    coarse, fine, notes = choose_strata(patients, count)
    folds = make_folds(
        [case.case_id for case in fingerprint.cases],
        patients={case.case_id: case.patient_id for case in fingerprint.cases},
        strata=coarse,
        substrata=fine,
        lesion_counts={case.case_id: len(case.lesions) for case in fingerprint.cases},
        num_folds=count,
        seed=seed,
    )
    known = any(case.stratum for case in fingerprint.cases)
    by = f"'{stratify_by}' and lesion count" if known else "lesion count"
    evidence = [f"{len(patients)} patients", *reason, *notes, _balance(fingerprint, folds)]
    return FoldChoice(
        _plans(folds), f"folds.choose_folds: patients whole, spread by {by}", "; ".join(evidence)
    )


def fold_count(wanted: int, patients: int, with_lesions: int) -> tuple[int, list[str]]:
    """Folds and why they are fewer than wanted: two patients and one with lesions in every validation set, if possible.

    Raises:
        UserError: fewer than two patients have lesions; then one side of every fold would have none.
    """
    if with_lesions == 0:
        raise UserError(
            "no training case has a lesion, so there is nothing to learn",
            remedy="Check labelsTr, or add cases with lesions",
        )
    if with_lesions < 2:
        raise UserError(
            "cross-validation needs lesions in at least two patients: one to train on, one to tune on",
            found=f"{patients} patients, {with_lesions} with lesions",
            remedy="Add patients with lesions; cases of one patient cannot be on both sides",
        )
    count = max(2, min(wanted, patients // 2, with_lesions))
    if count == wanted:
        return count, []
    limit = "patients" if patients // 2 <= with_lesions else "patients with lesions"
    return count, [f"{count} folds instead of {wanted}: too few {limit}"]


def choose_strata(
    patients: Mapping[str, Sequence[CaseFingerprint]], folds: int
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Strata by case id: the clinical column, and within it few or many lesions, as far as the numbers allow.

    A value of the column with fewer patients than folds cannot reach every fold and joins the stratum "other" with
    its like; within a value the lesion count splits the patients only where both halves reach every fold.

    Returns:
        coarse strata, fine strata, and what was merged in words.
    """
    values = {name: min(case.stratum for case in cases) for name, cases in patients.items()}
    lesions = {name: sum(len(case.lesions) for case in cases) for name, cases in patients.items()}
    sizes = Counter(values.values())
    small = sorted(value for value, size in sizes.items() if size < folds) if len(sizes) > 1 else []
    notes = [f"too few patients of {', '.join(repr(v) for v in small)} to be in every fold"] if small else []
    merged = {name: "other" if value in small else value for name, value in values.items()}
    halves = _lesion_halves(merged, lesions, folds)
    coarse = {case.case_id: merged[name] for name, cases in patients.items() for case in cases}
    fine = {
        case.case_id: f"{merged[name]}/{halves[name]}" for name, cases in patients.items() for case in cases
    }
    return coarse, fine, notes


def _lesion_halves(strata: Mapping[str, str], lesions: Mapping[str, int], folds: int) -> dict[str, str]:
    """ "few" or "many" lesions (at most, or above the stratum's median) by patient; "" where a half is too small."""
    halves = dict.fromkeys(strata, "")
    for stratum in set(strata.values()):
        names = [name for name in strata if strata[name] == stratum]
        middle = sorted(lesions[name] for name in names)[(len(names) - 1) // 2]
        many = [name for name in names if lesions[name] > middle]
        if min(len(many), len(names) - len(many)) >= folds:
            halves.update({name: "many" if name in many else "few" for name in names})
    return halves


def _own_folds(fingerprint: Fingerprint, file: Path) -> FoldChoice:
    patients = {case.case_id: case.patient_id for case in fingerprint.cases}
    folds = read_splits(file, case_ids=list(patients), patients=patients)
    lesions = {case.case_id: len(case.lesions) for case in fingerprint.cases}
    for number, fold in enumerate(folds):
        if not any(lesions[case_id] for case_id in fold.train):
            raise UserError(
                f"fold {number} would train without a lesion",
                file=file,
                remedy="Move cases with lesions into its 'train'",
            )
    empty = [str(n) for n, fold in enumerate(folds) if not any(lesions[case_id] for case_id in fold.val)]
    notes = [f"no lesion to tune on in fold {', '.join(empty)}"] if empty else []
    notes.append(_balance(fingerprint, folds))
    return FoldChoice(_plans(folds), f"{file.name} of the user", "; ".join(notes))


def _by_patient(cases: Sequence[CaseFingerprint]) -> dict[str, list[CaseFingerprint]]:
    grouped: dict[str, list[CaseFingerprint]] = {}
    for case in cases:
        grouped.setdefault(case.patient_id, []).append(case)
    return grouped


def _balance(fingerprint: Fingerprint, folds: Sequence[Fold]) -> str:
    cases = {case.case_id: case for case in fingerprint.cases}
    parts = [
        f"{len({cases[c].patient_id for c in fold.val})}/{sum(len(cases[c].lesions) for c in fold.val)}"
        for fold in folds
    ]
    return f"patients/lesions validated: {', '.join(parts)}"


def _plans(folds: Sequence[Fold]) -> list[FoldPlan]:
    return [FoldPlan(list(fold.train), list(fold.val)) for fold in folds]
