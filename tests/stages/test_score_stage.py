"""Stage score: malformed COCO files and tables are named; known results of public data."""

from __future__ import annotations

import json

import pytest
from places import DATA

from nndet_psma.core.errors import UserError
from nndet_psma.evaluation.tables.identifiers import Spelling
from nndet_psma.stages.score import score_coco, score_froc, score_point_tables, score_roc

TRUTH = {
    "images": [{"id": 7}, {"id": 3}],
    "categories": [{"id": 1, "name": "node"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    ],
}
RESULT = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}


def write(folder, **texts):
    for name, text in texts.items():
        content = text if isinstance(text, str) else json.dumps(text)
        (folder / name).write_text(content)
    return [folder / name for name in texts]


def test_coco_by_hand(tmp_path):
    other_class = {
        **RESULT,
        "category_id": 9,
        "score": 0.9,
    }  # the truth does not name it: left out, as COCO does
    scores = score_coco(*write(tmp_path, truth=TRUTH, results=[RESULT, other_class]))
    assert (scores["AP"], scores["APs"], scores["APl"]) == (pytest.approx(1.0), pytest.approx(1.0), None)
    false_box = {**RESULT, "image_id": 3, "score": 0.9}
    assert score_coco(*write(tmp_path, truth=TRUTH, results=[RESULT, false_box]))["AP"] == pytest.approx(0.5)
    assert score_coco(*write(tmp_path, truth=TRUTH, results=[]))["AP"] == 0.0
    named = {**TRUTH, "images": [{"id": "b"}, {"id": 7}]}
    assert score_coco(*write(tmp_path, truth=named, results=[RESULT]))["AP"] == pytest.approx(1.0)


def test_x_is_not_y(tmp_path):
    wide = {**TRUTH["annotations"][0], "bbox": [0, 5, 20, 10]}
    found = {**RESULT, "bbox": [0, 5, 20, 10]}
    assert score_coco(*write(tmp_path, t={**TRUTH, "annotations": [wide]}, r=[found]))["AP"] == pytest.approx(
        1.0
    )
    turned = {**RESULT, "bbox": [5, 0, 10, 20]}
    assert score_coco(*write(tmp_path, t={**TRUTH, "annotations": [wide]}, r=[turned]))["AP"] == 0.0


@pytest.mark.parametrize(
    ("truth", "results", "message"),
    [
        ([], [], "truth: no COCO ground truth"),
        ("{", [], "truth: not valid JSON"),
        ({"images": []}, [], "truth: no list 'categories'"),
        ({**TRUTH, "images": [{}]}, [], r"images\[0\] has no 'id'"),
        ({**TRUTH, "annotations": [{"image_id": 7}]}, [], r"annotations\[0\] has no 'category_id'"),
        (TRUTH, {}, "results: no list of results"),
        (TRUTH, [5], r"results\[0\] is no object"),
        (
            TRUTH,
            [RESULT, {**RESULT, "bbox": [1, 2, 3]}],
            r"results\[1\]; expected a bbox of four numbers .* found \[1, 2",
        ),
        (TRUTH, [{**RESULT, "score": "0.5"}], r"and a score; found .* and '0\.5'"),
        (
            TRUTH,
            [{**RESULT, "image_id": 8}],
            "expected an image of the truth and a category, by id; found image_id 8",
        ),
        (TRUTH, [{**RESULT, "category_id": [1]}], "expected an image of the truth and a category"),
        (
            {**TRUTH, "images": [{"id": [1]}]},
            [],
            r"images\[0\]; expected a number or a name as id; found \[1\]",
        ),
        ({**TRUTH, "annotations": [{**RESULT, "area": "big"}]}, [], r"annotations\[0\]; expected a bbox"),
    ],
)
def test_malformed_coco_is_named(tmp_path, truth, results, message):
    with pytest.raises(UserError, match=message):
        score_coco(*write(tmp_path, truth=truth, results=results))


def test_points_by_hand(tmp_path):
    # case a: (0, 0) is found once, the second point on it is false; (9, 9) is missed. case b: 5 away is a hit
    truth = "case, x, y\na, 0, 0\na, 9, 9\nb, 0, 0\n"
    found = "case, x, y\na, 1, 0\na, 0, 1\nb, 3, 4\nc, 0, 0\n"
    files = write(tmp_path, truth=truth, found=found)
    assert score_point_tables(*files, 5) == {"tp": 2, "fp": 2, "fn": 1}
    assert score_point_tables(*files, 4.999) == {"tp": 1, "fp": 3, "fn": 2}


