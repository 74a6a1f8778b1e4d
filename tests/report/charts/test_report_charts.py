"""Figures: drawn from what is there, with words that hold the numbers."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.evaluation.detection.froc import froc_curve
from nndet_psma.evaluation.detection.ranking import rank_detections
from nndet_psma.report.charts.charts import _size_bins, data_chart, training_chart, window_chart
from nndet_psma.report.charts.hu import _binned
from nndet_psma.report.charts.scores import _band, froc_chart
from nndet_psma.report.texts import is_class_score, millilitres, score_meaning, score_name
from nndet_psma.stages.report import ReportJob, read_source


@pytest.fixture(scope="module")
def source(tiny):
    return read_source(tiny.paths, ReportJob(tiny.folder))


def test_shares_of_the_hu_histogram():
    # 6 voxels at 0 HU, 2 at 7 HU, 2 at 1000 HU (outside the picture, but part of the whole)
    counts = [6, 0, 0, 0, 0, 0, 0, 2] + [0] * 992 + [2]
    edges, share = _binned(Histogram(0, counts), -10, 20)
    assert share[np.searchsorted(edges, 0)] == pytest.approx(60)
    assert share[np.searchsorted(edges, 5)] == pytest.approx(20)
    assert share.sum() == pytest.approx(80)


def test_windows_chart_names_the_windows_and_the_median(source):
    picture = window_chart(source.fingerprint, [Window("w", -60.0, 140.0)])
    assert "-60 to 140" in picture.alt
    assert "median 40 HU" in picture.alt  # every lesion voxel of the tiny task is 40 HU
    assert base64.b64decode(picture.uri.partition(",")[2]).startswith(b"\x89PNG")
    without = [replace(case, lesion_hu=Histogram()) for case in source.fingerprint.cases]
    assert window_chart(replace(source.fingerprint, cases=without), []) is None


def test_data_chart_without_any_lesion(source):
    cases = [replace(case, lesions=[]) for case in source.fingerprint.cases]
    empty: Fingerprint = replace(source.fingerprint, cases=cases)
    assert "median undefined" in data_chart(empty).alt
    assert "0 to 2" in data_chart(source.fingerprint).alt


def test_size_bins_are_no_finer_than_a_pixel_and_hold_every_size():
    sizes = [4.0, 6.0, 8.0, 16.0]
    counts, _ = np.histogram(sizes, bins=_size_bins(sizes, 2.0))
    assert counts.tolist() == [1, 1, 1, 0, 0, 0, 1]
    assert np.histogram([7.0], bins=_size_bins([7.0], 0.5))[0].sum() == 1


def test_training_chart_says_where_the_loss_ended():
    metrics = {0: {"wsi": [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 0.5}]}}
    assert "wsi 0.50" in training_chart(["wsi", "later"], metrics).alt
    assert training_chart(["later"], metrics) is None


def test_froc_band_is_the_interval_of_each_rate(source):
    (record,) = [each for each in source.records if len(each.lesions) > 1 or each.lesions][:1]
    nothing = replace(record, predictions=(), matches={"0.10": ()})
    records = [replace(each, patient_id=str(n)) for n, each in enumerate([record] * 5 + [nothing] * 3)]
    rates = np.array([0.125, 1.0, 8.0])
    ranked = rank_detections(records, iou=0.1, max_detections=None)
    (low, high), whole = _band(records, rates, 0), froc_curve(ranked).sensitivity_at(tuple(rates))
    assert (low > 0).all()
    assert (low < whole).all()
    assert (whole < high).all()
    assert (high < 1).all()
    assert _band(records[:1], rates, 0) is None


def test_froc_chart_reads_the_curve(source):
    # ranked candidates at IoU 0.1: node 1 (0.9) is hit before any false alarm, node 2 never: 0.50 at every rate
    assert "0.50 at 1/8, 0.50 at 1, 0.50 at 8" in froc_chart(source.records, {}, 0).alt
    without = [
        replace(record, lesions=(), matches={"0.10": (-1,) * len(record.predictions)})
        for record in source.records
    ]
    assert froc_chart(without, {}, 0) is None


@pytest.mark.parametrize(
    ("key", "name", "by_class"),
    [
        ("AP_IoU_0.10_MaxDet_100", "AP at IoU 0.10", False),
        ("FROC_score_IoU_0.30", "FROC score at IoU 0.30", False),
        ("mAP_IoU_0.10_0.50_0.05_MaxDet_100", "mAP, IoU 0.10 to 0.50", False),
        ("positive_node_AP_IoU_0.10_MaxDet_100", "positive_node: AP at IoU 0.10", True),
        ("paper_sensitivity", "Lesion sensitivity", False),
        ("patient_auc", "Patient AUC", False),
    ],
)
def test_names_of_scores(key, name, by_class):
    assert score_name(key) == name
    assert is_class_score(key) is by_class
    assert score_meaning(key).endswith(".")


def test_volumes_are_readable():
    assert [millilitres(v) for v in (260.0, 2345.0, 423_000.0)] == ["0.26 ml", "2.3 ml", "423 ml"]
