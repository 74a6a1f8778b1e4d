"""Which objects a batch shows."""

from collections import Counter

import numpy as np
import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.trainers.classifier.sampling import Sampler, location_set, status_set

# 366 positive nodes as in the paper's training set, more negative ones; by station (positive, negative)
STATIONS = {
    "inguinal": (20, 900), "iliac": (120, 400), "retroperitoneal": (150, 95), "perirectal": (30, 14),
    "axillary": (2, 380), "mediastinal": (14, 120), "supraclavicular": (18, 6), "infraclavicular": (4, 0),
    "cervical": (8, 3),
}  # fmt: skip


def table():
    labels, stations = [], []
    for name, (positive, negative) in STATIONS.items():
        labels += [1] * positive + [0] * negative
        stations += [name] * (positive + negative)
    return np.array(labels), stations


def test_status_balanced_set():
    labels, _ = table()
    chosen = status_set(labels, 0)
    assert len(chosen) == 732
    assert len(set(chosen.tolist())) == 732  # each once
    assert labels[chosen].sum() == 366
    assert np.array_equal(chosen, status_set(labels, 0))
    assert not np.array_equal(chosen, status_set(labels, 1))


def test_location_balanced_set():
    """The smaller of both numbers: 20 + 120 + 95 + 14 + 2 + 14 + 6 + 0 + 3 = 274 of each, as in the paper."""
    labels, stations = table()
    chosen = location_set(labels, stations, 0)
    assert len(chosen) == len(set(chosen.tolist())) == 548
    for name, (positive, negative) in STATIONS.items():
        here = [index for index in chosen if stations[index] == name]
        assert Counter(labels[here].tolist()) == Counter(
            {0: min(positive, negative), 1: min(positive, negative)}
        )


def test_location_draws_pairs_of_one_station_by_its_positives():
    labels, stations = table()
    sampler = Sampler("location", labels, stations, 0)
    assert sampler.balanced_size == 548
    seen = Counter()
    for step in range(200):
        drawn = sampler.draw(step, 10, np.random.default_rng(step))
        assert labels[drawn].tolist() == [0, 1] * 5
        names = [stations[index] for index in drawn]
        assert names[::2] == names[1::2]
        seen.update(names[::2])
    assert "infraclavicular" not in seen  # no negative node there
    assert seen["retroperitoneal"] / 1000 == pytest.approx(150 / 362, abs=0.05)


def test_an_odd_batch_and_status_draws():
    labels, stations = table()
    drawn = Sampler("status", labels, stations, 0).draw(0, 5, np.random.default_rng(0))
    assert labels[drawn].tolist() == [0, 1, 0, 1, 0]


def test_natural_draws_show_every_object_once_per_epoch():
    labels = np.array([0, 1, 0, 0, -1])
    sampler = Sampler("natural", labels, ["a"] * 5, 3)
    seen = [int(i) for step in range(4) for i in sampler.draw(step, 2, np.random.default_rng(0))]
    assert sorted(seen[:4]) == sorted(seen[4:]) == [0, 1, 2, 3]  # the unknown one never
    assert sampler.balanced_size == 4


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(UserError, match=r"no station holds nodes of both classes.*found iliac, inguinal"):
        Sampler("location", np.array([0, 0, 1]), ["inguinal", "inguinal", "iliac"], 0)
    with pytest.raises(UserError, match="a class has no training object"):
        Sampler("natural", np.array([0, 0]), ["a", "a"], 0)
