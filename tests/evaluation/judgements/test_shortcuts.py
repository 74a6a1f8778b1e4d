"""Does a network add anything to simple models?"""

import numpy as np

from nndet_psma.evaluation.judgements.row import JudgedRow
from nndet_psma.evaluation.judgements.shortcuts import shortcut_table

CLASSES = ["negative", "positive"]


def judged(scores, truth, patients=12):
    names = np.array(CLASSES)
    return [
        JudgedRow(f"c{k}", f"p{k % patients}", k, str(names[int(t)]), str(names[int(s >= 0.5)]),
                  {"negative": 1 - s, "positive": s})
        for k, (s, t) in enumerate(zip(scores, truth, strict=True))
    ]  # fmt: skip


TRUTH = np.arange(60) % 2
RNG = np.random.default_rng(0)
NOISE = RNG.random(60)
GOOD = 0.5 * TRUTH + 0.5 * NOISE  # every positive above every negative but for ties


def table(network, **simple):
    rows = {name: judged(scores, TRUTH) for name, scores in simple.items()}
    return shortcut_table(judged(network, TRUTH), rows, CLASSES, draws=200)


def test_a_network_that_sees_more():
    found = table(GOOD, hint=0.2 * TRUTH + 0.8 * NOISE, constant=np.full(60, 0.4))
    assert found.adds is True
    assert found.best == "hint"
    assert found.sentence.startswith("the image adds to the best simple model, hint (AUC 1.000 against")
    assert [row.name for row in found.rows] == ["hint", "constant", "network"]
    assert found.rows[-1].difference is None
    assert found.rows[1].auc.value == 0.5
    assert (found.rows[1].specificity.hits, found.rows[1].specificity.total) == (30, 30)


def test_a_network_that_says_what_the_table_says():
    found = table(GOOD, station=GOOD, noise=NOISE)
    assert (found.adds, found.best) == (False, "station")
    assert "adds nothing that could be shown beyond station" in found.sentence
    assert found.rows[0].difference.difference == 0


def test_one_patient_tells_nothing():
    rows = judged(GOOD, TRUTH, patients=1)
    found = shortcut_table(rows, {"noise": judged(NOISE, TRUTH, patients=1)}, CLASSES, draws=50)
    assert found.adds is None
    assert "cannot be told" in found.sentence


def warned(**controls):
    kept = {name.replace("_", " "): judged(scores, TRUTH) for name, scores in controls.items()}
    simple = {"noise": judged(NOISE, TRUTH)}
    return shortcut_table(judged(GOOD, TRUTH), simple, CLASSES, kept, draws=200).warnings


def test_controls_give_shortcuts_away():
    assert warned(surroundings_only=NOISE, objects_of_equal_size=GOOD, object_only=NOISE) == []
    (leak,) = warned(surroundings_only=GOOD)
    assert leak.startswith("leakage: surroundings only still reach an AUC of 1.000")
    (size,) = warned(objects_of_equal_size=NOISE)
    assert size.startswith("size: with objects of equal size the AUC falls by 0.")
