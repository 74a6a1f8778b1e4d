"""What counts as a failed step."""

from __future__ import annotations

import json

import pytest

from nndet_psma.trainers.failure import MAX_SKIPPED, LossWatch, write_failure

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("recent", "loss", "norm", "skipped", "expected"),
    [
        ([1.0] * 10, 1.0, 1.0, False, None),
        ([1.0] * 10, 1000.0, 1.0, False, None),  # exactly a thousandfold
        ([1.0] * 10, 1000.1, 1.0, False, "more than 1000 times the usual 1"),
        ([1.0] * 9, 1e9, 1.0, False, None),  # too few to know what is usual
        ([0.05] * 10, 99.0, 1.0, False, None),  # below 100 nothing has exploded
        ([0.05] * 10, 101.0, 1.0, False, "more than 1000 times the usual 0.05"),
        ([0.1] * 51 + [1e6] * 50, 101.0, 1.0, False, "usual 0.1"),  # the median, not the mean
        ([], NAN, 1.0, False, "a loss that is not finite"),
        ([], INF, 1.0, True, "a loss that is not finite"),
        ([], 1.0, NAN, False, "gradients that are not finite"),
        ([], 1.0, INF, True, None),  # fp16 leaves the step out
    ],
)
def test_judgement(recent, loss, norm, skipped, expected):
    wrong = LossWatch(recent).judge(loss, norm, skipped)
    assert wrong is None if expected is None else expected in wrong


def test_skipped_steps_in_a_row():
    watch = LossWatch()
    for _ in range(MAX_SKIPPED - 1):
        assert watch.judge(1.0, INF, True) is None
    assert watch.judge(1.0, 1.0, False) is None  # one good step, and the count begins anew
    assert (watch.skipped, watch.skipped_in_row) == (MAX_SKIPPED - 1, 0)
    for _ in range(MAX_SKIPPED - 1):
        assert watch.judge(1.0, INF, True) is None
    assert "last of 50 in a row" in watch.judge(1.0, INF, True)


def test_only_the_last_101_losses_are_kept():
    watch = LossWatch()
    for loss in range(150):
        watch.judge(float(loss), 1.0, False)
    assert watch.recent == [float(loss) for loss in range(49, 150)]


def test_file_of_a_failed_step(tmp_path):
    write_failure(tmp_path, 7, {"loss": INF, "a": 2.0}, ["case:1"], "is wrong")
    content = json.loads((tmp_path / "failed_step.json").read_text())
    assert content == {
        "step": 7,
        "wrong": "is wrong",
        "losses": {"loss": "inf", "a": 2.0},
        "slices": ["case:1"],
    }
