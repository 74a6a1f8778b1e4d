"""The table of patients."""

from __future__ import annotations

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.paths import TaskPaths


def _read(folder, text):
    (folder / "clinical.csv").write_text(text, encoding="utf-8")
    return read_clinical(TaskPaths(folder))


def test_table(tmp_path):
    table = _read(tmp_path, "case_id,patient_id,psa\na, P1 ,3.5\n\nb,P1,\nc,,1\n")
    assert table == {
        "a": {"patient_id": "P1", "psa": "3.5"},
        "b": {"patient_id": "P1", "psa": ""},
        "c": {"patient_id": "", "psa": "1"},
    }
    assert [patient_of(case, table) for case in "abcd"] == ["P1", "P1", "c", "d"]


def test_no_table(tmp_path):
    assert read_clinical(TaskPaths(tmp_path)) == {}


def test_semicolons_byte_order_mark_and_quotes(tmp_path):
    table = _read(tmp_path, '\ufeffcase_id;note\na;"x; y"\n')
    assert table == {"a": {"note": "x; y"}}


@pytest.mark.parametrize(
    "text",
    [
        "case_id;patient_id;psa\na;P1;3,5\nb;;\n",  # spreadsheets where a comma is the decimal point
        "case_id\tpatient_id\tpsa\na\tP1\t3,5\nb\t\t\n",
        '\ufeff case_id , "patient_id" ,psa,,\r\n\r\n a , "P1" , "3,5" ,,\r\nb,,,,\r\n ,, \r\n',
    ],
)
def test_as_spreadsheets_of_other_countries_write_it(tmp_path, text):
    assert _read(tmp_path, text) == {
        "a": {"patient_id": "P1", "psa": "3,5"},
        "b": {"patient_id": "", "psa": ""},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'case_id'; found an empty file"),
        ("patient_id\nP\n", "no column 'case_id'; found patient_id"),
        ("case_id,psa,psa\n", "column 'psa' occurs twice"),
        ("case_id,psa\na,1\na,2\n", "case a has two rows; found again in line 3"),
        ("case_id,psa\n,1\n", "line 2 has no case_id"),
        ("case_id;psa\n\na;1\n;2,5\n", "line 4 has no case_id"),
        ('case_id,note\na,"open\n', "EOF inside string starting at line 2. Save it"),
        ("case_id,psa\na,1,2\n", "line 2 has the wrong number of cells; expected 2; found 3"),
    ],
)
def test_bad_table(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        _read(tmp_path, text)


def test_other_encoding(tmp_path):
    (tmp_path / "clinical.csv").write_bytes("case_id,ort\na,Köln\n".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        read_clinical(TaskPaths(tmp_path))
