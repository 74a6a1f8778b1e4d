"""Folds for cross-validation: patients stay together, strata and lesions are spread evenly."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.core.atomic import read_json, write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.faults.kinds import Fault, first_error


@dataclass(frozen=True)
class Fold:
    """Case ids of one fold, each sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_folds(
    case_ids: Collection[str],
    *,
    patients: Mapping[str, str],
    strata: Mapping[str, str],
    lesion_counts: Mapping[str, int],
    num_folds: int,
    seed: int,
    substrata: Mapping[str, str] | None = None,
) -> list[Fold]:
    """Divide cases into folds; every case is validated exactly once.

    Patients are taken by falling number of lesions (equal ones in an order drawn from ``seed``), each into the
    fold with the fewest patients of its finer stratum, then of its stratum, then the fewest lesions, then the fewest
    cases. So every fold validates a patient with lesions when there are as many of these as folds: an empty fold
    comes first in every respect. The result does not depend on the order of ``case_ids``.

    Args:
        case_ids: all training cases.
        patients: patient by case id; a case without entry is its own patient.
        strata: stratum by case id (say, risk group); a patient counts in the first stratum of its cases.
        lesion_counts: lesions by case id.
        num_folds: at least 2.
        seed: decides ties.
        substrata: finer stratum by case id (say, risk group and number of lesions); the strata when omitted.

    Raises:
        UserError: fewer patients than folds, or fewer than two folds.
    """
    by_patient: dict[str, list[str]] = defaultdict(list)
    for case_id in sorted(case_ids):
        by_patient[patients.get(case_id, case_id)].append(case_id)
    _check_numbers(len(by_patient), num_folds)
    order = sorted(by_patient)
    random.Random(seed).shuffle(order)
    lesions = {name: sum(lesion_counts.get(c, 0) for c in cases) for name, cases in by_patient.items()}
    order.sort(key=lambda name: -lesions[name])
    finer = strata if substrata is None else substrata
    in_finer: list[Counter[str]] = [Counter() for _ in range(num_folds)]
    in_stratum: list[Counter[str]] = [Counter() for _ in range(num_folds)]
    in_fold = [0] * num_folds
    val: list[list[str]] = [[] for _ in range(num_folds)]
    for name in order:
        stratum = min(strata.get(case_id, "") for case_id in by_patient[name])
        fine = min(finer.get(case_id, "") for case_id in by_patient[name])
        best = min(
            range(num_folds),
            key=lambda k: (in_finer[k][fine], in_stratum[k][stratum], in_fold[k], len(val[k]), k),
        )
        in_finer[best][fine] += 1
        in_stratum[best][stratum] += 1
        in_fold[best] += lesions[name]
        val[best] += by_patient[name]
    everything = set(case_ids)
    return [Fold(tuple(sorted(everything - set(held))), tuple(sorted(held))) for held in val]


def read_splits(file: Path, *, case_ids: Collection[str], patients: Mapping[str, str]) -> list[Fold]:
    """Folds of the user: a list of ``{"train": [...], "val": [...]}``, as nnDetection stores them.

    Raises:
        UserError: wrong form, a case that does not exist, a case on both sides or validated twice, or a patient
            on both sides of a fold.
    """
    folds, faults = scan_splits(file, case_ids=case_ids, patients=patients)
    error = first_error(faults)
    if error is not None:
        raise error
    return folds


def scan_splits(
    file: Path, *, case_ids: Collection[str], patients: Mapping[str, str]
) -> tuple[list[Fold], list[Fault]]:
    """Folds of the user, those of the right form, and every fault of the file."""
    try:
        content = read_json(file)
    except (UserError, OSError) as error:
        what = error.what if isinstance(error, UserError) else f"cannot be opened ({error.strerror})"
        return [], [Fault("folds not readable", what, file=file, remedy="Correct or rewrite the file")]
    if not isinstance(content, list) or not content:
        example = '[{"train": [...], "val": [...]}, ...]'
        remedy = "Write a list of folds, or remove the file to have folds drawn"
        fault = Fault("folds not readable", "not a list of folds", file=file, expected=example, remedy=remedy)
        return [], [fault]
    folds, faults = [], []
    for number, item in enumerate(content):
        try:
            folds.append(_fold(item, number, file))
        except Fault as fault:
            faults.append(fault)
            continue
        faults += _fold_faults(folds[-1], number, set(case_ids), patients, file)
    faults += _coverage_faults(folds, set(case_ids), file)
    return folds, faults


def write_splits(file: Path, folds: Iterable[Fold]) -> None:
    """Write folds in the form that :func:`read_splits` reads, atomically."""
    write_json(file, [{"train": list(fold.train), "val": list(fold.val)} for fold in folds])


def _check_numbers(num_patients: int, num_folds: int) -> None:
    if num_folds < 2:
        raise UserError(
            "cross-validation needs at least two folds", found=str(num_folds), remedy="Ask for two or more"
        )
    if num_patients < num_folds:
        raise UserError(
            "fewer patients than folds",
            expected=f"at least {num_folds} patients",
            found=str(num_patients),
            remedy="Ask for fewer folds or add patients",
        )


def _fold(item: Any, number: int, file: Path) -> Fold:
    sides = []
    for side in ("train", "val"):
        cases = item.get(side) if isinstance(item, dict) else None
        if not isinstance(cases, list) or not cases or not all(isinstance(case, str) for case in cases):
            raise Fault(
                "fold malformed",
                f"fold {number} has no list '{side}' of case ids",
                file=file,
                expected='{"train": ["case_1", ...], "val": ["case_2", ...]}',
                remedy="Write both lists",
            )
        sides.append(tuple(sorted(set(cases))))
    return Fold(*sides)


def _fold_faults(
    fold: Fold, number: int, case_ids: set[str], patients: Mapping[str, str], file: Path
) -> Iterator[Fault]:
    unknown = sorted(set(fold.train + fold.val) - case_ids)
    if unknown:
        yield Fault(
            "fold with unknown case",
            f"fold {number} names cases that do not exist",
            file=file,
            found=", ".join(unknown[:5]),
            remedy="Use the names of imagesTr without modality number and suffix",
        )
    both = sorted(set(fold.train) & set(fold.val))
    if both:
        yield Fault(
            "case on both sides of a fold",
            f"fold {number} trains and validates on the same case",
            file=file,
            found=both[0],
            remedy="Take it out of one of the lists",
        )
    trained = {patients.get(case_id, case_id): case_id for case_id in fold.train if case_id not in both}
    for case_id in fold.val:
        other = trained.get(patients.get(case_id, case_id))
        if other is not None and case_id not in both:
            yield Fault(
                "patient on both sides of a fold",
                f"fold {number} trains and validates on the same patient",
                file=file,
                found=f"{other} in train, {case_id} in val",
                remedy="Keep all cases of a patient on one side",
            )


def _coverage_faults(folds: list[Fold], case_ids: set[str], file: Path) -> Iterator[Fault]:
    validated = Counter(case_id for fold in folds for case_id in fold.val)
    for case_id in sorted(case_id for case_id, count in validated.items() if count > 1):
        yield Fault(
            "case validated twice",
            f"case {case_id} is validated in several folds",
            file=file,
            remedy="Keep one of them",
        )
    never = sorted(case_ids - set(validated))
    if never and folds:
        yield Fault(
            "case never validated",
            "cases are validated in no fold",
            file=file,
            found=", ".join(never[:5]) + (f" and {len(never) - 5} more" if len(never) > 5 else ""),
            remedy="Put every case into val of one fold; thresholds are tuned on these predictions",
        )
