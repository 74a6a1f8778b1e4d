"""The structured report as JSON, tables and page."""

import re
from dataclasses import replace

import numpy as np
import pytest
from structured_cases import GRID, image, instances, report

from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.nodes.staging import THRESHOLD_SOURCE, StagingRule
from nndet_psma.report.structured.agreement_charts import agreement_chart
from nndet_psma.report.structured.agreement_page import agreement_page
from nndet_psma.report.structured.artifact import STRUCTURED_DISCLAIMER, StructuredReport, structured_report
from nndet_psma.report.structured.mask_outline import mask_outlines
from nndet_psma.report.structured.page import structured_page
from nndet_psma.report.structured.pictures import NodeScene, image_window, node_pictures
from nndet_psma.report.structured.table import NODE_COLUMNS, PATIENT_COLUMNS, node_rows, patient_rows


def scene(made):
    ids = instances()
    return NodeScene(image(), (-125, 225), GRID.spacing, ids, made.nodes, made.result.suspicious)


def test_the_stage_and_the_nodes():
    made = report()
    assert (made.result.stage, made.result.suspicious, made.result.largest) == ("N1", [2], 2)
    assert made.node(2).box_sides_mm == pytest.approx((10, 9, 9))
    with pytest.raises(KeyError):
        made.node(3)


def test_json_round_trip(tmp_path):
    made = report(rule=StagingRule(9.5, source="our clinic"))
    made.write(tmp_path / "case_1_nodes.json")
    assert StructuredReport.read(tmp_path / "case_1_nodes.json") == made
    assert made.result.stage == "N0"
    (tmp_path / "other.json").write_text('{"schema": "nndet_psma.prediction"}')
    with pytest.raises(UserError, match="another kind of file"):
        StructuredReport.read(tmp_path / "other.json")


def test_files_of_older_versions_are_read(tmp_path):
    content = report().to_json()
    for key in ("borderline", "hinges_on"):
        del content["result"][key]
    for each in content["nodes"]:
        del each["box_short_zone_mm"], each["in_plane_short_zone_mm"]
    write_json(tmp_path / "case_1_nodes.json", content)
    old = StructuredReport.read(tmp_path / "case_1_nodes.json")
    assert (old.result.stage, old.result.borderline, old.nodes[1].box_short_zone_mm) == ("N1", [], None)
    page = structured_page(old)
    assert "borderline nodes only" not in page
    assert [row[-3:] for row in node_rows([old])] == [["", "", 0]] * 2


def test_the_page_says_what_the_stage_hinges_on():
    page = structured_page(report())
    assert "N1 hinges on borderline nodes only (2)" in page
    assert "suspicious, borderline, largest" in page
    assert "9.0 (6.0\u00a0to\u00a011.4)" in page  # an interval stays on one line
    page = structured_page(report(rule=StagingRule(9.5)))
    assert "N0 hinges on borderline nodes only (2)" in page
    assert "hinges" not in structured_page(report(rule=StagingRule(5.5)))
    assert "not the voxels, that makes" in structured_page(report(origin="boxes"))


def test_rows_of_nodes_and_patients():
    made = report()
    rows = [dict(zip(NODE_COLUMNS, row, strict=True)) for row in node_rows([made])]
    assert [(r["node"], r["suspicious"], r["largest"], r["cut_off"]) for r in rows] == [
        (1, 0, 0, 0),
        (2, 1, 1, 1),
    ]
    assert [rows[1][f"box_{side}_mm"] for side in ("long", "middle", "short")] == ["10.000", "9.000", "9.000"]
    assert (rows[0]["volume_mm3"], rows[0]["score"]) == ("18.000", "")
    (row,) = (dict(zip(PATIENT_COLUMNS, each, strict=True)) for each in patient_rows([made]))
    assert (row["stage"], row["nodes"], row["largest"], row["total_volume_mm3"]) == ("N1", 2, 2, "828.000")
    none = structured_report("empty", [], GRID, origin="components", made_from="", connectivity=26)
    (row,) = (dict(zip(PATIENT_COLUMNS, each, strict=True)) for each in patient_rows([none]))
    assert (row["stage"], row["largest"], row["longest_short_mm"]) == ("N0", "", "0.000")


