"""Studies found by patterns."""

from __future__ import annotations

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.convert.study_files import find_studies


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_one_wildcard(tmp_path):
    _touch(tmp_path, "P.2/CT.nii.gz", "P.2/m.nii.gz", "P 1/CT.nii.gz", "P 1/m.nii.gz", "P 1/deep/CT.nii.gz")
    studies = find_studies(tmp_path, {"CT": "*/CT.nii.gz", "label": "*/m.nii.gz"})
    assert [study.case_id for study in studies] == ["P_1", "P_2"]
    assert studies[1].files == {"CT": tmp_path / "P.2/CT.nii.gz", "label": tmp_path / "P.2/m.nii.gz"}
    assert studies[1].patient_id == "P_2"


def test_the_first_wildcard_is_the_patient(tmp_path):
    _touch(tmp_path, "P1/day1_ct.nii", "P1/day2_ct.nii", "P2/day1_ct.nii")
    studies = find_studies(tmp_path, {"CT": "*/*_ct.nii"})
    assert [(study.case_id, study.patient_id) for study in studies] == [
        ("P1_day1", "P1"),
        ("P1_day2", "P1"),
        ("P2_day1", "P2"),
    ]


def test_other_wildcards_mean_themselves(tmp_path):
    _touch(tmp_path, "a/[1].nii", "b/1.nii")
    assert [study.case_id for study in find_studies(tmp_path, {"CT": "*/[1].nii"})] == ["a"]


def test_optional_files(tmp_path):
    _touch(tmp_path, "a/CT.nii", "b/CT.nii", "b/m.nii")
    studies = find_studies(tmp_path, {"CT": "*/CT.nii", "label": "*/m.nii"}, frozenset({"label"}))
    assert ["label" in study.files for study in studies] == [False, True]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"CT": "a/CT.nii"}, "does not tell studies apart"),
        ({"CT": "**/CT.nii"}, "does not tell studies apart"),
        ({"CT": "/*/CT.nii"}, "does not tell studies apart"),
        ({"CT": "*/MR.nii"}, "no file for CT"),
        ({"CT": "*/CT.nii", "label": "*/m.nii"}, "study a b has no label"),
    ],
)
def test_bad_patterns(tmp_path, patterns, message):
    _touch(tmp_path, "a b/CT.nii", "c/CT.nii", "c/m.nii")
    with pytest.raises(UserError, match=message):
        find_studies(tmp_path, patterns)


def test_colliding_names_and_missing_folder(tmp_path):
    _touch(tmp_path, "a b/CT.nii", "a.b/CT.nii")
    with pytest.raises(UserError, match="both be called a_b"):
        find_studies(tmp_path, {"CT": "*/CT.nii"})
    with pytest.raises(UserError, match="no such folder"):
        find_studies(tmp_path / "none", {"CT": "*/CT.nii"})
