"""COCO's own evaluation as foreign reference, crowds and sizes included."""

import numpy as np
import pytest

from nndet_psma.evaluation.tables.coco import CocoImage, coco_scores, precision_averages

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


def test_average_precision_at_any_iou_by_hand():
    """Four boxes, found: hit (0.9), miss (0.8), hit (0.7), hit at IoU 1/3 (0.6), one never.

    At 0.3 the hits stand at places 1, 3, 4 of 4: precision 1, 2/3, 3/4, so from recall 1/4 on 3/4 (the highest further
    on). All points: (1 + 3/4 + 3/4) / 4 = 0.625. Eleven: 1 at 0, 0.1, 0.2, 3/4 at 0.3 .. 0.7, 0 beyond.
    """
    truth = [(0, 0, 10), (50, 0, 10), (100, 0, 10), (150, 0, 10)]
    found = [(0.9, 0, 0, 10), (0.8, 200, 0, 10), (0.7, 50, 0, 10), (0.6, 100, 5, 10)]
    classes = {0: [image(truth, found)], 1: [image([], [(0.5, 0, 0, 9)])], 2: [image(truth, [])]}
    at = precision_averages(classes, 0.3, ["node", "none", "missed"])
    assert at["classes"]["node"] == pytest.approx(
        {"ap_all_points": 0.625, "ap_11_points": (3 + 5 * 0.75) / 11}
    )
    assert at["classes"]["none"] == {"ap_all_points": None, "ap_11_points": None}
    assert at["classes"]["missed"] == {"ap_all_points": 0.0, "ap_11_points": 0.0}
    assert at["ap_all_points"] == pytest.approx(0.625 / 2)  # of the classes that have boxes
    # at 0.34 the last is a miss: precision 1 up to recall 1/4, then 2/3 up to 1/2
    at = precision_averages(classes, 0.34, ["node", "none", "missed"])
    assert at["classes"]["node"]["ap_all_points"] == pytest.approx((1 + 2 / 3) / 4)


def slow_averages(images, iou):
    """One prediction after the other, precision and recall at every cut, the curve read by its definition."""
    lesions = sum(len(each.truth) for each in images)
    rows = []
    for number, each in enumerate(images):
        taken = set()
        for place in np.argsort(-each.scores, kind="stable"):
            best, hit = iou, None
            for index, (y0, x0, y1, x1) in enumerate(each.truth):
                a0, b0, a1, b1 = each.found[place]
                shared = max(0, min(y1, a1) - max(y0, a0)) * max(0, min(x1, b1) - max(x0, b0))
                overlap = shared / ((y1 - y0) * (x1 - x0) + (a1 - a0) * (b1 - b0) - shared)
                if index not in taken and overlap >= best:
                    best, hit = overlap, index
            taken |= {hit} - {None}
            rows.append((-each.scores[place], number, hit is not None))
    hits = [hit for *_, hit in sorted(rows)]
    curve = [(sum(hits[:cut]) / lesions, sum(hits[:cut]) / cut) for cut in range(1, len(hits) + 1)]

    def precision(recall):
        return max((p for r, p in curve if r >= recall - 1e-12), default=0.0)

    every = sum(precision(found / lesions) / lesions for found in range(1, lesions + 1))
    return every, sum(precision(step / 10) for step in range(11)) / 11


def random_images(rng):
    for _ in range(8):
        truth = [(*rng.uniform(0, 100, 2), float(rng.uniform(8, 30))) for _ in range(int(rng.integers(0, 4)))]
        near = [(y + rng.normal(0, 4), x + rng.normal(0, 4), side) for y, x, side in truth]
        far = [(*rng.uniform(0, 100, 2), float(rng.uniform(8, 30))) for _ in range(int(rng.integers(0, 5)))]
        yield image(truth, [(float(rng.uniform()), *square) for square in [*near, *far]])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iou", [0.1, 0.3, 0.5])
def test_average_precision_equals_a_slow_reference_and_coco(seed, iou):
    """COCO's own programme asked at one IoU: at eleven recalls, and in the middle of each step of recall."""
    coco = pytest.importorskip("faster_coco_eval")
    images = list(random_images(np.random.default_rng(seed)))
    lesions = sum(len(each.truth) for each in images)
    ours = precision_averages({0: images}, iou, ["node"])["classes"]["node"]
    assert tuple(ours.values()) == pytest.approx(slow_averages(images, iou))
    rows = {"truth": [], "found": []}
    for number, each in enumerate(images, start=1):
        for kind, boxes in (("truth", each.truth), ("found", each.found)):
            for place, (y0, x0, y1, x1) in enumerate(boxes):
                row = {"image_id": number, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
                score = {"score": float(each.scores[place])} if kind == "found" else {}
                rows[kind].append({**row, "area": 1.0, "iscrowd": 0, "id": len(rows[kind]) + 1, **score})
    theirs = coco.COCO(
        {"images": [{"id": n} for n in range(1, 9)], "categories": [{"id": 1, "name": "n"}], "info": {}}
        | {"annotations": rows["truth"]}
    )
    steps = [(np.arange(lesions) + 0.5) / lesions, np.linspace(0, 1, 11) - 1e-9]  # rounding: 3 / 10 < 0.3
    for value, recalls in zip(ours.values(), steps, strict=True):
        evaluator = coco.COCOeval_faster(theirs, theirs.loadRes(rows["found"]), "bbox")
        evaluator.params.iouThrs, evaluator.params.recThrs = np.array([iou]), recalls
        evaluator.evaluate()
        evaluator.accumulate()
        assert value == pytest.approx(evaluator.eval["precision"][0, :, 0, 0, -1].mean())


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
