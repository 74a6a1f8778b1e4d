"""How often 95 % intervals hold the true value, and how wide they are, with few patients.

    .venv/bin/python benchmarks/interval_coverage.py [--samples 400] [--draws 500] [--json FILE]

Patients have 0 to about 8 lesions (mean 2.2, 15 % without); those of one patient resemble each other, as does
everything else of a patient: random effects on the logit scale of being found, on the scores, and on the number of
false boxes. Truth is the value over 200 000 patients. Judged are

- percentile: of the bootstrap draws of patients;
- BCa: bias-corrected and accelerated (Efron, J. Am. Stat. Assoc. 82:171, 1987), from the same draws; acceleration from
  leaving out one patient at a time; where it is undefined (draws all alike, or all on one side) our exact interval;
- BCa, t: the same with Student's quantiles for the normal ones, widened by sqrt(n / (n - 1)) (Hesterberg's expansion);
- studentised: ours below 100 patients (``nndet_psma/evaluation/statistics/student_interval.py``).

One core, under five minutes; seeds are fixed.
"""

from __future__ import annotations

import os

from measure import ONE_THREAD, table, write_result

os.environ.update(ONE_THREAD)  # before numpy is loaded

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm, t

from nndet_psma.evaluation.detection.draws import drawn_auc, drawn_curves, drawn_share
from nndet_psma.evaluation.detection.ranking import RankedDetections, Weights
from nndet_psma.evaluation.statistics.auc import dense_ranks
from nndet_psma.evaluation.statistics.reader_study import delong_auc
from nndet_psma.evaluation.statistics.resampling import Method, Resampling
from nndet_psma.evaluation.statistics.student_interval import Scale

Values = NDArray[np.float64]
Ends = tuple[float, float]

_PATIENTS = (10, 18, 40, 100)
_KINDS = ((5, 5), (9, 9), (20, 20), (50, 50), (5, 40))  # positives, negatives
_METHODS: tuple[Method, ...] = ("percentile", "studentised")
_TRUTH_PATIENTS = 200_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Sample:
    """Patients ``[P]`` with lesions ``[L]``, false boxes ``[F]`` and slices ``[S]``, each with the patient it is of."""

    lesions: NDArray[np.int64]
    lesion_patients: NDArray[np.int64]
    found: NDArray[np.bool_]
    lesion_scores: Values
    false_patients: NDArray[np.int64]
    false_scores: Values
    slice_patients: NDArray[np.int64]
    slice_positive: NDArray[np.bool_]
    slice_scores: Values


def draw_sample(rng: np.random.Generator, patients: int, skill: float) -> Sample:
    """Patients as described above; ``skill`` is the logit of finding a lesion of an average patient."""
    lesions = np.where(rng.random(patients) < 0.15, 0, np.maximum(1, rng.poisson(2.5, patients)))
    effect = rng.normal(size=patients)
    of_lesion = np.repeat(np.arange(patients), lesions)
    of_false = np.repeat(np.arange(patients), rng.poisson(rng.gamma(1.5, 1.0, patients)))
    slices = [np.repeat(np.arange(patients), 2 * lesions), np.repeat(np.arange(patients), 10)]
    positive = np.repeat([True, False], [len(each) for each in slices])
    of_slice, level = np.concatenate(slices), rng.normal(0, 0.6, patients)
    gain = positive * (0.8 * skill + 0.3 * effect[of_slice])
    return Sample(
        lesions,
        of_lesion,
        rng.random(len(of_lesion)) < expit(skill + effect[of_lesion]),
        rng.normal(1.2 + 0.5 * effect[of_lesion]),
        of_false,
        rng.normal(0.3 * effect[of_false]),
        of_slice,
        positive,
        rng.normal(level[of_slice] + gain),
    )


def sensitivity(sample: Sample, weights: Weights) -> Values:
    """Found lesions / lesions in each row of weights ``[R, P]``."""
    return drawn_share(sample.found, sample.lesion_patients, weights)


def average_precision(sample: Sample, weights: Weights) -> Values:
    """AP of boxes on found lesions and false boxes."""
    scores = np.concatenate([sample.lesion_scores[sample.found], sample.false_scores])
    patients = np.concatenate([sample.lesion_patients[sample.found], sample.false_patients])
    order = np.argsort(-scores, kind="stable")
    hits = (np.arange(len(scores)) < sample.found.sum())[order]
    ranked = RankedDetections(scores[order], hits, patients[order], sample.lesions)
    return drawn_curves([ranked], weights)[0].average_precision


