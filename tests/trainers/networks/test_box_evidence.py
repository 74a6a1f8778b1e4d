"""HU quantiles of many boxes at once, against NumPy's quantile of one box after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nndet_psma.postproc.steps.hu_filter import QUANTILES
from nndet_psma.trainers.networks.box_evidence import box_quantiles

VOLUMES = st.sampled_from([np.int16, np.float32]).flatmap(
    lambda dtype: hnp.arrays(dtype, (3, 9, 11), elements=st.integers(-1024, 3071))
)
# slice, corner and side lengths; corners stay inside
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 7), st.floats(0, 9), st.floats(0, 2), st.floats(0, 2)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(VOLUMES, ROWS)
def test_same_as_numpy_box_by_box(volume, rows):
    table = np.array(rows)
    boxes = np.column_stack([table[:, 1], table[:, 2], table[:, 1] + table[:, 3], table[:, 2] + table[:, 4]])
    found = box_quantiles(volume, table[:, 0].astype(int), boxes)
    for row, (z, box) in enumerate(zip(table[:, 0].astype(int), boxes, strict=True)):
        y0, x0 = np.floor(box[:2]).astype(int)
        y1, x1 = np.maximum(np.ceil(box[2:]).astype(int), [y0 + 1, x0 + 1])
        wanted = np.quantile(volume[z, y0:y1, x0:x1].astype(np.float64), QUANTILES).astype(np.float32)
        assert np.array_equal(found[row], wanted)


def test_metal_beside_air_does_not_overflow():
    """-32000 and 32000 are 64000 HU apart, more than int16 holds; the median of the two is 0."""
    volume = np.array([[[-32000, 32000]]], dtype=np.int16)
    found = box_quantiles(volume, np.array([0]), np.array([[0.0, 0.0, 1.0, 2.0]]))
    assert found[0, QUANTILES.index(0.5)] == 0
    assert found[0, -1] == 32000
