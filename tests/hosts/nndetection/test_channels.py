import json

import pytest
from artifact_samples import PLAN

from nndet_psma.core.errors import UserError
from nndet_psma.hosts.nndetection.channels import Recipe

RECIPE = Recipe(PLAN, PLAN.stage("both"))


def test_recipe_survives_nndetections_plan():
    plan = {}
    RECIPE.into(plan)
    assert Recipe.of(json.loads(json.dumps(plan))) == RECIPE


def test_plan_of_another_version_is_refused():
    plan = {"data_identifier": "PSMAD2_2d"}
    RECIPE.into(plan)
    plan["psma"]["version"] = -1
    with pytest.raises(UserError, match=r"plan PSMAD2_2d of nnDetection: made by another version.*found -1"):
        Recipe.of(plan)
