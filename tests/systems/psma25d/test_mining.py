"""Hard negatives: which slices count, how they are scored, and that batches draw them in the planned share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_models import FixedBoxes
from tiny_place import LESIONS

from nndet_psma.artifacts.detector_plan import Augmentation
from nndet_psma.core.atomic import read_json
from nndet_psma.preprocess.region import stage_region
from nndet_psma.preprocess.store import read_case
from nndet_psma.systems.psma25d.batches import SliceBatches
from nndet_psma.systems.psma25d.mining import hard_negatives, keep_scores, mine, mined_before

CPU = torch.device("cpu")


def test_the_best_scored_quarter_is_hard() -> None:
    scores = {f"case:{z}": score for z, score in enumerate((0.9, 0.1, 0.8, 0.04, 0.3, 0.3, 0.2, 0.0))}
    assert hard_negatives(scores) == ["case:0", "case:2"]  # a quarter of 8
    assert hard_negatives(scores, 0.5) == ["case:0", "case:2", "case:4", "case:5"]
    assert hard_negatives(scores, 1.0)[-1] == "case:1"  # 0.04 and 0 are no detections
    assert hard_negatives({"case:0": 0.5, "case:1": 0.2}) == ["case:0"]  # one at least
    assert hard_negatives({"case:0": 0.01}) == []
    assert hard_negatives({}) == []


def test_only_slices_without_a_lesion_in_the_region_are_scored(tiny_task) -> None:
    plan = tiny_task.plan
    seen, wanted = plan.stages[0], plan.stages[1]
    # whole slices have a scale of 1 and are padded to 48 x 56 pixels: the middle of the plane is the middle of the box
    middle = FixedBoxes([[26.0, 22.0, 30.0, 26.0]])
    scores = mine(middle, tiny_task.store, ["case_0", "case_5"], plan, seen, wanted, device=CPU, batch_size=4)
    for name in ("case_0", "case_5"):
        case = read_case(tiny_task.store, name)
        slices = stage_region(case, plan, wanted).slices.tolist()
        free = [z for z in slices if not case.instances[z].any()]
        assert sorted(key for key in scores if key.startswith(name)) == sorted(f"{name}:{z}" for z in free)
    assert LESIONS["case_5"] == []
    assert list(scores.values()) == pytest.approx([0.9] * len(scores))


def test_boxes_outside_the_region_do_not_count(tiny_task) -> None:
    plan = tiny_task.plan
    corner = FixedBoxes([[1.0, 1.0, 4.0, 4.0]])
    scores = mine(
        corner, tiny_task.store, ["case_5"], plan, plan.stages[0], plan.stages[1], device=CPU, batch_size=4
    )
    assert set(scores.values()) == {0.0}


def test_scores_belong_to_their_weights(tmp_path) -> None:
    keep_scores(tmp_path, "weights", {"case:1": 0.2, "case:0": 0.4})
    assert mined_before(tmp_path, "weights") == {"case:0": 0.4, "case:1": 0.2}
    assert mined_before(tmp_path, "other weights") is None
    assert mined_before(tmp_path / "nothing", "weights") is None
    assert list(read_json(tmp_path / "hard_negatives.json")["scores"]) == ["case:0", "case:1"]


def test_batches_hold_the_planned_share(tiny_task) -> None:
    still = Augmentation((1.0, 1.0), 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    plan = replace(tiny_task.plan, positive_fraction=0.5, hard_negative_fraction=0.5, augmentation=still)
    plain = SliceBatches(tiny_task.store, plan, plan.stages[1], ["case_0", "case_5"], 8, 3)
    hard = [plain._name(plain.negative[0])]
    batches = SliceBatches(tiny_task.store, plan, plan.stages[1], ["case_0", "case_5"], 8, 3, hard)
    for step in range(3):
        names = batches[step]["slices"]
        counts = [len(target["boxes"]) > 0 for target in batches[step]["targets"]]
        assert counts == [True] * 4 + [False] * 4
        assert names[4:6] == hard * 2  # half of the four negatives, the others at random
    none = replace(plan, hard_negative_fraction=0.0)
    without = SliceBatches(tiny_task.store, none, plan.stages[1], ["case_0", "case_5"], 8, 3, hard)
    assert [without[i]["slices"] for i in range(3)] == [plain[i]["slices"] for i in range(3)]


def test_training_mines_with_its_own_cases_only(trained) -> None:
    plan = trained.plan
    for number, fold in enumerate(plan.folds):
        content = read_json(trained.model / f"fold{number}" / "wsi" / "hard_negatives.json")
        assert {name.rpartition(":")[0] for name in content["scores"]} <= set(fold.train)
        assert np.all(np.diff(list(content["scores"].values())) <= 0)
