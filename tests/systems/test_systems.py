"""Which system a task gets when the user names none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from artifact_samples import PLAN

from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.systems.choice import default_system
from nndet_psma.systems.system import SYSTEMS, system_of


@pytest.mark.parametrize(
    ("dim", "modalities", "system", "reason"),
    [
        (3, ["CT", "CTV"], "psma25d", "CT with a CTV"),
        (3, ["ctv", "PET", " ct "], "psma25d", "CT with a CTV"),
        (3, ["CT"], "retina3d", "no CTV"),
        (3, ["DWI", "ADC"], "retina3d", "no CT and CTV"),
        (3, ["T2", "CTV"], "retina3d", "no CT"),
        (2, ["XRAY"], "psma25d", "single slices"),
    ],
)
def test_default(dim, modalities, system, reason):
    description = DatasetDescription("t", "t", dim, {0: "node"}, dict(enumerate(modalities)))
    choice = default_system(description)
    assert choice.name == system
    assert choice.reason.endswith(reason) or reason in choice.reason


def test_of_a_plan():
    assert system_of(PLAN).name == "psma25d"
    assert system_of(replace(PLAN, trainer="somebody.elses.Trainer")).name == "psma25d"


def test_names_are_those_of_the_entry_points():
    assert {name: SYSTEMS[name].name for name in SYSTEMS} == {
        name: name for name in ("nodeseg", "nodestatus", "psma25d", "retina3d")
    }
