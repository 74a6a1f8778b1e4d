"""COCO's own evaluation as foreign reference, crowds and sizes included."""

import numpy as np
import pytest

from nndet_psma.evaluation.tables.coco import CocoImage, coco_scores

NAMES = {
    "AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75", "APs": "AP_small", "APm": "AP_medium", "APl": "AP_large",
    "AR1": "AR_all", "AR10": "AR_second", "AR100": "AR_third", "ARs": "AR_small", "ARm": "AR_medium", "ARl": "AR_large",
}  # fmt: skip


def image(truth, found, *, areas=None, crowd=None):
    """An image of squares (y0, x0, side) and found squares (score, y0, x0, side)."""

    def boxes(squares):
        return np.array([[y, x, y + side, x + side] for y, x, side in squares], dtype=float).reshape(-1, 4)

    sides = np.array([side for *_, side in truth], dtype=float)
    return CocoImage(
        boxes(truth),
        sides**2 if areas is None else np.array(areas, dtype=float),
        np.zeros(len(truth), dtype=bool) if crowd is None else np.array(crowd),
        boxes([square for _, *square in found]),
        np.array([score for score, *_ in found], dtype=float),
    )


def test_one_box_by_hand():
    # 10 x 10 found as 10 x 10 moved by 2: IoU 80/120 = 2/3: a hit at 0.50, 0.55, 0.60, 0.65, a miss at six others
    scores = coco_scores({0: [image([(0, 0, 10)], [(0.9, 0, 2, 10)])]})
    assert list(scores) == list(NAMES)
    assert (scores["AP"], scores["AP50"], scores["AP75"], scores["AR1"]) == pytest.approx((0.4, 1, 0, 0.4))
    assert (scores["APs"], scores["APm"], scores["APl"]) == (
        pytest.approx(0.4),
        None,
        None,
    )  # 100 < 32^2 pixels


def test_a_crowd_swallows_what_lies_in_it():
    truth = [(0, 0, 10), (20, 20, 50)]
    found = [(0.9, 25, 25, 10), (0.8, 40, 40, 10), (0.7, 0, 0, 10)]
    assert coco_scores({0: [image(truth, found, crowd=[False, True])]})["AP"] == pytest.approx(1.0)
    # without the crowd both boxes are false and lower precision to 1/3; the large object itself is missed
    assert coco_scores({0: [image(truth, found)]})["AP"] == pytest.approx(51 / 101 / 3)


@pytest.mark.parametrize(
    ("classes", "value"),
    [
        ({}, None),
        ({0: []}, None),
        ({0: [image([], [(0.9, 0, 0, 5)])]}, None),
        ({0: [image([(0, 0, 5)], [])]}, 0.0),
    ],
)
def test_nothing_there_or_nothing_found(classes, value):
    assert coco_scores(classes)["AP"] == value
    assert coco_scores(classes)["AR100"] == value


@pytest.mark.parametrize("seed", range(4))
def test_all_twelve_numbers_equal_coco(seed):
    coco = pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(seed)
    annotations, results, classes = [], [], {}
    for category in (1, 2, 3):
        images = classes.setdefault(category, [])
        for number in range(1, 13):
            count, extra = int(rng.integers(0, 5)), int(rng.integers(0, 8))
            truth = [(*rng.uniform(0, 300, 2), float(rng.choice([15, 40, 70, 120]))) for _ in range(count)]
            crowd = rng.uniform(size=count) < 0.15
            areas = [side**2 * 0.8 for *_, side in truth]
            near = [
                (y + rng.normal(0, 3), x + rng.normal(0, 3), side * rng.uniform(0.8, 1.2))
                for y, x, side in truth
            ]
            far = [(*rng.uniform(0, 300, 2), float(rng.uniform(10, 130))) for _ in range(extra)]
            found = [(float(rng.uniform()), *square) for square in [*near, *near, *far]]
            images.append(image(truth, found, areas=areas, crowd=crowd))
            key = {"image_id": number, "category_id": category}
            for (y, x, side), area, is_crowd in zip(truth, areas, crowd, strict=True):
                annotations.append(
                    {
                        **key,
                        "id": len(annotations) + 1,
                        "bbox": [x, y, side, side],
                        "area": area,
                        "iscrowd": int(is_crowd),
                    }
                )
            results += [{**key, "bbox": [x, y, side, side], "score": score} for score, y, x, side in found]
    dataset = {
        "images": [{"id": number, "width": 500, "height": 500} for number in range(1, 13)],
        "categories": [{"id": number, "name": str(number)} for number in (1, 2, 3)],
        "annotations": annotations,
        "info": {},
    }
    theirs = coco.COCO(dataset)
    evaluator = coco.COCOeval_faster(theirs, theirs.loadRes(results), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    ours = coco_scores(classes)
    assert 0.05 < ours["AP"] < 0.95  # the example says something
    expected = {name: evaluator.stats_as_dict[other] for name, other in NAMES.items()}
    assert ours == pytest.approx(expected, abs=1e-9)