@pytest.mark.parametrize(
    ("found", "tp"),
    [("x,y\n2,0\n0,0\n", 2), ("x,y,score\n2,0,0.9\n0,0,0.1\n", 1), ("x,y,score\n2,0,0.1\n0,0,0.9\n", 2)],
)
def test_who_chooses_first(tmp_path, found, tp):
    # truth at 0 and 5, found at 2 and 0, radius 3: the point at 2 reaches both and takes the 0 when it goes first
    assert score_point_tables(*write(tmp_path, t="x,y\n0,0\n5,0\n", f=found), 3)["tp"] == tp


def test_a_third_axis_and_empty_tables(tmp_path):
    files = write(tmp_path, t="x,y,z\n0,0,0\n", f="X,Y,Z\n0,0,4\n")
    assert score_point_tables(*files, 3) == {"tp": 0, "fp": 1, "fn": 1}
    assert score_point_tables(*write(tmp_path, t="x,y\n", f="x,y\n1,2\n"), 3) == {"tp": 0, "fp": 1, "fn": 0}
    assert score_point_tables(*write(tmp_path, t="x,y\n1,2\n", f="x,y\n"), 3) == {"tp": 0, "fp": 0, "fn": 1}


@pytest.mark.parametrize("column", ["z", "case"])
def test_a_column_of_only_one_table(tmp_path, column):
    with pytest.raises(UserError, match=f"f: line 1: no column '{column}', which t has"):
        score_point_tables(*write(tmp_path, t=f"x,y,{column}\n1,2,3\n", f="x,y\n1,2\n"), 3)


def test_froc_reads_all_its_tables(tmp_path):
    header = "seriesuid,coordX,coordY,coordZ"
    truth, found, cases, excluded = write(
        tmp_path,
        truth=f"{header},diameter_mm\na,0,0,0,10\na,100,0,0,10\nz,0,0,0,10\n",
        found=f"{header},probability\na,1,0,0,0.9\na,50,0,0,0.8\nb,30,0,0,0.7\nb,60,0,0,0.7\n",
        cases="a\nb\n",
        excluded=f"{header},diameter_mm\nb,30,0,0,-1\n",
    )
    result = score_froc(truth, found, cases=cases, excluded=excluded)
    assert (result["n_cases"], result["n_lesions"]) == (2, 2)
    assert (result["true_positives"], result["false_positives"]) == (1, 2)
    everything = score_froc(truth, found)
    assert (everything["n_cases"], everything["n_lesions"], everything["false_positives"]) == (3, 3, 3)
    assert score_froc(truth, found, radius_mm=0.5)["true_positives"] == 0
    with pytest.raises(UserError, match="found: line 1: no column 'diameter_mm'"):
        score_froc(found, found)


def test_roc_reads_decisions_written_as_words(tmp_path):
    (file,) = write(tmp_path, table="truth,reader,other\n1,true,0\n0,false,0\n1,true,0\n")
    result = score_roc(file, "TRUTH", "Reader", "other")
    assert (result["tp"], result["tn"], result["mcnemar_p"]) == (2, 1, 0.5)
    with pytest.raises(UserError, match="column 'truth'; expected a finite number; found 'x'"):
        score_roc(*write(tmp_path, table="truth,s\n1,0\nx,1\n"), "s", "truth")


def test_identifiers_that_differ_by_spelling(tmp_path):
    header = "seriesuid,coordX,coordY,coordZ"
    files = write(
        tmp_path,
        t=f"{header},diameter_mm\n01,0,0,0,10\n02,0,0,0,10\n",
        p=f"{header},probability\n1.mhd,1,0,0,0.9\n2.mhd,1,0,0,0.9\n",
        c="1\n2\n3\n",
    )
    spelling = Spelling((".mhd",), numbers=True)
    assert score_froc(*files[:2], cases=files[2], spelling=spelling)["true_positives"] == 2
    for options in ({}, {"cases": files[2]}, {"spelling": Spelling((".mhd",))}):
        with pytest.raises(UserError, match="no scans in common"):
            score_froc(*files[:2], **options)
    points = write(tmp_path, pt="case,x,y\n001,1,1\n", pp="case,x,y\n1,1,1\n")
    with pytest.raises(UserError, match="pp: no cases in common with pt"):
        score_point_tables(*points, 1)
    assert score_point_tables(*points, 1, Spelling(numbers=True)) == {"tp": 1, "fp": 0, "fn": 0}


