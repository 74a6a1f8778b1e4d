"""The fingerprint of a case of a few voxels, counted by hand; finished cases are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint
from nndet_psma.core.errors import UserError
from nndet_psma.core.geometry import Geometry
from nndet_psma.dataset.cases import RawCase
from nndet_psma.dataset.description import DatasetDescription
from nndet_psma.dataset.images import write_volume
from nndet_psma.planners import fingerprint as module
from nndet_psma.planners.fingerprint import measure_case, measure_fingerprint

GRID = Geometry((6, 40, 40), (3.0, 2.0, 2.0), origin=(5.0, -7.0, 11.0))
DESCRIPTION = DatasetDescription("Task900_X", "X", 3, {0: "node", 1: "recurrence"}, {0: "CT", 1: "CTV"})


def write_tiny(folder: Path, case_id: str = "a") -> RawCase:
    """A body of 32 x 32 voxels of 40 HU in all six slices; a CTV; a lesion across its edge, another inside."""
    ct = np.full(GRID.shape, -1000, np.int16)
    ct[:, 4:36, 4:36] = 40
    ctv = np.zeros(GRID.shape, np.uint8)
    ctv[1:4, 10:20, 10:20] = 1
    instances = np.zeros(GRID.shape, np.uint8)
    instances[2:4, 18:23, 12:15] = 1
    instances[1:3, 12:14, 12:14] = 2
    ct[instances == 1] = 100
    ct[instances == 2] = 60
    case = RawCase(
        case_id,
        (folder / f"{case_id}_0000.nii.gz", folder / f"{case_id}_0001.nii.gz"),
        folder / f"{case_id}.nii.gz",
        folder / f"{case_id}.json",
    )
    for file, array in zip((*case.images, case.label), (ct, ctv, instances), strict=True):
        write_volume(file, array, GRID)
    case.instances.write_text(json.dumps({"instances": {"1": 0, "2": 1}}))
    return case


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> CaseFingerprint:
    case = write_tiny(tmp_path_factory.mktemp("case"))
    return measure_case(case, DESCRIPTION, "patient", "high", "hash")


def test_grid_and_boxes(measured: CaseFingerprint) -> None:
    assert (measured.case_id, measured.patient_id, measured.stratum, measured.inputs) == (
        "a", "patient", "high", "hash",
    )  # fmt: skip
    assert measured.shape == (6, 40, 40)
    assert measured.spacing == pytest.approx((3.0, 2.0, 2.0))
    assert measured.body_box == (0, 4, 4, 6, 36, 36)
    assert measured.ctv_box == (1, 10, 10, 4, 20, 20)


def test_lesions(measured: CaseFingerprint) -> None:
    first, second = measured.lesions
    assert (first.instance, first.label, first.slices) == (1, 0, 2)
    assert first.box == (2, 18, 12, 4, 23, 15)
    assert first.size_mm == pytest.approx((6.0, 10.0, 6.0))
    assert first.volume_mm3 == pytest.approx(2 * 5 * 3 * 12.0)  # voxels of 3 x 2 x 2 mm
    # its last row is 22, the CTV's last row 19: three rows of 2 mm
    assert first.outside_ctv_mm == pytest.approx(6.0)
    assert (second.instance, second.label, second.slices) == (2, 1, 2)
    assert second.outside_ctv_mm == 0.0


def test_histograms(measured: CaseFingerprint) -> None:
    # lesions: 8 voxels of 60 HU and 30 of 100
    assert measured.lesion_hu.lowest == 60
    assert measured.lesion_hu.counts == [8, *[0] * 39, 30]
    # CTV 3 x 10 x 10, less the 2 x 2 x 3 voxels of lesion 1 in it and the 8 of lesion 2
    assert (measured.region_hu.lowest, measured.region_hu.counts) == (40, [280])


def test_intensities(measured: CaseFingerprint) -> None:
    assert list(measured.intensities) == ["CT"]
    ct = measured.intensities["CT"]
    body = 6 * 32 * 32
    assert ct.mean == pytest.approx((40 * (body - 38) + 100 * 30 + 60 * 8) / body)
    assert (ct.percentile_00_5, ct.percentile_50) == (40, 40)
    # 38 of 6144 voxels are brighter: the brightest 0.5 % (30.7) end between the 30 of 100 and the 8 of 60 HU
    assert ct.percentile_99_5 == 60
    assert ct.lesion_percentile_50 == 100


def test_without_ctv(tmp_path: Path) -> None:
    case = write_tiny(tmp_path)
    case = RawCase("a", case.images[:1], case.label, case.instances)
    only_ct = DatasetDescription("Task900_X", "X", 3, {0: "node", 1: "recurrence"}, {0: "CT"})
    found = measure_case(case, only_ct, "a", "", "hash")
    assert found.ctv_box is None
    assert [lesion.outside_ctv_mm for lesion in found.lesions] == [None, None]
    assert found.region_hu.total == 6 * 32 * 32 - 38  # the body less the lesions


def test_without_ct_there_is_no_hu(tmp_path: Path) -> None:
    case = write_tiny(tmp_path)
    pet = DatasetDescription("Task900_X", "X", 3, {0: "node", 1: "recurrence"}, {0: "PET", 1: "CTV"})
    found = measure_case(case, pet, "a", "", "hash")
    assert found.lesion_hu.total == 0
    assert list(found.intensities) == ["PET"]


Measure = Callable[..., Fingerprint]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    cases = [write_tiny(tmp_path / "raw", name) for name in ("b", "a")]

    def run(
        clinical: dict[str, dict[str, str]] | None = None, description: DatasetDescription = DESCRIPTION
    ) -> Fingerprint:
        return measure_fingerprint(
            cases, description, clinical or {}, stratify_by="risk", cache=tmp_path / "cache", processes=1
        )

    return run


def count_measurements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    measured: list[str] = []

    def counting(case: RawCase, *rest: object) -> CaseFingerprint:
        measured.append(case.case_id)
        return measure_case(case, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "measure_case", counting)
    return measured


def test_finished_cases_are_kept(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure()
    assert [case.case_id for case in first.cases] == ["a", "b"]
    measured = count_measurements(monkeypatch)
    assert measure() == first
    assert measured == []


def test_patient_and_stratum_follow_the_table_without_measuring(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure()
    measured = count_measurements(monkeypatch)
    again = measure({"a": {"patient_id": "p", "risk": "high"}})
    assert [(case.patient_id, case.stratum) for case in again.cases] == [("p", "high"), ("b", "")]
    assert measured == []


def test_only_a_changed_case_is_measured_again(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure()
    (tmp_path / "raw" / "a.json").write_text(json.dumps({"instances": {"1": 1, "2": 1}}))
    measured = count_measurements(monkeypatch)
    assert [lesion.label for lesion in measure().cases[0].lesions] == [1, 1]
    assert measured == ["a"]


def test_another_meaning_of_the_files_is_measured_again(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure()
    measured = count_measurements(monkeypatch)
    renamed = DatasetDescription("Task900_X", "X", 3, {0: "node", 1: "recurrence"}, {0: "CT", 1: "MASK"})
    cases = measure(description=renamed).cases
    assert measured == ["b", "a"]
    assert all(case.ctv_box is None and set(case.intensities) == {"CT", "MASK"} for case in cases)


@pytest.mark.parametrize("content", ["{", '{"version": 0}', '{"version": 1, "inputs": "x"}', "[]"])
def test_a_damaged_or_old_record_is_measured_again(measure: Measure, tmp_path: Path, content: str) -> None:
    first = measure()
    (tmp_path / "cache" / "a.json").write_text(content)
    assert measure() == first


def test_no_cases(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training cases"):
        measure_fingerprint([], DESCRIPTION, {}, stratify_by="", cache=tmp_path, processes=1)