def slice_auc(sample: Sample, weights: Weights) -> Values:
    """AUC of slices that hold a lesion against slices that do not."""
    ranks = dense_ranks(sample.slice_scores)
    return drawn_auc(ranks, sample.slice_positive, sample.slice_patients, weights)


@dataclass(frozen=True)
class Setting:
    """A statistic of samples of one skill."""

    name: str
    statistic: Callable[[Sample, Weights], Values]
    skill: float


SETTINGS = (
    Setting("sensitivity", sensitivity, 1.8),
    Setting("sensitivity near 1", sensitivity, 4.0),
    Setting("AP", average_precision, 1.8),
    Setting("AUC of slices", slice_auc, 1.8),
)


@dataclass
class Tally:
    """How many intervals there were, how many held the truth, and the sum of their widths."""

    made: int = 0
    held: int = 0
    width: float = 0.0

    def add(self, ends: Ends, truth: float) -> None:
        """Count one interval."""
        self.made += 1
        self.held += ends[0] <= truth <= ends[1]
        self.width += ends[1] - ends[0]

    def cell(self) -> str:
        """``93.5 % (0.26)``."""
        return f"{100 * self.held / self.made:.1f} % ({self.width / self.made:.2f})"


@dataclass
class Tallies:
    """Tallies by method."""

    of: dict[str, Tally] = field(default_factory=dict)

    def add(self, ends: Mapping[str, Ends], truth: float) -> None:
        """Count the intervals of all methods on one sample."""
        for method, each in ends.items():
            self.of.setdefault(method, Tally()).add(each, truth)


def intervals(setting: Setting, sample: Sample, draws: int, seed: int) -> dict[str, Ends] | None:
    """Interval of every method on one sample; None when the statistic is undefined."""
    count = len(sample.lesions)
    resampling = Resampling.of(
        [f"{index:03d}" for index in range(count)], draws=draws, seed=seed, level=_LEVEL, method="studentised"
    )
    one_out = np.ones((count, count), dtype=np.int64) - np.eye(count, dtype=np.int64)
    rows = np.concatenate([np.ones((1, count), dtype=np.int64), one_out, resampling.weights])
    values = setting.statistic(sample, rows)
    value, left_out, drawn = float(values[0]), values[1 : count + 1], values[count + 1 :]
    if np.isnan(value):
        return None
    student = resampling.interval(value, drawn)
    if student.low is None or student.high is None:
        return None
    ours = student.low, student.high
    defined = drawn[:draws][~np.isnan(drawn[:draws])]
    tail = (1 - _LEVEL) / 2
    normal = -float(norm.ppf(tail))
    wide = -float(t.ppf(tail, count - 1)) * float(np.sqrt(count / (count - 1)))
    return {
        "percentile": _quantiles(defined, tail, 1 - tail),
        "BCa": bca(value, defined, left_out, normal) or ours,
        "BCa, t": bca(value, defined, left_out, wide) or ours,
        "studentised": ours,
    }


def bca(value: float, drawn: Values, left_out: Values, reach: float) -> Ends | None:
    """Efron's interval; None where it is undefined.

    Args:
        value: statistic of the sample.
        drawn: of the draws ``[D]``, all defined.
        left_out: without each patient ``[P]``, NaN where undefined.
        reach: quantile of the standard normal distribution at the upper end.
    """
    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    if below in (0.0, 1.0) or np.ptp(drawn) == 0:
        return None
    influence = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    spread = float((influence**2).sum()) ** 1.5
    acceleration = float((influence**3).sum()) / (6 * spread) if spread > 0 else 0.0
    bias = float(norm.ppf(below))
    shifted = [bias + end for end in (-reach, reach)]
    low, high = (float(norm.cdf(bias + each / (1 - acceleration * each))) for each in shifted)
    return _quantiles(drawn, low, high)


def _quantiles(drawn: Values, low: float, high: float) -> Ends:
    ends = np.quantile(drawn, [low, high])
    return float(ends[0]), float(ends[1])


def bootstrap_rows(samples: int, draws: int) -> list[list[object]]:
    """One row per statistic and number of patients."""
    rows: list[list[object]] = []
    for setting in SETTINGS:
        truth = _truth(setting)
        for patients in _PATIENTS:
            rng, tallies = np.random.default_rng(patients), Tallies()
            for _ in range(samples):
                found = intervals(
                    setting, draw_sample(rng, patients, setting.skill), draws, int(rng.integers(2**31))
                )
                if found is not None:
                    tallies.add(found, truth)
            rows.append(
                [f"{setting.name} ({truth:.2f})", patients, *(each.cell() for each in tallies.of.values())]
            )
    return rows


