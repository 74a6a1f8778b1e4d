"""Images in arbitrary units are stored as standard deviations from the mean of the case's body."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from artifact_samples import PLAN

from nndet_psma.artifacts.channels import Scaling
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import Volume
from nndet_psma.preprocess.build import preprocessing_hash
from nndet_psma.preprocess.prepare import prepare_case

GRID = Geometry((2, 6, 8), (3.0, 1.0, 1.0))
DWI = Scaling(0, "DWI", -2.0, 4.0, zscore=True)


def plan_of(*scalings: Scaling):
    stages = [replace(PLAN.stages[1], windows=[], start_from=None)]
    return replace(
        PLAN,
        modalities={"0": "DWI", "1": "ADC"},
        ct_modality=None,
        ctv_modality=None,
        windows=[],
        stages=stages,
        scalings=list(scalings),
        postproc_grid={},
    )


def image(factor: float) -> np.ndarray:
    """2 and 4 in equal parts inside, zero outside: mean 3, standard deviation 1, times ``factor``."""
    array = np.zeros(GRID.shape, np.float32)
    array[:, 1:5, 1:4], array[:, 1:5, 4:7] = 2 * factor, 4 * factor
    return array


def test_by_hand_and_whatever_the_scanners_factor() -> None:
    plan = replace(plan_of(DWI), body_margin_mm=1.0)
    for factor in (1.0, 1000.0):
        case = prepare_case("case", {"DWI": Volume(image(factor), GRID)}, plan)
        stored = case.arrays["DWI"]
        assert stored.dtype == np.float32
        # background is 3 standard deviations below the mean of the body
        np.testing.assert_allclose(np.unique(stored), [-3.0, -1.0, 1.0], atol=1e-5)


def test_modalities_with_a_unit_are_left_alone() -> None:
    plan = plan_of(DWI, Scaling(1, "ADC", 0.0, 3.0))
    case = prepare_case("case", {"DWI": Volume(image(1.0), GRID), "ADC": Volume(image(2.0), GRID)}, plan)
    assert sorted(np.unique(case.arrays["ADC"])) == [0.0, 4.0, 8.0]


def test_a_constant_body_gives_zeros() -> None:
    case = prepare_case("case", {"DWI": Volume(np.full(GRID.shape, 5.0, np.float32), GRID)}, plan_of(DWI))
    assert not case.arrays["DWI"].any()


def test_another_normalisation_is_another_store() -> None:
    raw = plan_of(replace(DWI, zscore=False))
    assert preprocessing_hash(plan_of(DWI), "x") != preprocessing_hash(raw, "x")
    assert plan_of(DWI).data_identifier != raw.data_identifier
