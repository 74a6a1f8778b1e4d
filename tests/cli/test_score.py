"""``nndet_psma score``: one JSON object on standard output, one line per mistake."""

from __future__ import annotations

import json

import pytest

from nndet_psma.cli import umbrella
from nndet_psma.cli.eval import main as eval_main


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {
        "T.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\na,0,0,0,10\nb,0,0,0,6\n",
        "P.csv": "seriesuid,coordX,coordY,coordZ,probability\na,1,0,0,0.9\nb,4,0,0,0.8\nb,9,0,0,0.7\n",
        "C.csv": "seriesuid\na\nb\nc\nd\n",
        "E.csv": "seriesuid,coordX,coordY,coordZ,diameter_mm\nb,9,0,0,-1\n",
        "R.csv": "patient;label;score;reader\n1;1;0,9;1\n2;1;0,4;1\n3;0;0,6;0\n4;0;0,1;0\n",
        "t.csv": "x, y\n1, 2\n30, 40\n",
        "p.csv": "x, y\n1, 3\n",
        "t.json": json.dumps(
            {
                "images": [{"id": 1}],
                "categories": [{"id": 1}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
            }
        ),
        "p.json": json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(capsys, line):
    code = umbrella.main(["score", *line.split()])
    out, err = capsys.readouterr()
    return code, out, err


def test_froc(files, capsys):
    code, out, err = run(capsys, "froc --truth T.csv --pred P.csv --cases C.csv --exclude E.csv")
    # b at 4 mm lies outside 3 mm: missed, and false; b at 9 is excluded. 1 of 2 found, then 1 false in 4 scans
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "cpm": 0.5,
        "sensitivity_at_fp": dict.fromkeys(("0.125", "0.25", "0.5", "1", "2", "4", "8"), 0.5),
        "n_cases": 4,
        "n_lesions": 2,
        "true_positives": 1,
        "false_positives": 1,
    }
    _, out, _ = run(capsys, "froc --truth T.csv --pred P.csv --hit 5 --max-per-case 1")
    assert (json.loads(out)["true_positives"], json.loads(out)["n_cases"]) == (2, 2)
    assert run(capsys, "froc --truth T.csv --pred P.csv --hit radius")[0] == 0


def test_roc(files, capsys):
    code, out, _ = run(capsys, "roc --table R.csv --label label --score score")
    result = json.loads(out)
    assert code == 0
    assert (result["auc"], result["threshold"]) == (
        0.75,
        0.9,
    )  # 0.9: 1/2 + 1; 0.4: 1 + 1/2: equal, the higher
    assert (result["tp"], result["fn"], result["fp"], result["tn"]) == (1, 1, 0, 2)
    _, out, _ = run(capsys, "roc --table R.csv --label label --score score --score2 reader")
    assert json.loads(out).keys() == result.keys()
    assert json.loads(out)["mcnemar_p"] == 1.0  # one patient only the reader is right about


def test_boxes_and_points(files, capsys):
    code, out, _ = run(capsys, "boxes --truth t.json --pred p.json")
    assert code == 0
    assert json.loads(out)["AP"] == pytest.approx(1.0)
    assert json.loads(out)["APl"] is None
    code, out, _ = run(capsys, "points --truth t.csv --pred p.csv --radius 1")
    assert (code, json.loads(out)) == (0, {"tp": 1, "fp": 0, "fn": 1})


def test_how_identifiers_are_matched(files, capsys):
    (files / "u.csv").write_text("seriesuid,coordX,coordY,coordZ,probability\na.mhd,1,0,0,0.9\n")
    code, _, err = run(capsys, "froc --truth T.csv --pred u.csv")
    assert code == 2
    assert "no scans in common with T.csv" in err
    code, out, err = run(capsys, "froc --truth T.csv --pred u.csv --strip-suffix .mhd --match-numbers")
    assert (code, json.loads(out)["true_positives"]) == (0, 1)


def test_boxes_at_other_ious(files, capsys):
    code, out, _ = run(capsys, "boxes --truth t.json --pred p.json --iou 0.3 0.1")
    assert code == 0
    assert list(json.loads(out)["at_iou"]) == ["0.3", "0.1"]
    assert json.loads(out)["at_iou"]["0.3"]["ap_all_points"] == 1.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("froc --truth P.csv --pred P.csv", "P.csv: line 1: no column 'diameter_mm'; expected one column"),
        ("froc --truth nowhere.csv --pred P.csv", "nowhere.csv: file does not exist"),
        ("froc --truth R.csv --pred P.csv", "R.csv: line 1: no column"),
        (
            "roc --table R.csv --label score --score score",
            "R.csv: line 2, column 'score'; expected 0 or 1; found '0,9'",
        ),
        ("roc --table R.csv --label label --score nothing", "no column 'nothing'"),
        ("boxes --truth t.json --pred t.csv", "t.csv: not valid JSON"),
    ],
)
def test_mistakes_are_one_line_and_code_2(files, capsys, line, message):
    code, out, err = run(capsys, line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    "line",
    [
        "",
        "froc --truth T.csv",
        "froc --truth T.csv --pred P.csv --hit wide",
        "froc --truth T.csv --pred P.csv --hit -3",
        "froc --truth T.csv --pred P.csv --max-per-case 0",
        "points --truth t.csv --pred p.csv --radius 0",
        "points --truth t.csv --pred p.csv",
        "boxes --truth t.json --pred p.json --iou 1.1",
    ],
)
def test_wrong_arguments_end_with_code_2(files, capsys, line):
    with pytest.raises(SystemExit) as ended:
        umbrella.main(["score", *line.split()])
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("option", ["--seg", "--instances"])
def test_masks_are_not_scored(capsys, option):
    assert eval_main(["100", "M", "-1", option]) == 2
    assert "masks by nndet_psma score-seg" in capsys.readouterr().err


