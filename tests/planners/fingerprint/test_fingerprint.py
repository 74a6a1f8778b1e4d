"""The fingerprint of a case of a few voxels, counted by hand; finished cases are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nndet_psma.artifacts.fingerprint import CaseFingerprint, Fingerprint
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription
from nndet_psma.planners.fingerprint import measure as module
from nndet_psma.planners.fingerprint.measure import measure_fingerprint
from nndet_psma.planners.fingerprint.measure_case import measure_case

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
    regions = measured.intensities["CT"]
    assert sorted(regions) == ["body", "ctv", "lesion", "outside"]
    body, voxels = regions["body"], 6 * 32 * 32
    assert body.voxels == voxels
    assert body.mean == pytest.approx((40 * (voxels - 38) + 100 * 30 + 60 * 8) / voxels)
    assert (body.minimum, body.percentile_00_5, body.percentile_50, body.maximum) == (40, 40, 40, 100)
    # 38 of 6144 voxels are brighter: the brightest 0.5 % (30.7) end between the 30 of 100 and the 8 of 60 HU
    assert body.percentile_99_5 == 60
    lesion = regions["lesion"]
    assert (lesion.voxels, lesion.percentile_00_5, lesion.percentile_50, lesion.step) == (38, 60, 100, 1)
    assert lesion.mean == pytest.approx((100 * 30 + 60 * 8) / 38)
    assert (regions["ctv"].voxels, regions["ctv"].mean, regions["ctv"].std) == (280, 40, 0)
    assert (regions["outside"].voxels, regions["outside"].maximum) == (6 * 40 * 40 - voxels, -1000)


def test_volumes_and_slices(measured: CaseFingerprint) -> None:
    assert measured.body_volume_mm3 == pytest.approx(6 * 32 * 32 * 12.0)
    assert measured.ctv_volume_mm3 == pytest.approx(300 * 12.0)
    assert measured.positive_slices == 3  # lesions in slices 2, 3 and 1, 2
    assert measured.search_slices == 3


def test_sizes_of_lesions(measured: CaseFingerprint) -> None:
    first, second = measured.lesions
    assert first.size_voxels == (2, 5, 3)
    assert first.slice_sizes_mm == [pytest.approx((10.0, 6.0))] * 2
    # a rectangle of 10 x 6 mm: diagonal d; the corner beside it lies 60 / d away, the section through it is
    # longer by the ratio 36 / 100 (see test_lesion_shape)
    d = math.hypot(10, 6)
    assert (first.long_axis_mm, first.short_axis_mm) == pytest.approx((d, 60 / d * 1.36))
    assert (first.medians, second.medians) == ({"CT": 100.0}, {"CT": 60.0})
    # 12 of its 30 voxels are in the CTV; the deepest of them, (3, 18..19, 12..14), is 1 slice from its end
    assert first.share_in_ctv == pytest.approx(0.4)
    assert first.inside_ctv_mm == pytest.approx(
        4.0
    )  # voxel (2, 18, .): 2 slices below, 2 rows of 2 mm beside
    assert (second.share_in_ctv, second.inside_ctv_mm) == (
        1.0,
        pytest.approx(6.0),
    )  # (2, 12, 12): 2 slices, 3 rows


Measure = Callable[..., Fingerprint]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    cases = [write_tiny(tmp_path / "raw", name) for name in ("b", "a")]

    def run(
        clinical: dict[str, dict[str, str]] | None = None,
        description: DatasetDescription = DESCRIPTION,
        processes: int = 1,
    ) -> Fingerprint:
        return measure_fingerprint(
            cases,
            description,
            clinical or {},
            stratify_by="risk",
            cache=tmp_path / "cache",
            processes=processes,
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


def test_a_run_that_was_killed_goes_on_where_it_was(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the second case (a) is measured: b is kept, the end is the same."""

    def killed(case: RawCase, *rest: object) -> CaseFingerprint:
        if case.case_id == "a":
            (tmp_path / "cache" / ".tmp-12345678-a.json").write_text("{")
            raise KeyboardInterrupt
        return measure_case(case, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "measure_case", killed)
    with pytest.raises(KeyboardInterrupt):
        measure()
    measured = count_measurements(monkeypatch)
    resumed = measure()
    assert measured == ["a"]
    assert sorted(file.name for file in (tmp_path / "cache").iterdir()) == ["a.json", "b.json"]
    assert measure() == resumed
    (tmp_path / "cache" / "b.json").unlink()
    assert measure().content_hash() == resumed.content_hash()


def test_two_processes_measure_the_same(measure: Measure, tmp_path: Path) -> None:
    one = measure()
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    assert measure(processes=2).to_json() == one.to_json()


def test_no_cases(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training cases"):
        measure_fingerprint([], DESCRIPTION, {}, stratify_by="", cache=tmp_path, processes=1)
