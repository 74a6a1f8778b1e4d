"""What the report tells of a detector on volumes: removed boxes on every slice, and how its thresholds were chosen."""

from types import SimpleNamespace

import numpy as np
import pytest
from fake_models import raw_of

from nndet_psma.boxes.detections import Detections
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.postproc.steps.settings import VOLUME_STEPS, PostprocSettings
from nndet_psma.report.charts.landscape import overlap_landscape
from nndet_psma.report.removed import removed_boxes
from nndet_psma.report.sections.sweep import sweep_section
from nndet_psma.report.texts import criterion_name

STORE = Geometry((6, 10, 12), (4.0, 2.0, 2.0))
COLUMNS = ["phase", "nms_iou", "fold_iou", "zone_mm", "hu_threshold", "hu_quantile", "min_votes", "vote_iou"]
BEST = {
    "zone_mm": None,
    "hu_threshold": None,
    "hu_quantile": 0.5,
    "nms_iou": 0.1,
    "fold_iou": 0.5,
    "min_votes": None,
    "vote_iou": None,
    "fold_score": "all",
    "value": 0.7,
    "sensitivity": 0.8,
    "precision": 0.6,
    "f1": 0.69,
    "fp_per_case": 0.5,
}


def sweep_of(*cells, **changes):
    """A sweep with (nms_iou, fold_iou, value) rows."""
    rows = [[0, nms, fold, None, None, 0.5, None, None, value] for nms, fold, value in cells]
    return {
        "columns": [*COLUMNS, "value"],
        "rows": rows,
        "best": BEST,
        "criterion": "map",
        "num_settings": 12,
        "num_cases": 2,
        "num_lesions": 3,
        "tie_rule": "the nearest",
        "judged": "lesions",
        **changes,
    }


def test_removed_volume_box_lies_on_all_its_slices():
    boxes = Detections.build(
        [(0, 0, 0, 2, 4, 4), (1.5, 6, 6, 4, 9, 9)],
        [0.9, 0.4],
        zone_mm=[0.0, 5.0],
        hu_quantiles=np.full((2, 10), np.nan),
    )
    settings = PostprocSettings(steps=VOLUME_STEPS, zone_mm=2.0)
    (gone,) = removed_boxes([raw_of({"v": [boxes]}, STORE)], settings, STORE)
    # 1.5 to 4 covers the centres of slices 2 and 3, and that of slice 1 just so
    assert gone.slices == (1, 2, 3)
    assert (gone.box, gone.step) == (pytest.approx((6, 6, 9, 9)), "zone")
    # half the slices, the same place: 0.75 to 2 covers the centre of slice 1 alone
    coarse = Geometry((3, 10, 12), (8.0, 2.0, 2.0), (0.0, 0.0, 2.0))
    assert removed_boxes([raw_of({"v": [boxes]}, STORE)], settings, coarse)[0].slices == (1,)


def test_overlaps_on_a_map():
    sweep = sweep_of((0.1, 0.3, 0.5), (0.1, 0.5, 0.7), (0.2, 0.5, 0.6), (0.1, 0.5, 0.4))
    landscape = overlap_landscape(sweep)
    np.testing.assert_array_equal(landscape.values, [[0.5, 0.7], [np.nan, 0.6]])
    assert (landscape.row_labels, landscape.column_labels) == (["0.1", "0.2"], ["0.3", "0.5"])
    assert landscape.chosen == (0, 1)
    assert landscape.chosen_text == "Chosen (red frame): suppression at 0.1, folds fused at 0.5."


def test_no_map_where_overlaps_were_not_tuned(sweep_table):
    assert overlap_landscape(sweep_of((0.1, 0.5, 0.7))) is None
    assert overlap_landscape(sweep_table) is None  # of an older file, without these columns


def test_section_speaks_of_lesions():
    nested = {
        "groups": [["a"], ["b"]],
        "settings": [{**BEST, "fold_score": "overlap"}, BEST],
        "optimism": 0.1,
        **{key: BEST[key] for key in ("value", "sensitivity", "precision", "f1", "fp_per_case")},
    }
    cells = ((0.1, 0.3, 0.5), (0.1, 0.5, 0.7))
    source = SimpleNamespace(sweep=sweep_of(*cells, nested=nested), inference=None, missing={})
    blocks = sweep_section(source).blocks
    assert "the one with the best mean average precision at IoU 0.10 to 0.50 was taken" in blocks[0].text
    table = next(block for block in blocks if hasattr(block, "header"))
    assert table.header[1] == "Tuned for: mAP"
    assert table.header[-1] == "False lesions per case"
    folded = next(block for block in blocks if hasattr(block, "blocks"))
    assert folded.blocks[0].rows == [
        ["all groups", "all"],
        ["without group 1", "overlap"],
        ["without group 2", "all"],
    ]
    alts = [block.alt for block in blocks if hasattr(block, "alt")]
    assert alts[0].startswith("mAP over suppression overlap (IoU) and fold overlap (IoU): 0.50 to 0.70.")


def test_f1_of_what():
    assert criterion_name("f1", lesions=True) == "F1 (precision and sensitivity of lesions in 3D)"
    assert criterion_name("f1") == "F1 (slice precision and lesion sensitivity)"
    assert criterion_name("map", short=True) == "mAP"