def _truth(setting: Setting) -> float:
    sample = draw_sample(np.random.default_rng(1), _TRUTH_PATIENTS, setting.skill)
    return float(setting.statistic(sample, np.ones((1, _TRUTH_PATIENTS), dtype=np.int64))[0])


def mask_rows(samples: int, draws: int) -> list[list[object]]:
    """Mean of a score of masks, one per patient: Dice from a beta, distances (mm) from a gamma distribution."""
    kinds: tuple[tuple[str, float, Scale, Callable[[np.random.Generator, int], Values]], ...] = (
        ("mean Dice (0.75)", 0.75, "share", lambda rng, count: rng.beta(6, 2, count)),
        ("mean distance (6.0 mm)", 6.0, "length", lambda rng, count: rng.gamma(1.5, 4.0, count)),
    )
    rows: list[list[object]] = []
    for name, truth, scale, draw in kinds:
        for patients in _PATIENTS:
            rng, tallies = np.random.default_rng(patients), Tallies()
            names = [str(index) for index in range(patients)]
            for seed in range(samples):
                values, found = draw(rng, patients), {}
                for method in _METHODS:
                    resampling = Resampling.of(names, draws=draws, seed=seed, level=_LEVEL, method=method)
                    drawn = resampling.weights @ values / resampling.weights.sum(axis=1)
                    ends = resampling.interval(float(values.mean()), drawn, scale)
                    if ends.low is not None and ends.high is not None:
                        found[method] = ends.low, ends.high
                tallies.add(found, truth)
            rows.append([name, patients, *(each.cell() for each in tallies.of.values())])
    return rows


def delong_rows(samples: int) -> list[list[object]]:
    """Intervals of the AUC over patients from DeLong's variance: on the scale of the area, a point at 0 and 1; ours."""
    rows: list[list[object]] = []
    for apart in (1.5, 3.0):
        truth = float(norm.cdf(apart / np.sqrt(2)))
        for positives, negatives in _KINDS:
            rng, tallies = np.random.default_rng(positives + negatives), Tallies()
            positive = np.arange(positives + negatives) < positives
            for _ in range(samples):
                scores = rng.normal(size=len(positive)) + apart * positive
                area, ends = delong_auc(scores, positive, level=_LEVEL)
                if area is not None and ends is not None:
                    tallies.add({"plain": plain_delong(scores, positive), "ours": ends}, truth)
            kinds = f"{positives} / {negatives}"
            rows.append([f"{truth:.2f}", kinds, *(each.cell() for each in tallies.of.values())])
    return rows


def plain_delong(scores: Values, positive: NDArray[np.bool_]) -> Ends:
    """DeLong's interval as published: area and normal quantile times standard error, cut to [0, 1]."""
    above = scores[positive][:, None] > scores[~positive]
    kinds = [above.mean(axis=1), above.mean(axis=0)]
    error = float(np.sqrt(sum(each.var(ddof=1) / len(each) for each in kinds)))
    area, reach = float(above.mean()), float(norm.ppf((1 + _LEVEL) / 2)) * error
    return max(0.0, area - reach), min(1.0, area + reach)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--samples", type=int, default=1000, help="of each row; 1000 tell coverage within 1.4 %%"
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    start = time.process_time()
    rows = bootstrap_rows(args.samples, args.draws)
    header = ["score (truth)", "patients", "percentile", "BCa", "BCa, t", "studentised"]
    print(
        f"share of {100 * _LEVEL:g} % intervals that hold the truth (mean width), {args.samples} samples of each row"
    )
    print(table(header, rows))
    masks = mask_rows(args.samples, args.draws)
    print("\nmeans of scores of masks")
    print(table(["score (truth)", "patients", *_METHODS], masks))
    delong = delong_rows(4 * args.samples)
    print("\nintervals of the AUC over patients from DeLong's variance")
    print(table(["truth", "positive / negative", "plain", "ours"], delong))
    print(f"{time.process_time() - start:.0f} s of CPU time")
    write_result(
        args.json,
        {"samples": args.samples, "draws": args.draws, "bootstrap": rows, "masks": masks, "delong": delong},
    )


if __name__ == "__main__":
    main()