def test_the_page_tells_everything_and_loads_nothing():
    made = report()
    page = structured_page(made, scene(made))
    for text in (
        "N1",
        "9.0 mm",
        "0.81 ml",
        "10.0 × 9.0 × 9.0",
        THRESHOLD_SOURCE,
        "above 8 mm",
        "Touching the border",
    ):
        assert text in page
    assert page.count(STRUCTURED_DISCLAIMER) == 2
    assert page.count("data:image/jpeg") == 4  # two nodes, whole and close
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    # suspicious and large nodes come first
    assert page.index(">Node 2 <") < page.index(">Node 1 <")


def test_few_pictures_and_none():
    made = report()
    page = structured_page(made, scene(made), max_pictures=1)
    assert page.count("data:image/jpeg") == 2
    assert "1 node more not shown" in page
    assert "no image was given" in structured_page(made)
    none = structured_report("empty", [], GRID, origin="components", made_from="", connectivity=26)
    page = structured_page(none)
    assert "No node was found" in page
    assert "26 neighbours" in page


def test_text_from_outside_is_escaped():
    page = structured_page(replace(report(), case_id="<b>x</b>"))
    assert "<b>x</b>" not in page


def test_pictures_show_the_voxel_edges_of_the_node():
    from PIL import Image  # matplotlib needs it

    made = report()
    whole, _ = node_pictures(replace(scene(made), image=np.zeros(GRID.shape)), made.node(2))
    from base64 import b64decode
    from io import BytesIO

    picture = np.asarray(Image.open(BytesIO(b64decode(whole.uri.split(",")[1]))).convert("RGB")).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 120) & (picture[..., 2] < 120)
    rows, columns = np.nonzero(red)
    scale = (
        picture.shape[1] / 20
    )  # pixels per voxel; the node spans x 11 to 20 (cut by the picture), y 4 to 14
    assert (columns.min() / scale, rows.min() / scale, rows.max() / scale) == pytest.approx(
        (11, 4, 14), abs=0.3
    )
    assert not red[
        int(8 * scale) : int(10 * scale), int(14 * scale) : int(16 * scale)
    ].any()  # an outline only


def test_a_flat_image_has_a_window():
    low, high = image_window(np.ones((2, 2, 2)))
    assert low < high


def area(outline):
    return abs((outline[:-1, 0] * outline[1:, 1] - outline[1:, 0] * outline[:-1, 1]).sum()) / 2


def test_outlines():
    (outline,) = mask_outlines(np.array([[1, 1, 0], [1, 0, 0]], dtype=bool))
    assert outline.tolist() == [[0, 0], [0, 2], [1, 2], [1, 1], [2, 1], [2, 0], [0, 0]]
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    assert [area(each) for each in mask_outlines(ring)] == [9]  # holes are filled
    assert [area(each) for each in mask_outlines(np.eye(2, dtype=bool))] == [1, 1]  # a corner does not join
    assert mask_outlines(np.zeros((2, 2), dtype=bool)) == []


def test_outlines_enclose_the_filled_mask():
    from scipy.ndimage import binary_fill_holes

    rng = np.random.default_rng(1)
    for _ in range(50):
        mask = rng.random((6, 7)) < 0.5
        assert sum(area(each) for each in mask_outlines(mask)) == binary_fill_holes(mask).sum()


def test_agreement_chart_tells_its_figures():
    picture = agreement_chart([10.5, 21, 31.5], [9.5, 19, 28.5], "Short diameter", "mm")
    assert picture.alt == (
        "Short diameter automated against manual: r = 1.00; bias 2.00 mm, limits of agreement 0.04 to 3.96 mm."
    )
    assert agreement_chart([], [], "Volume", "ml") is None
    assert "r undefined" in agreement_chart([1.0], [2.0], "Volume", "ml").alt


def test_agreement_page():
    columns = {"volume": ([1.0, 2.0, 3.0, 4.5], [1.0, 2.5, 3.0, 4.0])}
    page = agreement_page({"all": columns, "largest": {"volume": ([], [])}}, {"volume": ("Volume", "ml")})
    assert "All nodes" in page
    assert "Upper limit of agreement" in page
    assert "no node of this group is found on both sides" in page
