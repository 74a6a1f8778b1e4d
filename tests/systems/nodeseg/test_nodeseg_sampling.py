"""What of the training needs no nnU-Net: settings, Tversky loss, centres of patches, draws of cases."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.systems.nodeseg.plan import SegmentationTraining
from nndet_psma.systems.nodeseg.sampling import (
    PLANS_KEY,
    SETTINGS_VARIABLE,
    BalancedNodes,
    TverskyLoss,
    balanced_centres,
    repeated_cases,
    training_settings,
)


def test_settings_come_from_the_plans_and_the_variable_wins():
    plans = {PLANS_KEY: {"epochs": 7, "loss": "dice"}}
    found = training_settings(plans, {SETTINGS_VARIABLE: json.dumps({"epochs": 3})})
    assert (found.epochs, found.loss, found.learning_rate) == (3, "dice", 0.01)


def test_plans_of_nnunet_itself_give_its_own_training():
    found = training_settings({}, {})
    assert found == SegmentationTraining()
    assert (found.epochs, found.iterations, found.optimizer, found.loss) == (1000, 250, "sgd", "dice_ce")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no JSON object"),
        ('{"epoch": 1}', "unknown key"),
        ('{"epochs": 0}', "epochs must be at least 1"),
    ],
)
def test_wrong_variables_are_named(text, message):
    with pytest.raises(UserError, match=message):
        training_settings({}, {SETTINGS_VARIABLE: text})


def logits(probability):
    """Two classes whose softmax gives ``probability`` to the second."""
    p = torch.as_tensor(probability)
    return torch.stack([torch.zeros_like(p), torch.log(p / (1 - p))])[None]


def test_tversky_of_soft_counts():
    """Probabilities 0.8, 0.4 of truth 1, 0: TP 0.8, FP 0.4, FN 0.2; index 0.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2)."""
    loss = TverskyLoss(0.3, 0.7, smooth=0.0)
    found = loss(logits([0.8, 0.4]), torch.tensor([[[1, 0]]]))
    assert float(found) == pytest.approx(-0.8 / 1.06, abs=1e-6)


def test_tversky_of_halves_is_dice():
    """Dice = 2 TP / (2 TP + FP + FN) = 1.6 / 2.2."""
    found = TverskyLoss(0.5, 0.5, smooth=0.0)(logits([0.8, 0.4]), torch.tensor([[[1, 0]]]))
    assert float(found) == pytest.approx(-1.6 / 2.2, abs=1e-6)


def test_masked_voxels_do_not_count():
    """Without the second voxel TP 0.8, FN 0.2, FP 0."""
    found = TverskyLoss(0.3, 0.7, smooth=0.0)(
        logits([0.8, 0.4]), torch.tensor([[[1, 0]]]), torch.tensor([[[1, 0]]])
    )
    assert float(found) == pytest.approx(-0.8 / 0.94, abs=1e-6)


def test_batch_counts_are_pooled():
    """One image TP 0.8, FN 0.2; another FP 0.4. Pooled 0.8 / 1.06; image by image the mean of 0.8 / 0.94 and 0."""
    x = torch.cat([logits([0.8]), logits([0.4])])
    y = torch.tensor([[[1]], [[0]]])
    assert float(TverskyLoss(0.3, 0.7, batch=True, smooth=0.0)(x, y)) == pytest.approx(-0.8 / 1.06, abs=1e-6)
    assert float(TverskyLoss(0.3, 0.7, smooth=0.0)(x, y)) == pytest.approx(-0.4 / 0.94, abs=1e-6)


def labels():
    """A node of 8 voxels and one of a single voxel."""
    seg = np.zeros((1, 6, 6, 6), dtype=np.int8)
    seg[0, :2, :2, :2] = 1
    seg[0, 5, 5, 5] = 1
    return seg


def share_of_small_node(centres):
    return float(np.mean((centres[:, 1:] == 5).all(axis=1)))


@pytest.mark.parametrize(("balance", "expected"), [(1.0, 0.5), (0.0, 1 / 9), (0.5, 1 / (1 + 8**0.5))])
def test_nodes_weigh_by_volume_to_a_power(balance, expected):
    """9 rows are dealt, so shares are met to within half a row of each of the two nodes."""
    centres = balanced_centres(labels(), {1: np.zeros((9, 4), dtype=int)}, balance)[1]
    assert share_of_small_node(centres) == pytest.approx(expected, abs=1 / 9)
    assert (labels()[0][tuple(centres[:, 1:].T)] == 1).all()
    assert (centres[:, 0] == 0).all()


def test_regions_and_empty_classes_stay():
    locations = {2: [], (1, 2): "as it is"}
    assert balanced_centres(labels(), locations, 1.0) == locations


class Stub:
    """A data set of nnU-Net: case ``a`` has nodes, ``b`` to ``d`` have none."""

    def __init__(self):
        self.identifiers = ["a", "b", "c", "d"]

    def load_case(self, name):
        seg = labels() if name == "a" else np.zeros((1, 6, 6, 6), dtype=np.int8)
        locations = (
            {1: np.concatenate([np.zeros((9, 1), int), np.argwhere(seg[0] == 1)], axis=1)}
            if name == "a"
            else {1: []}
        )
        return np.zeros((1, 6, 6, 6)), seg, None, {"class_locations": locations, "spacing": [1, 1, 1]}


def test_cases_with_nodes_are_drawn_often_enough():
    """3 of the 6 draws are at least half; 2 of 5 would not be."""
    found = BalancedNodes(Stub(), 1.0, 0.5)
    assert found.identifiers == ["a", "a", "a", "b", "c", "d"]
    properties = found["a"][3]
    assert share_of_small_node(properties["class_locations"][1]) == pytest.approx(0.5, abs=1 / 9)
    assert properties["spacing"] == [1, 1, 1]


def test_without_balance_nothing_changes():
    found = BalancedNodes(Stub(), 0.0, 0.0)
    assert found.identifiers == ["a", "b", "c", "d"]
    assert len(found.load_case("a")[3]["class_locations"][1]) == 9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.01, 0.95))
def test_repeats_reach_the_share_and_no_more(has_node, share):
    names = [f"case_{i}" for i in range(len(has_node))]
    positive = {name for name, node in zip(names, has_node, strict=True) if node}
    found = repeated_cases(names, positive, share)
    assert set(found) == set(names)
    if not positive:
        assert found == names
        return
    drawn = sum(name in positive for name in found)
    assert drawn >= share * len(found) - 1e-9
    fewer = drawn - len(positive)  # one repeat less would miss the share, unless there is none to leave out
    assert fewer == 0 or fewer < share * (len(found) - len(positive)) + 1e-9
