"""metrics.csv: rows by hand, and that an interrupted run ends with the rows of an uninterrupted one."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.trainers import metrics_log
from nndet_psma.trainers.metrics_log import MetricsLog, StepMeans, memory_gb, read_metrics
from nndet_psma.trainers.observer import StepReport

TIMING = ("seconds_per_step", "images_per_second", "memory_gb")


def _report(step, iterations=10, loss=None, **changes):
    loss = step if loss is None else loss
    values = {"learning_rate": 0.1 / step, "images": 4, "seconds": 0.5 * step, "batch": None, **changes}
    losses = {"loss_box_reg": loss / 4, "loss_classifier": loss * 3 / 4, "loss": float(loss)}
    return StepReport(step, iterations, losses, **values)


def _run(file, steps, every, keep=0, pending=None, save_at=(), iterations=10):
    """Steps through the log; what checkpoints at ``save_at`` keep, through JSON as in a real one."""
    log = MetricsLog(file, keep, every, pending)
    saved = {}
    for step in steps:
        log.on_step(_report(step, iterations, loss=1 / step + 0.1), None)
        if step in save_at:
            log.write()
            saved[step] = (len(log.rows), json.loads(json.dumps(log.pending)))
    log.on_end(True)
    return saved


def _content(file):
    with file.open(newline="") as handle:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(handle)]


def test_rows_by_hand(tmp_path):
    """Steps 1..4 and 5..6 of 6: losses are 1..6, so means 2.5 and 5.5; seconds 0.5 to 3: means 1.25 and 2.75."""
    log = MetricsLog(tmp_path / "metrics.csv", 0, every=4)
    for step in range(1, 7):
        log.on_step(_report(step, iterations=6), None)
    log.on_end(True)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [4, 6]
    assert [row["loss"] for row in rows] == [2.5, 5.5]
    assert [row["loss_box_reg"] for row in rows] == [0.625, 1.375]
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.1 / 4, 0.1 / 6], rel=1e-5)
    assert [row["seconds_per_step"] for row in rows] == [1.25, 2.75]
    assert [row["images_per_second"] for row in rows] == pytest.approx([16 / 5, 8 / 5.5], rel=1e-5)


def test_columns_and_their_order(tmp_path):
    _run(tmp_path / "metrics.csv", range(1, 11), 5)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == (
        "step,learning_rate,loss,seconds_per_step,images_per_second,memory_gb,loss_box_reg,loss_classifier"
    )


@pytest.mark.parametrize("every", [1, 3, 4, 10, 50])
@pytest.mark.parametrize(("saved", "killed"), [(1, 2), (5, 5), (5, 9), (9, 9), (9, 10)])
def test_resumed_equals_uninterrupted(tmp_path, every, saved, killed):
    """Killed after step ``killed``, gone on from the checkpoint of step ``saved``; the sum of many floats is exact."""
    _run(tmp_path / "whole.csv", range(1, 11), every)
    kept = _run(tmp_path / "cut.csv", range(1, killed + 1), every, save_at=[saved])
    _run(tmp_path / "cut.csv", range(saved + 1, 11), every, *kept[saved])
    assert _content(tmp_path / "cut.csv") == _content(tmp_path / "whole.csv")


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    _run(tmp_path / "metrics.csv", range(1, 9), 2)
    log = MetricsLog(tmp_path / "metrics.csv", keep=2, every=2)
    assert [row["step"] for row in log.rows] == ["2", "4"]
    log.write()
    assert [row["step"] for row in _content(tmp_path / "metrics.csv")] == ["2", "4"]


def test_without_rows_to_keep_an_old_file_is_forgotten(tmp_path):
    _run(tmp_path / "metrics.csv", range(1, 9), 2)
    assert MetricsLog(tmp_path / "metrics.csv", keep=0).rows == []
    assert MetricsLog(tmp_path / "absent.csv", keep=5).rows == []


@pytest.mark.parametrize(
    ("after", "values"),
    [(0, [0.5, None, None]), (3, [None, 0.5, None]), (4, [None, 0.5, None]), (6, [None, None, 0.5])],
)
def test_a_noted_value_stands_in_one_row(tmp_path, after, values):
    """Noted after a step: in the row of that step when it has one (every second), else in the next."""
    log = MetricsLog(tmp_path / "metrics.csv", 0, every=2)
    for step in range(7):
        if step:
            log.on_step(_report(step), None)
        if step == after:
            log.note(val_ap=0.5)
    log.write()
    assert [row.get("val_ap") for row in read_metrics(log.file)] == values


def test_a_note_survives_a_checkpoint(tmp_path):
    log = MetricsLog(tmp_path / "metrics.csv", 0, every=2)
    log.on_step(_report(1), None)
    log.note(val_ap=0.5)
    resumed = MetricsLog(tmp_path / "metrics.csv", 0, 2, json.loads(json.dumps(log.pending)))
    resumed.on_step(_report(2), None)
    assert resumed.rows[0]["val_ap"] == "0.5"
    assert resumed.pending == {}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.integers(1, 30))
def test_means_are_means(losses, cut):
    """Reference: the plain mean of a list; a state that is handed on in the middle changes nothing."""
    means = StepMeans()
    for step, loss in enumerate(losses, start=1):
        if step == cut:
            means = StepMeans(means.sums)
        last = _report(step, loss=loss, seconds=0.25)
        means.add(last)
    row = means.take(last)
    assert row["loss"] == pytest.approx(sum(losses) / len(losses))
    assert row["images_per_second"] == pytest.approx(16)
    assert means.sums == {}


def test_the_file_is_written_now_and_then(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: now[0])
    log = MetricsLog(tmp_path / "metrics.csv", 0)
    log.on_step(_report(1), None)
    assert not log.file.exists()
    now[0] = 15.0
    log.on_step(_report(2), None)
    assert len(read_metrics(log.file)) == 2
    log.on_step(_report(3), None)
    assert len(read_metrics(log.file)) == 2
    log.on_end(False)
    assert len(read_metrics(log.file)) == 3


def test_a_disk_that_fails_does_not_hide_the_error_before_it(tmp_path, caplog, monkeypatch):
    def fail(*_):
        raise UserError("the disk is full")

    log = MetricsLog(tmp_path / "metrics.csv", 0)
    log.on_step(_report(1), None)
    monkeypatch.setattr(metrics_log, "atomic_file", fail)
    log.on_end(False)
    assert "metrics not written: the disk is full" in caplog.text
    with pytest.raises(UserError, match="disk is full"):
        log.on_end(True)


def test_cells_that_are_no_numbers_are_left_out(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,loss,val_x\n1,0.5,\n2,broken,0.1\n,3,3\n4,nan,7,extra\n")
    rows = read_metrics(file)
    assert rows[:2] == [{"step": 1, "loss": 0.5}, {"step": 2, "val_x": 0.1}]
    assert rows[2]["step"] == 4
    assert len(rows) == 3


def test_memory_of_this_process():
    """A Python process with torch holds some hundred MB; a further block of 200 MB is seen."""
    before = memory_gb()
    block = bytearray(200_000_000)
    block[::4096] = b"1" * len(block[::4096])
    assert 0.05 < before < 20
    assert memory_gb() - before == pytest.approx(0.2, abs=0.05)
