"""Names that work here and make trouble elsewhere."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from nndet_psma.dataset.faults.kinds import Fault
from nndet_psma.dataset.task.cases import RawCase, split_suffix

_SAFE = re.compile(r"[A-Za-z0-9_\-]+")


def name_faults(cases: Sequence[RawCase]) -> Iterator[Fault]:
    """Doubtful names among all cases of a task, training and test together."""
    for case in cases:
        if not _SAFE.fullmatch(case.case_id):
            wrong = sorted(set(re.sub(r"[A-Za-z0-9_\-]", "", case.case_id)))
            yield Fault(
                "unsafe case name",
                "characters in the name of a case that other programs stumble over",
                file=case.images[0],
                expected="letters, digits, _ and -",
                found=" ".join("space" if char == " " else char for char in wrong),
                remedy="Rename the files of the case, in images and labels",
            )
    yield from _alike(cases)
    yield from _suffixes(cases)


def _alike(cases: Sequence[RawCase]) -> Iterator[Fault]:
    same: dict[str, list[RawCase]] = defaultdict(list)
    for case in cases:
        same[case.case_id.lower()].append(case)
    for group in same.values():
        names = sorted({case.case_id for case in group})
        if len(names) > 1:
            yield Fault(
                "names differ in case only",
                "case names that differ only in upper and lower case",
                file=next(case.images[0] for case in group if case.case_id == names[-1]),
                found=", ".join(names),
                remedy="Rename one: on Windows and macOS they are the same file",
            )


def _suffixes(cases: Sequence[RawCase]) -> Iterator[Fault]:
    by_suffix: dict[str, list[RawCase]] = defaultdict(list)
    for case in cases:
        for file in case.images:
            by_suffix[split_suffix(file)[1] or ""].append(case)
    if len(by_suffix) < 2:
        return
    counts = Counter({suffix: len(group) for suffix, group in by_suffix.items()})
    rarest = min(counts, key=lambda suffix: (counts[suffix], suffix))
    odd = next(file for case in by_suffix[rarest] for file in case.images if split_suffix(file)[1] == rarest)
    yield Fault(
        "mixed suffixes",
        "images of several file formats",
        file=odd,
        expected=f"{counts.most_common(1)[0][0]} as most of the images",
        found=", ".join(f"{count} {suffix}" for suffix, count in counts.most_common()),
        remedy="Convert them to one format: nnDetection and nnU-Net read only one per data set",
    )
