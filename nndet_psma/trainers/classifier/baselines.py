"""Simple models on the table of objects, which a network must beat: rules, single measurements, regression, forests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nndet_psma.artifacts.candidate_table import Candidate
from nndet_psma.preprocess.object_features import LONG, MEDIAN, SHORT, VOLUME

STATION = "station"
FOREST_DEPTH = 5
"""Hartenstein et al. 2020."""

SHORT_AXIS_MM = (8.0, 10.0)
"""Short axes above which nodes are usually called enlarged."""

MEDIAN_HU = 7.5
"""Density above which nodes are called infiltrated, as cited by Hartenstein et al. 2020."""

_LOGARITHMIC = (VOLUME, SHORT, LONG)
_TREES = 200

Positive = NDArray[np.float64]
"""``[N]`` probability of the positive class."""


class Measured(Protocol):
    """What a simple model looks at."""

    @property
    def station(self) -> str:
        """Where the object lies."""

    @property
    def features(self) -> dict[str, float | None]:
        """What was measured, by name."""


@dataclass(frozen=True)
class SimpleModel:
    """A simple model.

    Attributes:
        name: for people.
        fit: from training rows of known class and a seed to a function of rows.
        threshold: probability from which on it calls an object positive; None for the best on its training rows.
    """

    name: str
    fit: Callable[[Sequence[Candidate], int], Callable[[Sequence[Measured]], Positive]]
    threshold: float | None = None


def simple_models(features: Sequence[str]) -> list[SimpleModel]:
    """All of them, for these measurements."""
    everything = [*features, STATION]
    return [
        SimpleModel("always the majority", _prevalence, 0.5),
        *(SimpleModel(f"{name} alone", _table_model([name], _logistic)) for name in everything),
        *(SimpleModel(f"short axis above {limit:g} mm", _rule(SHORT, limit), 0.5) for limit in SHORT_AXIS_MM),
        SimpleModel(f"median above {MEDIAN_HU:g} HU", _rule(MEDIAN, MEDIAN_HU), 0.5),
        SimpleModel("forest on volume and station", _table_model([VOLUME, STATION], _forest)),
        SimpleModel("logistic regression on the table", _table_model(everything, _logistic)),
        SimpleModel("forest on the table", _table_model(everything, _forest)),
    ]


def _prevalence(rows: Sequence[Candidate], seed: int) -> Callable[[Sequence[Measured]], Positive]:
    share = float(np.mean([row.label == 1 for row in rows]))
    return lambda asked: np.full(len(asked), share)


def _rule(
    name: str, limit: float
) -> Callable[[Sequence[Candidate], int], Callable[[Sequence[Measured]], Positive]]:
    """1 above the limit, else 0."""

    def ask(asked: Sequence[Measured]) -> Positive:
        return np.array([float((row.features.get(name) or 0.0) > limit) for row in asked])

    return lambda rows, seed: ask


def _table_model(
    names: Sequence[str], estimator: Callable[[int], Any]
) -> Callable[[Sequence[Candidate], int], Callable[[Sequence[Measured]], Positive]]:
    def fit(rows: Sequence[Candidate], seed: int) -> Callable[[Sequence[Measured]], Positive]:
        from sklearn.pipeline import make_pipeline

        model = make_pipeline(_encoder(names), estimator(seed))
        model.fit(_frame(rows, names), [int(row.label == 1) for row in rows])

        def ask(asked: Sequence[Measured]) -> Positive:
            found: Positive = model.predict_proba(_frame(asked, names))[:, 1] if asked else np.zeros(0)
            return found

        return ask

    return fit


def _encoder(names: Sequence[str]) -> Any:
    """Fill and scale, fitted on training rows alone: log1p of sizes, medians and indicators of what is missing, one
    column per station, none for a station that training has not seen.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    def fill() -> Any:
        return SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)

    sizes = [name for name in names if name in _LOGARITHMIC]
    others = [name for name in names if name not in (*_LOGARITHMIC, STATION)]
    parts = [
        ("sizes", make_pipeline(FunctionTransformer(np.log1p), fill(), StandardScaler()), sizes),
        ("others", make_pipeline(fill(), StandardScaler()), others),
        ("station", OneHotEncoder(handle_unknown="ignore"), [STATION] if STATION in names else []),
    ]
    return ColumnTransformer([part for part in parts if part[2]])


def _frame(rows: Sequence[Measured], names: Sequence[str]) -> Any:
    import pandas as pd

    columns: Mapping[str, list[Any]] = {
        name: [row.station if name == STATION else row.features.get(name) for row in rows] for name in names
    }
    frame = pd.DataFrame(columns)
    numbers = [name for name in names if name != STATION]
    return frame.astype({name: float for name in numbers})


def _logistic(seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced", max_iter=1000, random_state=seed)


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(_TREES, max_depth=FOREST_DEPTH, class_weight="balanced", random_state=seed)
