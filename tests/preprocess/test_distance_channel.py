"""The distance to the search region as a channel: from its stored unit to [0, 1], and without a region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from artifact_samples import PLAN

from nndet_psma.artifacts.channels import Scaling
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.preprocess.distance import BEYOND
from nndet_psma.preprocess.prepare import PreparedCase
from nndet_psma.preprocess.windows import channel_sources, seen_arrays, slice_channels

SHOWN = replace(PLAN, scalings=[Scaling(2, "CTV", 0.0, 10.0)])  # 0 to 10 mm outside
GRID = Geometry((1, 1, 4), (1.0, 1.0, 1.0))


def _case(distance):
    return PreparedCase("case_7", {"CT": np.zeros(GRID.shape, np.int16)}, GRID, GRID, distance, None, {})


def test_hundredths_of_a_millimetre_become_shares_of_the_range():
    """Inside, 2.5 mm, 10 mm and beyond what is stored."""
    distance = np.array([[[0, 250, 1000, BEYOND]]], np.int16)
    sources = channel_sources(SHOWN, SHOWN.stages[-1])
    channels = slice_channels(seen_arrays(_case(distance), sources), sources, 0, 0)
    assert channels[-1].tolist() == [pytest.approx([0.0, 0.25, 1.0, 1.0])]
    assert len(channels) == len(SHOWN.stages[-1].windows) + 1


def test_a_case_without_a_region_is_refused_only_where_the_distance_is_seen():
    case = _case(None)
    with pytest.raises(
        UserError, match=r"case_7 has no search region, and the model sees the distance.*Give the CTV"
    ):
        seen_arrays(case, channel_sources(SHOWN, SHOWN.stages[-1]))
    plain = replace(PLAN, scalings=[])
    assert seen_arrays(case, channel_sources(plain, plain.stages[-1])) is case.arrays
