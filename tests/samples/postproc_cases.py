"""Small detections, random ones, and evidently right slow references, shared by the tests of this folder."""

import numpy as np
from hypothesis import strategies as st

from nndet_psma.boxes.detections import Detections

# Widths 4, shifted by 1, 2, 3 voxels: IoU with A is 12/20 = 0.6, 8/24 = 1/3, 4/28 = 1/7.
A, A1, A2, A3 = (0, 0, 4, 4), (0, 1, 4, 5), (0, 2, 4, 6), (0, 3, 4, 7)
FAR = (50, 50, 54, 54)


def slice_boxes(*rows, **columns):
    """2D detections from (slice, box, score) or (slice, box, score, label) rows."""
    return Detections.build(
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] if len(row) > 3 else 0 for row in rows],
        dim=2,
        slice=np.array([row[0] for row in rows], dtype=np.int64),
        **columns,
    )


@st.composite
def random_slice_boxes(draw, max_size=12, distinct_scores=True):
    """Crowded 2D boxes on a few slices, two labels, with the columns of raw predictions."""
    corner, side, index = st.integers(0, 6), st.integers(1, 6), st.integers(0, 2)
    score = st.integers(1, 999) if distinct_scores else st.sampled_from([200, 400, 600])
    row = st.tuples(index, corner, corner, side, side, score, st.integers(0, 1))
    rows = draw(st.lists(row, max_size=max_size, unique_by=(lambda r: r[5]) if distinct_scores else None))
    zone = draw(st.lists(st.integers(0, 8), min_size=len(rows), max_size=len(rows)))
    hu = [[z * 10 + 5 * q for q in range(10)] for z in zone]
    return slice_boxes(
        *((z, (y, x, y + h, x + w), s / 1000, label) for z, y, x, h, w, s, label in rows),
        zone_mm=np.array(zone, dtype=float),
        hu_quantiles=np.array(hu, dtype=np.float32).reshape(-1, 10),
    )


def shuffled(detections, seed):
    return detections.select(np.random.default_rng(seed).permutation(len(detections)))


def slow_iou(a, b):
    dim = len(a) // 2
    overlap = size_a = size_b = 1.0
    for i in range(dim):
        overlap *= max(0.0, min(a[dim + i], b[dim + i]) - max(a[i], b[i]))
        size_a *= a[dim + i] - a[i]
        size_b *= b[dim + i] - b[i]
    union = size_a + size_b - overlap
    return overlap / union if union > 0 else 0.0


def compete(d, i, j):
    """Same label, and in 2D the same slice."""
    same_slice = d.dim == 3 or d.columns["slice"][i] == d.columns["slice"][j]
    return d.labels[i] == d.labels[j] and same_slice


def same(first, second):
    """Equal rows in equal order, all columns."""
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert set(first.columns) == set(second.columns)
    for name in first.columns:
        np.testing.assert_array_equal(first.columns[name], second.columns[name])
    return True