def test_excluded_findings_of_other_scans_are_told(tmp_path):
    header = "seriesuid,coordX,coordY,coordZ"
    files = write(
        tmp_path,
        t=f"{header},diameter_mm\na,0,0,0,10\n",
        p=f"{header},probability\na,1,0,0,0.9\n",
        e=f"{header},diameter_mm\na.mhd,50,0,0,10\n",
    )
    with pytest.raises(UserError, match="e: no scans in common with t"):
        score_froc(*files[:2], excluded=files[2])


def test_coco_ids_as_text(tmp_path, caplog):
    text = {**RESULT, "image_id": "7", "category_id": "1"}
    with pytest.raises(UserError, match=r"found image_id '7'.*--match-numbers"):
        score_coco(*write(tmp_path, truth=TRUTH, results=[text]))
    with pytest.raises(UserError, match=r"results: no categories in common with truth.*--match-numbers"):
        score_coco(*write(tmp_path, truth=TRUTH, results=[{**RESULT, "category_id": "1"}]))
    numbers = Spelling(numbers=True)
    scores = score_coco(*write(tmp_path, truth=TRUTH, results=[text]), spelling=numbers, ious=[0.3])
    assert scores["AP"] == pytest.approx(1.0)
    assert scores["at_iou"]["0.3"]["classes"]["node"] == {"ap_all_points": 1.0, "ap_11_points": 1.0}
    assert caplog.text == ""
    score_coco(*write(tmp_path, truth=TRUTH, results=[RESULT, {**RESULT, "category_id": 9}]))
    assert "results: 1 of 2 categories are not in truth (9)" in caplog.text


@pytest.mark.parametrize(
    ("image", "box", "message"),
    [
        ({}, [30, 30, -20, 20], r"results\[0\]; expected a bbox .*no size below 0"),
        ({}, [30, 30, 20, -1], "no size below 0"),
        # corners (10, 60) and (30, 90) read as x, y, width, height reach to y = 150 in an image 100 high
        ({"width": 80, "height": 100}, [10, 60, 30, 90], r"outside its image of 80 x 100 pixels; .*\[10, 60"),
        ({"width": 100, "height": 40}, [5, 60, 5, 5], "outside its image"),
    ],
)
def test_boxes_that_are_none(tmp_path, image, box, message):
    truth = {**TRUTH, "images": [{"id": 7, **image}, {"id": 3}]}
    with pytest.raises(UserError, match=message):
        score_coco(*write(tmp_path, truth=truth, results=[{**RESULT, "bbox": box}]))


def test_two_images_with_one_id(tmp_path):
    truth = {**TRUTH, "images": [{"id": 7}, {"id": 7}]}
    with pytest.raises(UserError, match=r"images\[1\] has an id that another has; found 7"):
        score_coco(*write(tmp_path, truth=truth, results=[RESULT]))


@pytest.mark.realdata
def test_known_result_of_one_hundred_coco_images():
    root = DATA
    folder = root / "coco_ap" / "coco100" / "cocoapi"
    if not folder.is_dir():
        pytest.skip("public data set coco_ap found neither through NNDET_PSMA_DATA nor in ../shared/data")
    scores = score_coco(
        folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json"
    )
    # the twelve numbers of the COCO programme for these files, to its three decimals
    assert [round(value, 3) for value in scores.values()] == [
        0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564,
    ]  # fmt: skip


def test_scores_that_are_no_probabilities_rank_and_are_told(tmp_path, caplog):
    """Logits and percentages rank as well; a file that mixes both does not, so the range is said."""
    (tmp_path / "t.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\na,0,0,0,6\n")
    rows = "seriesuid,coordX,coordY,coordZ,probability\na,0,0,0,{}\na,50,0,0,{}\n"
    (tmp_path / "p.csv").write_text(rows.format(97, -3))
    shares = tmp_path / "shares.csv"
    shares.write_text(rows.format(0.97, 0.01))
    assert score_froc(tmp_path / "t.csv", tmp_path / "p.csv") == score_froc(tmp_path / "t.csv", shares)
    assert caplog.text.count("scores from -3 to 97 lie outside 0 to 1") == 1
    caplog.clear()
    score_coco(*write(tmp_path, truth=TRUTH, results=[{**RESULT, "score": 4.5}]))
    assert "results: scores from 4.5 to 4.5 lie outside 0 to 1" in caplog.text


def test_a_column_of_one_class_is_told(tmp_path, caplog):
    (tmp_path / "r.csv").write_text("label,score\n1,0.3\n1,0.9\n")
    result = score_roc(tmp_path / "r.csv", "label", "score")
    assert (result["auc"], result["threshold"]) == (None, None)
    assert "column 'label' has 2 rows of the label 1 only: what needs both kinds is undefined" in caplog.text
