"""Tuned settings of a model that judges, as a stranger's model may have them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from crop_plan import crop_plan

from nndet_psma.core.errors import UserError
from nndet_psma.systems.nodestatus.system import NodeStatusSystem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive": 0}, "settings.positive: expected str, found 0"),
        ({"positive": "other"}, "settings.positive: expected one of"),
        ({"temperature": True}, "settings.temperature: expected float"),
        ({"temperature": 1e300}, "temperature 1e+300 or prevalence 0.25 is out of range"),
        ({"prevalence": 1.0}, "prevalence 1.0 is out of range"),
        ({"threshold": 1.5}, "threshold must lie in [0, 1]"),
        ({"more": 1}, "more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    system, plan = NodeStatusSystem(), crop_plan()
    inference = system.untuned(plan, [0])
    assert system.cutoff(plan, inference).threshold == 0.5
    with pytest.raises(UserError) as refused:
        system.cutoff(plan, replace(inference, settings={**inference.settings, **changes}))
    assert message in str(refused.value)
    assert "Tune them again" in str(refused.value)
