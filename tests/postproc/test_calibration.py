"""Temperature and prevalence."""

import numpy as np
import pytest

from nndet_psma.postproc.calibration import CalibratedCutoff, fit_temperature, probabilities


def test_log_odds_of_balanced_classes_become_probabilities_at_the_prevalence():
    """log 3 at balance is 3/4; at a prevalence of 1/4 the odds are 3 * 1/3 = 1; log 9 / 2 is log 3."""
    assert probabilities(np.array([np.log(3)]), 1.0, 0.5) == pytest.approx([0.75])
    assert probabilities(np.array([np.log(3)]), 1.0, 0.25) == pytest.approx([0.5])
    assert probabilities(np.array([np.log(9)]), 2.0, 0.25) == pytest.approx([0.5])
    assert 0 < probabilities(np.array([-1e6]), 1.0, 0.5)[0] < 1e-6


def test_several_networks_are_averaged_after_calibration():
    cutoff = CalibratedCutoff("positive", 0.5, 1.0, 0.5)
    mean, spread = cutoff.calibrated([np.log(3), -np.log(3)])
    assert (mean, spread) == pytest.approx((0.5, 0.25))


def test_the_temperature_that_made_them_is_found():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(true + np.log(0.25 / 0.75))))
    temperature, note = fit_temperature([[each] for each in 3 * true], truth, 0.25)
    assert temperature == pytest.approx(3.0, rel=0.1)
    assert note.endswith("on 4000 objects")


def test_too_few_objects_are_not_calibrated():
    truth = np.array([True] * 49 + [False] * 100)
    assert fit_temperature([[1.0]] * 149, truth, 0.3) == (
        1.0, "not calibrated: 49 objects of the rarer class, 50 are needed",
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"prevalence": 1.0}, {"threshold": 2.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"out of range|must lie in"):
        CalibratedCutoff("positive", **wrong)


def test_classes_without_a_mistake_leave_a_moderate_temperature():
    """Log odds of 4 for 60 positive, -4 for 60 negative objects: 61/62 has log odds of log 61, so T is 4 / log 61."""
    truth = np.array([True] * 60 + [False] * 60)
    temperature, _ = fit_temperature([[4.0]] * 60 + [[-4.0]] * 60, truth, 0.5)
    assert temperature == pytest.approx(4 / np.log(61), rel=1e-3)