def test_roc_tells_what_is_asked(files, capsys):
    (files / "N.csv").write_text(
        "patient,station,label,p,reader\n"
        "1,iliac,1,0.9,1\n1,inguinal,0,0.2,0\n2,iliac,1,0.6,1\n2,inguinal,0,0.1,1\n3,iliac,0,0.7,0\n3,inguinal,1,0.3,0\n"
    )
    line = "roc --table N.csv --label label --score p --patient patient --strata station --at-sensitivity 0.6"
    code, out, _ = run(
        capsys, f"{line} --stratified-replicates 50 --calibration --decision-curve --compare reader"
    )
    result = json.loads(out)
    assert code == 0
    assert result["stratified_auc"] == 0.75  # iliac: 0.9 and 0.6 against 0.7; inguinal: 0.3 above both
    assert result["at_sensitivity"]["threshold"] == 0.6
    assert result["by_patient"]["patients"] == 3
    assert len(result["decision_curve"]) == 60
    assert result["calibration"]["brier"] == pytest.approx((0.01 + 0.04 + 0.16 + 0.01 + 0.49 + 0.49) / 6)
    assert [row["second"] for row in result["comparisons"]] == ["reader"]
    assert len(result["auc_stratified_ci95"]) == 2
    code, _, err = run(capsys, "roc --table T.csv --label coordY --score coordX --calibration")
    (files / "big.csv").write_text("label,score\n1,12\n0,3\n")
    code, _, err = run(capsys, "roc --table big.csv --label label --score score --calibration")
    assert (code, err.count("\n")) == (2, 1)
    assert "column 'score' holds no probabilities; expected 0 to 1; found 3 to 12" in err


def test_confusion_of_a_printed_table(files, capsys):
    (files / "C2.csv").write_text("one,two,n\nM0,M0,20\nM0,M1a,5\nM1a,M0,10\nM1a,M1a,15\nM1b/u,M1a,0\n")
    code, out, _ = run(
        capsys, "confusion --table C2.csv --label one --confusion two --count n --collapse M1a,M1b/u=M1"
    )
    result = json.loads(out)
    assert (code, result["categories"], result["counts"]) == (0, ["M0", "M1"], [[20, 5], [10, 15]])
    assert result["agreement"]["value"] == 0.7
    # a textbook table: observed 0.7, by chance 0.5
    assert {name: kappa["value"] for name, kappa in result["kappa"].items()} == pytest.approx(
        dict.fromkeys(("none", "linear", "quadratic"), 0.4)
    )
    for arguments, message in (
        (
            "--collapse M9=M1",
            "--collapse 'M9=M1'; expected \"a,b=c\" with categories of M0, M1a, M1b/u; found M9",
        ),
        ("--order M0 M1a", "the order must name every category once; expected M0, M1a, M1b/u; found M0, M1a"),
        ("--count two", "line 2, column 'two'; expected a finite number"),
        ("--collapse M0=A M0=B", "--collapse gives a category two names"),
    ):
        code, _, err = run(capsys, f"confusion --table C2.csv --label one --confusion two {arguments}")
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


def test_printed_results(capsys):
    _, out, _ = run(
        capsys, "printed --positives 65 --negatives 65 --printed sensitivity=86 specificity=92 ppv=91"
    )
    assert json.loads(out) == {"matches": [{"tp": 56, "tn": 60, "modes": ["cut"]}]}
    for printed, message in (
        ("auc=86", "expected some of accuracy"),
        ("sensitivity=nan", "expected a percentage with 0 digits after the point, got sensitivity=nan"),
        ("sensitivity=186", "got sensitivity=186"),
        ("sensitivity=86.55", "got sensitivity=86.55"),
        ("sensitivity=86 sensitivity=87", "a percentage is given twice"),
    ):
        code, _, err = run(capsys, f"printed --positives 65 --negatives 65 --printed {printed}")
        assert (code, err.count("\n"), message in err) == (2, 1, True)
    code, _, err = run(capsys, "printed --positives 50000 --negatives 50000 --printed ppv=86")
    assert (code, "too many pairs to try" in err) == (2, True)
    _, out, _ = run(capsys, "mcnemar --errors 0 3 --total 130")
    assert json.loads(out) == {"fewest_shared": 0, "most_shared": 0, "p_of_shared": [0.25]}
    assert run(capsys, "mcnemar --errors 200 3 --total 130")[0] == 2


def test_what_cannot_be_compared(files, capsys):
    (files / "K.csv").write_text("one,two\n0,A\n1,B\n")
    code, _, err = run(capsys, "confusion --table K.csv --label one --confusion two")
    assert (code, "columns 'one' and 'two' have no category in common" in err) == (2, True)
    code, _, err = run(capsys, "roc --table R.csv --label label --score score --compare score")
    assert (code, "a score is to be compared with itself" in err) == (2, True)
    truth = json.loads((files / "t.json").read_text())
    truth["annotations"] = [{**truth["annotations"][0], "id": 7}] * 2
    (files / "t.json").write_text(json.dumps(truth))
    code, _, err = run(capsys, "boxes --truth t.json --pred p.json")
    assert (code, "annotations[1]; expected an id of its own; found 7" in err) == (2, True)
