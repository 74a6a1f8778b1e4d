import subprocess
import sys

import pytest

from nndet_psma.core.csv_table import read_names, read_rows, read_table, write_table
from nndet_psma.core.errors import UserError


def table(tmp_path, text, encoding="utf-8"):
    file = tmp_path / "table.csv"
    file.write_bytes(text.encode(encoding))
    return read_table(file)


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n1,2.5\n3,-4e1\n",
        "x, y\n1, 2.5\n3 , -4e1",
        "\ufeffX,Y\r\n1,2.5\r\n\r\n3,-4e1\r\n",
        "x;y\n1;2,5\n3;-40\n",
        "x\ty\r1\t2.5\r3\t-40\r",
        '"x","y"\n"1","2.5"\n3,-40,,\n',
        '"x" , "y" \n "1" , "2.5" \n3,-40',
        "x;y;;\n1;2,5\n;;;\n3;-40;;\n",
        "y,x,note\n2.5,1,\n-40,3,\n",
    ],
)
def test_many_ways_to_write_the_same(tmp_path, text):
    content = table(tmp_path, text)
    assert content.numbers("x", "y").tolist() == [[1, 2.5], [3, -40]]
    assert len(content) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; expected a header line"),
        ("\n \n", "the file is empty"),
        ("x,y\n1,2\n3\n", "line 3; expected 2 values; found 1"),
        ("x,y\n1,2,3\n", "line 2; expected 2 values; found 3"),
        ("x,y\n1,2\n\n3,abc\n", "line 4, column 'y'; expected a finite number; found 'abc'"),
        ('x,y\n1,"2\n\n3"\n3\n', "line 5; expected 2 values; found 1"),
        ('x,y\n1,2\n3,"4\n5,6\n', "EOF inside string starting at line 3; expected .* quote closed"),
        ('x,y\n1,"2\n",3,"4\n",5\n', "Expected 4 fields in line 2"),
        ("x,y\n1,nan\n", "expected a finite number; found 'nan'"),
        ("x,y\n1,1_0\n", "expected a finite number; found '1_0'"),
        ("x,y\n1,\n", "line 2, column 'y'; expected a value; found an empty cell"),
        ("x,z\n1,2\n", "no column 'y'; expected one column 'y'; found x, z"),
        ("x,Y,yY,YY\n1,2,3,4\n", None),
        ("x,Y,y \n1,2,3\n", None),
        ("x,Y,y,Y\n1,2,3,4\n", None),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    if message is None:  # one exact name, or one without regard to case: not ambiguous
        assert table(tmp_path, text).numbers("y").tolist() in ([2.0], [3.0])
        return
    with pytest.raises(UserError, match=message):
        table(tmp_path, text).numbers("x", "y")


@pytest.mark.parametrize("header", ["y,y", "Y,Y", "YY,yy"])
def test_two_columns_of_one_name(tmp_path, header):
    with pytest.raises(UserError, match="line 1: 2 columns"):
        table(tmp_path, f"{header}\n1,2\n").numbers("Yy" if "YY" in header else "y")


def test_no_text_and_no_file(tmp_path):
    with pytest.raises(UserError, match="line 2: not UTF-8 text"):
        table(tmp_path, "x,y\n1,é\n", "latin-1")
    with pytest.raises(UserError, match="file does not exist"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path)


def test_truths(tmp_path):
    assert table(tmp_path, "x\n1\n0\n1.0\nTrue\nno\n").truths("x").tolist() == [
        True,
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(UserError, match="line 3, column 'x'; expected 0 or 1; found '2'"):
        table(tmp_path, "x\n1\n2\n").truths("x")


@pytest.mark.parametrize(
    "text", ["a\nb\na\n", "SeriesUID\na\nb\n", "seriesuid,n\na,1\nb,2\n", "\ufeffa\r\n\r\nb\r\n"]
)
def test_names_with_and_without_header(tmp_path, text):
    (tmp_path / "cases.csv").write_text(text, encoding="utf-8")
    assert read_names(tmp_path / "cases.csv", "seriesuid") == ["a", "b"]


def test_names_of_another_table_are_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("case,n\na,1\n")
    with pytest.raises(UserError, match="no column 'seriesuid'"):
        read_names(tmp_path / "cases.csv", "seriesuid")


def test_texts_stay_as_they_are(tmp_path):
    content = table(tmp_path, 'x;y\n NA ;"a; ""b"",\n c"\nnull;007\n')
    assert (content.texts("x"), content.texts("y")) == (["NA", "null"], ['a; "b",\n c', "007"])
    assert content.lines == [3, 4]


def test_pandas_is_loaded_where_there_is_a_table(tmp_path):
    """Training asks for the patients: a task without table must not wait for pandas, nor need it."""
    code = (
        "import sys; from pathlib import Path; from nndet_psma.dataset.task.clinical import read_clinical;"
        "from nndet_psma.dataset.task.paths import TaskPaths; read_clinical(TaskPaths(Path(sys.argv[1])));"
        "print('pandas' in sys.modules)"
    )
    for text, loaded in ((None, "False"), ("case_id\n", "True")):
        if text is not None:
            (tmp_path / "clinical.csv").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == loaded


NAMES = [
    "=1+1",
    "+a",
    "-case",
    "@b",
    "'=c",
    "''-d",
    "'quoted",
    "-5",
    "+1.5e3",
    "plain",
    "=cmd|' /C calc'!A0",
    "007",
]


def test_no_cell_is_a_formula_and_all_come_back(tmp_path):
    """As a spreadsheet reads them: texts, but for the numbers."""
    file = tmp_path / "t.csv"
    write_table(file, ("case_id", "=n"), [(name, -1.5) for name in NAMES])
    lines = file.read_text().splitlines()
    assert lines[0] == "case_id,'=n"
    formulas = [line for line in lines if line[0] in "=+-@"]
    assert formulas == ["-5,-1.5", "+1.5e3,-1.5"]
    assert read_table(file).texts("case_id") == NAMES
    assert read_table(file).numbers("=n").tolist() == [-1.5] * len(NAMES)
    assert read_names(file, "case_id") == NAMES
    assert [row[0] for _, row in read_rows(file)[0][1:]] == NAMES
