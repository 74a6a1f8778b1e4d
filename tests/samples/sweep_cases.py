"""Small sweep cases and the slow way to score one setting, shared by the tests of the searches."""

from dataclasses import replace

import numpy as np
from postproc_cases import A, slice_boxes, slow_iou

from nndet_psma.boxes.detections import Detections
from nndet_psma.postproc.steps.ranking import ranking_settings
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.postproc.steps.steps import postprocess_case
from nndet_psma.postproc.sweep.sweep import SweepCase

SPACING = (3.0, 1.0, 1.0)
BASE = PostprocSettings(hit_iou=0.3)
METRICS = ("sensitivity", "precision", "f1", "fp_per_case")


def raw_boxes(*rows, zone=0.0, hu=50.0):
    zones = np.broadcast_to(np.asarray(zone, dtype=float), len(rows))
    hus = np.broadcast_to(np.asarray(hu, dtype=np.float32).reshape(-1, 1), (len(rows), 10))
    return slice_boxes(*rows, zone_mm=zones, hu_quantiles=hus)


def sweep_case(raw, truth, num_lesions=1, name="a"):
    return SweepCase(name, raw, truth, num_lesions, 20, SPACING)


def truth_at(*positions):
    """One lesion of box A on each of the slices."""
    return slice_boxes(*((z, A, 1.0) for z in positions), lesion=list(range(len(positions))))


def random_cases(seed, num_cases=2, num_voters=3, scores=(0.2, 0.4, 0.6, 0.8), missing=False):
    """Few slices, crowded boxes, tied scores, a lesion without slice box, two labels, several folds.

    With ``missing`` some voters were not asked.
    """
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner, side = rng.integers(0, 8, (count, 2)), rng.integers(2, 7, (count, 2))
        return np.hstack([corner, corner + side]), rng.integers(0, 3, count), rng.integers(0, 2, count)

    def fold():
        count = int(rng.integers(0, 9))
        at, position, label = boxes(count)
        return Detections.build(
            at,
            rng.choice(scores, count),
            label,
            dim=2,
            slice=position,
            zone_mm=rng.integers(0, 5, count).astype(float),
            hu_quantiles=np.sort(rng.integers(60, 180, (count, 10)), axis=1).astype(np.float32),
        )

    cases = []
    for index in range(num_cases):
        at, position, label = boxes(4)
        truth = Detections.build(at, np.ones(4), label, dim=2, slice=position, lesion=[0, 0, 1, 2])
        raw = {f"w{v}": [fold() for _ in range(1 + seed % 2)] for v in range(num_voters)}
        if missing:
            raw["w0"] = []
            if index:
                raw["w1"] = []
        cases.append(sweep_case(raw, truth, 4, f"case{index}"))
    return cases


def slow_counts(cases, settings, voter=None):
    """One setting through the whole pipeline, counted with plain loops: boxes, true boxes, found lesions."""
    boxes = true = found = 0
    for case in cases:
        raw = case.raw if voter is None else {voter: case.raw[voter]}
        slices = postprocess_case(raw, settings, spacing=case.spacing).slices
        hit_lesions = set()
        for i in range(len(slices)):
            hits = {
                int(case.truth.columns["lesion"][j])
                for j in range(len(case.truth))
                if case.truth.columns["slice"][j] == slices.columns["slice"][i]
                and case.truth.labels[j] == slices.labels[i]
                and slow_iou(slices.boxes[i], case.truth.boxes[j]) >= settings.hit_iou
            }
            boxes += 1
            true += bool(hits)
            hit_lesions |= hits
        found += len(hit_lesions)
    return boxes, true, found


def slow_metrics(cases, settings, voter=None):
    """Sensitivity, precision, F1, false positives per case."""
    return metrics_from(slow_counts(cases, settings, voter), cases)


def metrics_from(counts, cases):
    boxes, true, found = counts
    sensitivity, precision = found / sum(case.num_lesions for case in cases), true / boxes if boxes else 0.0
    both = sensitivity + precision
    f1 = 2 * sensitivity * precision / both if both else 0.0
    return sensitivity, precision, f1, (boxes - true) / len(cases)


def with_healthy(cases, patients):
    """The same cases of some patients, those of names in capitals without lesions."""
    healthy = {"truth": Detections.empty(cases[0].truth.dim), "num_lesions": 0}
    return [
        replace(case, patient=name, **(healthy if name.isupper() else {}))
        for case, name in zip(cases, patients, strict=True)
    ]


def slow_auc(scores, positive):
    """Share of pairs in which the positive scores higher; equal scores are half a pair."""
    pairs = [
        (high > low) + (high == low) / 2
        for high, is_hit in zip(scores, positive, strict=True)
        for low, other in zip(scores, positive, strict=True)
        if is_hit and not other
    ]
    return sum(pairs) / len(pairs) if pairs else 0.5


def slow_ranking(cases, settings, metric, voter=None):
    """``auc`` or ``patient_auc`` of the candidates, with plain loops; ``settings`` are one or one for each case."""
    own = settings if isinstance(settings, list) else [settings] * len(cases)
    scores, positive, patients, ill = [], [], {}, {}
    for case, each in zip(cases, own, strict=True):
        raw = case.raw if voter is None else {voter: case.raw[voter]}
        slices = postprocess_case(raw, ranking_settings(each), spacing=case.spacing).slices
        best = [0.0] * case.num_slices
        for z, score in zip(slices.columns["slice"].tolist(), slices.scores.tolist(), strict=True):
            best[z] = max(best[z], round(score, 6))  # as files of predictions hold it
        lesions = set()
        for row in range(len(case.truth)):
            if case.truth.dim == 2:
                lesions.add(int(case.truth.columns["slice"][row]))
            else:
                lesions |= set(range(int(case.truth.boxes[row, 0]), int(case.truth.boxes[row, 3])))
        scores += best
        positive += [z in lesions for z in range(case.num_slices)]
        name = case.patient or case.case_id
        patients[name] = max(patients.get(name, 0.0), *best)
        ill[name] = ill.get(name, False) or case.num_lesions > 0
    if metric == "patient_auc":
        return slow_auc(list(patients.values()), list(ill.values()))
    return slow_auc(scores, positive)
