"""The summary of a data set, counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import FINGERPRINT, LESION
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndet_psma.artifacts.dataset_summary import (
    HuThreshold,
    MarginCoverage,
    Quantiles,
    histogram_auc,
    margin_coverage,
)
from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.core.errors import UserError

values = arrays(np.int16, st.integers(1, 30), elements=st.integers(-20, 20))


def data_set() -> Fingerprint:
    """Cases a (three lesions, one of class 1), b (one lesion) and c (none); a and c of one patient."""
    first = FINGERPRINT.cases[0]
    lesions = [
        replace(
            LESION, instance=i + 1, short_axis_mm=s, outside_ctv_mm=o, label=int(i == 2), medians={"CT": m}
        )
        for i, (s, o, m) in enumerate([(4.0, 0.0, 30.0), (8.0, 6.48, 50.0), (6.0, 6.5, 40.0)])
    ]
    cases = [
        replace(first, lesions=lesions, lesion_hu=Histogram(30, [2]), region_hu=Histogram(-100, [4])),
        replace(
            first,
            case_id="b",
            patient_id="q",
            spacing=(5.0, 2.0, 1.0),
            lesions=[replace(LESION, short_axis_mm=10.0, outside_ctv_mm=None, medians={"CT": 60.0})],
            lesion_hu=Histogram(60, [2]),
            region_hu=Histogram(60, [4]),
        ),
        replace(first, case_id="c", spacing=(4.0, 1.0, 1.0), lesions=[], lesion_hu=Histogram()),
    ]
    return replace(FINGERPRINT, labels={"0": "node", "1": "bone"}, cases=cases)


def test_counts_and_ranges():
    found = data_set().summary
    assert (found.cases, found.patients, found.lesions) == (3, 2, 4)
    assert found.cases_without_lesions == ["c"]
    assert found.class_counts == {"node": 3, "bone": 1}
    assert (found.lesions_per_case.minimum, found.lesions_per_case.percentile_50) == (0, 1)
    assert found.spacing_mm.minimum == (3.0, 1.0, 1.0)
    assert found.spacing_mm.median == (4.0, 1.0, 1.0)
    assert found.spacing_mm.maximum == (5.0, 2.0, 1.0)
    assert found.shape.maximum == (4.0, 5.0, 6.0)


def test_sizes_and_margins():
    found = data_set().summary
    # short axes 4, 6, 8, 10: the quantile 0.05 lies 0.15 steps of 2 above 4
    assert found.lesion_sizes.short_axis_mm == Quantiles(4.0, 4.3, 5.5, 7.0, 8.5, 9.7, 10.0)
    # three lesions of cases with CTV: one inside, one at exactly 6.48 mm, one just beyond
    shares = {row.margin_mm: row.share for row in found.margin_coverage}
    assert shares == {
        0.0: 0.333333, 2.0: 0.333333, 4.0: 0.333333, 6.48: 0.666667,
        8.0: 1.0, 10.0: 1.0, 15.0: 1.0, 20.0: 1.0,
    }  # fmt: skip
    assert found.outside_ctv_mm.maximum == 6.5


def test_what_hu_can_separate():
    found = data_set().summary.hu_separability
    # lesion voxels 30, 30, 60, 60; others four of -100 and four of 60: 30 beats half, 60 beats half and ties half
    assert found.auc == pytest.approx((2 * 0.5 + 2 * (0.5 + 0.25)) / 4)
    assert found.thresholds == [HuThreshold(30.0, 0.5, 0.5), HuThreshold(60.0, 0.0, 0.0)]
    assert (found.lesion_medians.minimum, found.lesion_medians.maximum) == (30.0, 60.0)


def test_nothing_to_sum_up():
    empty = replace(FINGERPRINT, cases=[replace(FINGERPRINT.cases[0], lesions=[], lesion_hu=Histogram())])
    found = empty.summary
    assert (found.lesion_sizes, found.outside_ctv_mm, found.hu_separability) == (None, None, None)
    assert (found.margin_coverage, found.class_counts) == ([], {"node": 0})
    no_ct = replace(data_set(), modalities={"0": "PET", "1": "CTV"})
    assert no_ct.summary.hu_separability is None
    assert replace(FINGERPRINT, cases=[]).summary.spacing_mm is None


@given(values, values)
def test_auc_agrees_with_all_pairs(positive, negative):
    difference = positive[:, None].astype(int) - negative[None]
    expected = np.mean((difference > 0) + 0.5 * (difference == 0))
    assert histogram_auc(Histogram.of(positive), Histogram.of(negative)) == pytest.approx(expected)


def test_auc_needs_both_sides():
    with pytest.raises(ValueError, match="both sides"):
        histogram_auc(Histogram(0, [1]), Histogram())


def test_margins():
    assert margin_coverage([], [1.0]) == []
    assert margin_coverage([0.0, 3.0], [2.0, 3.0]) == [MarginCoverage(2.0, 0.5), MarginCoverage(3.0, 1.0)]


def test_the_summary_follows_the_cases_and_stands_in_the_file(tmp_path: Path):
    made = data_set()
    made.write(tmp_path / "fingerprint.json")
    content = json.loads((tmp_path / "fingerprint.json").read_text())
    assert content["summary"]["class_counts"] == {"node": 3, "bone": 1}
    content["summary"]["cases"] = 99  # a hand in the summary changes nothing
    (tmp_path / "fingerprint.json").write_text(json.dumps(content))
    again = Fingerprint.read(tmp_path / "fingerprint.json")
    assert again == made
    assert again.summary == made.summary
    assert replace(made, cases=made.cases[1:]).summary.cases == 2


def test_the_hash_does_not_depend_on_the_order_of_the_cases():
    made = data_set()
    turned = replace(made, cases=made.cases[::-1])
    assert turned.content_hash() == made.content_hash()
    assert turned.summary == made.summary
    assert replace(made, cases=made.cases[:2]).content_hash() != made.content_hash()
    other = [replace(made.cases[0], body_volume_mm3=361.0), *made.cases[1:]]
    assert replace(made, cases=other).content_hash() != made.content_hash()


def test_a_file_of_the_old_version_is_refused(tmp_path: Path):
    content = {**FINGERPRINT.to_json(), "version": 1}
    (tmp_path / "fingerprint.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"another schema version; expected 2; found 1\. Run nndet_prep again"
    ):
        Fingerprint.read(tmp_path / "fingerprint.json")
