"""``nndet_psma score-seg`` and ``nndet_psma agreement``."""

import csv
import json

import numpy as np
import pytest

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.cli import agreement, score_seg
from nndet_psma.dataset.images.images import write_volume

GRID = Geometry((4, 16, 30), (3.0, 1.0, 1.0))


def nodes(*places):
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    for z0, y0, x0, z1, y1, x1 in places:
        mask[z0:z1, y0:y1, x0:x1] = 1
    return mask


BIG = (0, 3, 2, 3, 13, 12)  # 9 x 10 x 10 mm
LOW = (0, 3, 2, 2, 13, 12)  # the same without its upper slice: 6 mm, no longer suspicious
SMALL = (1, 3, 20, 2, 6, 24)  # 3 x 3 x 4 mm
STRAY = (3, 13, 25, 4, 16, 28)


@pytest.fixture
def folders(tmp_path):
    cases = {
        "a": (nodes(BIG, STRAY), nodes(BIG, SMALL)),  # the big one right, the small one missed, one false
        "b": (nodes(LOW), nodes(BIG)),  # too small: missed among the suspicious
        "c": (nodes(), nodes()),
    }
    for case, pair in cases.items():
        for side, mask in zip(("pred", "truth"), pair, strict=True):
            (tmp_path / side).mkdir(exist_ok=True)
            write_volume(tmp_path / side / f"{case}.nii.gz", mask, GRID)
    return tmp_path


def run(capsys, folders, *more):
    arguments = [
        "--pred",
        str(folders / "pred"),
        "--truth",
        str(folders / "truth"),
        "--draws",
        "50",
        *map(str, more),
    ]
    assert score_seg.main(arguments) == 0
    return json.loads(capsys.readouterr().out)


def test_scores(folders, capsys):
    scores = run(capsys, folders)
    assert (scores["cases"], scores["patients"]) == (3, 3)
    assert scores["detection"]["all"]["counts"] == {"found": 2, "missed": 1, "right": 2, "false": 1}
    assert scores["detection"]["suspicious"]["counts"] == {"found": 1, "missed": 1, "right": 1, "false": 0}
    assert scores["detection"]["largest"]["counts"] == {"found": 2, "missed": 0, "right": 2, "false": 0}
    # voxels: a 300 right, 9 false, 12 missed; b 200 right, 100 missed
    everything = scores["segmentation"]["all"]
    assert everything["pooled"]["dice"] == pytest.approx(2 * 500 / (2 * 500 + 9 + 112))
    assert everything["per_case"]["dice"]["mean"] == pytest.approx((600 / 621 + 400 / 500) / 2)
    assert everything["per_case"]["dice"]["undefined"] == 1
    # suspicious: a perfect, b without a prediction
    suspicious = scores["segmentation"]["suspicious"]
    assert suspicious["per_case"]["dice"]["mean"] == 0.5
    assert suspicious["per_case"]["hausdorff_mm"]["cases"] == 1
    assert scores["segmentation"]["largest"]["per_case"]["hausdorff_mm"]["mean"] == pytest.approx(
        1.5
    )  # 0 and 3 mm


def test_the_value_of_a_binary_mask_does_not_count(folders, capsys):
    expected = run(capsys, folders)
    for case, mask in {"a": nodes(BIG, SMALL), "b": nodes(BIG)}.items():
        write_volume(folders / "truth" / f"{case}.nii.gz", mask * np.uint8(255), GRID)
    assert run(capsys, folders) == expected
    soft = nodes(BIG, SMALL).astype(np.float32) * np.float32(0.6)
    write_volume(folders / "truth" / "a.nii.gz", soft, GRID)
    assert run(capsys, folders, "--soft") == expected


def test_sizes_and_stages(folders, capsys):
    scores = run(capsys, folders)
    # short diameters: a 9 and 9, b 6 against 9
    limits = scores["sizes"]["all"]["short_diameter_mm"]["limits"]
    assert (limits["bias"], limits["pairs"]) == (pytest.approx(-1.5), 2)
    staging = scores["staging"]
    assert staging["counts"] == {"tp": 1, "fp": 0, "tn": 1, "fn": 1}
    assert staging["auc"] == 1.0  # by short diameter: 9, 6 against 0
    # 2 of 3 right; by chance (1 * 2 + 2 * 1) / 9
    assert staging["kappa"]["value"] == pytest.approx((2 / 3 - 4 / 9) / (5 / 9))


