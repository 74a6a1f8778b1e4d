"""Simple models on the table of objects."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from nndet_psma.trainers.classifier.baselines import simple_models

FEATURES = ["volume_mm3", "short_axis_mm", "hu_median"]


@dataclass
class Row:
    label: int | None
    station: str
    features: dict = field(default_factory=dict)


def rows(count=60, seed=0):
    """Status by median HU; nothing else tells it; one measurement is missing now and then."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        label = k % 3 == 0
        values = {
            "volume_mm3": float(rng.uniform(50, 500)),
            "short_axis_mm": None if k % 7 == 0 else float(rng.uniform(5, 12)),
            "hu_median": float(40 * label + rng.uniform(0, 30)),
        }
        found.append(Row(int(label), rng.choice(["iliac", "inguinal"]), values))
    return found


def said(name, train, asked):
    model = next(model for model in simple_models(FEATURES) if model.name == name)
    return model.fit(train, 0)(asked)


def test_all_models_answer_and_the_telling_one_tells():
    train, asked = rows(), rows(seed=1)
    truth = np.array([row.label == 1 for row in asked])
    names = [model.name for model in simple_models(FEATURES)]
    assert names == [
        "always the majority", "volume_mm3 alone", "short_axis_mm alone", "hu_median alone", "station alone",
        "short axis above 8 mm", "short axis above 10 mm", "median above 7.5 HU", "forest on volume and station",
        "logistic regression on the table", "forest on the table",
    ]  # fmt: skip
    for name in names:
        found = said(name, train, asked)
        assert found.shape == (60,)
        assert ((found >= 0) & (found <= 1)).all(), name
        if name in ("hu_median alone", "logistic regression on the table", "forest on the table"):
            assert found[truth].min() > found[~truth].max() - 0.2, name
            assert found[truth].mean() - found[~truth].mean() > 0.5, name
    assert said("always the majority", train, asked) == pytest.approx(np.full(60, 1 / 3))


def test_rules_are_what_they_say():
    asked = [Row(0, "", {"short_axis_mm": value}) for value in (7.9, 8.0, 8.1, 10.5, None)]
    assert said("short axis above 8 mm", rows(), asked).tolist() == [0, 0, 1, 1, 0]
    assert said("short axis above 10 mm", rows(), asked).tolist() == [0, 0, 0, 1, 0]


def test_a_station_unknown_to_training_says_nothing_of_itself():
    train = rows()
    new, other = (said("station alone", train, [Row(None, name)])[0] for name in ("cervical", "thoracic"))
    assert new == pytest.approx(other)


def test_the_same_seed_gives_the_same_forest():
    train, asked = rows(), rows(seed=2)
    first, second = (said("forest on volume and station", train, asked) for _ in range(2))
    assert np.array_equal(first, second)
