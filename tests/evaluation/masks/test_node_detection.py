"""Found and false nodes of masks."""

import numpy as np
import pytest
from places import DATA

from nndet_psma.evaluation.masks.node_detection import (
    NodeDetection,
    detect_nodes,
    paired_nodes,
    touching_nodes,
)

# prediction 1 covers truth 1 and 2, prediction 2 touches truth 2, prediction 3 touches nothing, truth 4 is missed
PREDICTION = np.array([[[1, 1, 1, 1, 2, 0, 3, 0, 0]]])
TRUTH = np.array([[[1, 1, 0, 2, 2, 2, 0, 0, 4]]])


def test_touching():
    assert touching_nodes(PREDICTION, TRUTH) == {(1, 1): 2, (1, 2): 1, (2, 2): 1}
    assert touching_nodes(PREDICTION * 0, TRUTH) == {}
    with pytest.raises(ValueError, match="different shapes"):
        touching_nodes(PREDICTION, TRUTH[..., 1:])


def test_all_nodes_count():
    found = detect_nodes(touching_nodes(PREDICTION, TRUTH), {1, 2, 3}, {1, 2, 4})
    assert found == NodeDetection(found=2, missed=1, right=2, false=1)
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_some_nodes_count():
    shared = touching_nodes(PREDICTION, TRUTH)
    assert detect_nodes(shared, {2}, {1, 2}) == NodeDetection(1, 1, 1, 0)
    assert detect_nodes(shared, {2}, {1}) == NodeDetection(
        0, 1, 0, 1
    )  # it touches only one that does not count
    assert detect_nodes(shared, set(), {1}).f1 is None
    assert detect_nodes(shared, {3}, {4}).f1 == 0


def test_counts_add_up():
    assert NodeDetection(1, 2, 3, 4) + NodeDetection(10, 20, 30, 40) == NodeDetection(11, 22, 33, 44)


def test_pairs_share_most():
    shared = touching_nodes(PREDICTION, TRUTH)
    assert paired_nodes(shared, {1, 2, 3}, {1, 2, 4}) == [(1, 1), (2, 2)]
    assert paired_nodes(shared, {1}, {2}) == [(1, 2)]


@pytest.mark.realdata
def test_the_autopet_case():
    # published: 111 lesions, 89 touched, 8 of 87 candidates false, Dice 0.697
    from nndet_psma.boxes.labels import node_components
    from nndet_psma.dataset.images.images import read_volume
    from nndet_psma.evaluation.masks.segmentation_scores import VoxelCounts

    root = DATA
    folder, name = root / "autopet3_psma_case", "psma_95b833d46f153cd2_2018-04-16.nii.gz"
    if not folder.is_dir():
        pytest.skip(
            "public data set autopet3_psma_case found neither through NNDET_PSMA_DATA nor in ../shared/data"
        )
    truth, candidates = (
        read_volume(folder / place / name).array > 0 for place in ("orig", "expected_output_nnUNet")
    )
    (true, lesions), (found, count) = node_components(truth), node_components(candidates)
    nodes = detect_nodes(touching_nodes(found, true), range(1, count + 1), range(1, lesions + 1))
    assert nodes == NodeDetection(found=89, missed=22, right=79, false=8)
    assert VoxelCounts.of(candidates, truth).dice == pytest.approx(0.697, abs=5e-4)