def test_the_rule_and_the_patients(folders, capsys):
    assert run(capsys, folders, "--threshold_mm", 5)["staging"]["counts"]["fn"] == 0
    table = folders / "clinical.csv"
    table.write_text("case_id,patient_id\na,p1\nb,p1\nc,p2\n")
    scores = run(capsys, folders, "--patients", table)
    assert (scores["patients"], scores["staging"]["counts"]) == (2, {"tp": 1, "fp": 0, "tn": 1, "fn": 0})
    table.write_text("case_id,patient_id\na,p1\n")
    arguments = ["--pred", str(folders / "pred"), "--truth", str(folders / "truth"), "--patients", str(table)]
    assert score_seg.main(arguments) == 2
    assert "no row of case b" in capsys.readouterr().err
    table.write_text("case_id,patient_id\na,p1\nb,p1\nc,p2\na,p3\n")
    assert score_seg.main(arguments) == 2
    assert "several rows of a case" in capsys.readouterr().err


def test_tables_and_plots(folders, capsys):
    out = folders / "out"
    scores = run(capsys, folders, "-o", out)
    assert json.loads((out / "seg_scores.json").read_text()) == scores
    cases = list(csv.DictReader((out / "seg_cases.csv").read_text().splitlines()))
    assert len(cases) == 9
    assert (cases[0]["case_id"], cases[0]["group"], cases[0]["tp"]) == ("a", "all", "300")
    assert cases[-1]["dice"] == ""
    sizes = list(csv.DictReader((out / "node_sizes.csv").read_text().splitlines()))
    first = [
        (row["predicted_short_diameter_mm"], row["true_volume_ml"]) for row in sizes if row["group"] == "all"
    ]
    assert first == [("9.0000", "0.9000"), ("6.0000", "0.9000")]
    assert (out / "agreement.html").read_text().count("data:image/png") == 6  # three groups, two quantities


def test_sides_that_do_not_fit(folders, capsys):
    arguments = ["--pred", str(folders / "pred"), "--truth", str(folders / "truth")]
    write_volume(folders / "pred" / "c.nii.gz", np.zeros((4, 16, 31)), Geometry((4, 16, 31), GRID.spacing))
    assert score_seg.main(arguments) == 2
    assert "case c lie on different grids" in capsys.readouterr().err
    (folders / "pred" / "c.nii.gz").unlink()
    assert score_seg.main(arguments) == 2
    assert "no mask of case c" in capsys.readouterr().err


def test_agreement_of_readers(tmp_path, capsys):
    # the paper's 77 patients: kappa 0.922 between model and expert
    table = tmp_path / "readings.csv"
    rows = ["N1,N1,12,11"] * 37 + ["N0,N1,7,9"] * 3 + ["N0,N0,5,6"] * 37
    table.write_text("expert,model,expert_mm,model_mm\n" + "\n".join(rows) + "\n")
    arguments = [str(table), "--readers", "expert", "model", "--sizes", "model_mm", "expert_mm"]
    assert agreement.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert round(result["kappa"]["expert, model"]["value"], 3) == 0.922
    # differences -1 (37), 2 (3), 1 (37)
    assert result["bland_altman"]["bias"] == pytest.approx(6 / 77)
    assert result["pearson"]["pairs"] == 77


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--readers or --sizes"),
        (["--readers", "expert"], "at least two different columns"),
        (["--readers", "expert", "nobody"], "nobody"),
        (["--readers", "expert", "model", "--order", "N0", "N1"], "found N2"),
        (["--sizes", "expert", "model"], "expected"),
    ],
)
def test_agreement_of_bad_tables(tmp_path, capsys, more, message):
    table = tmp_path / "readings.csv"
    table.write_text("expert,model\nN0,N1\nN1,N2\n")
    assert agreement.main([str(table), *more]) == 2
    assert message in capsys.readouterr().err
