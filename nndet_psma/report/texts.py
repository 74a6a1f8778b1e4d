"""Names and one-sentence meanings of scores, thresholds and steps, in words for readers."""

from __future__ import annotations

import re

from nndet_psma.evaluation.detection.operating_points import (
    NO_CASES,
    OTHER_CASES,
    SCORED_CASES,
    UNKNOWN_CASES,
)
from nndet_psma.evaluation.detection.scores import Score

_PLAIN = {
    "paper_sensitivity": (
        "Lesion sensitivity",
        "Share of the lesions that an accepted box hits on at least one axial slice.",
    ),
    "paper_precision": (
        "Slice precision",
        "Share of the accepted slice boxes that hit a lesion; the rest are false alarms.",
    ),
    "paper_f1": (
        "F1",
        "One number for both: the harmonic mean of lesion sensitivity and slice precision.",
    ),
    "paper_auc": (
        "Slice AUC",
        "Chance that a slice with a lesion gets a higher best score than a slice without one (0.5 is guessing); every "
        "candidate counts.",
    ),
    "paper_auc_accepted": (
        "Slice AUC, accepted boxes",
        "The same when only accepted boxes score a slice: most slices tie at 0, so it is no measure of the ranking.",
    ),
    "patient_auc": (
        "Patient AUC",
        "The slice AUC for patients: chance that a patient with lesions scores higher than one without.",
    ),
    "accepted_sensitivity": (
        "Accepted: sensitivity",
        "Share of the lesions that an accepted lesion finds in 3D (IoU 0.10, one for one).",
    ),
    "accepted_ppv": ("Accepted: precision (PPV)", "Share of the accepted lesions that find a lesion in 3D."),
    "accepted_f1": ("Accepted: F1", "Harmonic mean of the two."),
    "accepted_fp_per_case": ("Accepted: false alarms per case", "Accepted lesions that find none, per case."),
    "accepted_fp_per_patient": (
        "Accepted: false alarms per patient",
        "Accepted lesions that find none, per patient.",
    ),
}
_AP = "Area under precision against sensitivity when boxes count from the best score down; 1 is perfect."
_FROC = "Mean share of lesions found when 1/8, 1/4, 1/2, 1, 2, 4 and 8 false alarms per case are allowed."
_MAP = "Average precision averaged over the overlaps 0.10 to 0.50 in steps of 0.05."
_PATTERN = re.compile(r"(?P<group>.*?_)?(?P<kind>mAP|AP|FROC_score)_IoU_(?P<iou>\d\.\d\d)")

THRESHOLDS = {
    "score_threshold": ("Score threshold", "boxes that score less are dropped"),
    "zone_mm": (
        "Zone filter, mm",
        "a box centre may lie this far outside the search region; more is dropped",
    ),
    "hu_threshold": ("HU filter, HU", "a box that is brighter than this is dropped"),
    "hu_quantile": ("HU filter, quantile", "which quantile of the HU inside the box is compared"),
    "vote_iou": ("Voting overlap (IoU)", "boxes of different windows that overlap this much agree"),
    "min_votes": ("Votes needed", "so many windows must agree on a box"),
    "nms_iou": (
        "Suppression overlap (IoU)",
        "of two boxes of one window that overlap more, the worse is dropped",
    ),
    "fold_iou": ("Fold overlap (IoU)", "boxes of different folds that overlap this much are fused"),
    "fold_score": (
        "Score of fused folds",
        "a fold without the box counts 0 (all, overlap) or not at all (present)",
    ),
    "min_size_mm": ("Size filter, smallest mm", "a box whose longer in-plane side is less is dropped"),
    "max_size_mm": ("Size filter, largest mm", "a box whose longer in-plane side is more is dropped"),
    "min_short_axis_mm": ("Short-axis filter, mm", "a box whose shorter in-plane side is less is dropped"),
    "min_extent_mm": ("Size filter, smallest side, mm", "a box with any side shorter than this is dropped"),
    "link_iou": (
        "Linking overlap (IoU)",
        "boxes on neighbouring slices that overlap this much are one lesion",
    ),
    "link_gap": ("Linking gap, slices", "a lesion may bridge so many slices without a box"),
    "hit_iou": ("Overlap of a hit (IoU)", "fixed by the protocol, unless the sweep was told to tune it"),
    "positive": ("Called class", "the class that is called where its probability is high enough"),
    "threshold": ("Decision threshold", "lowest probability from which on the class is called"),
}

STEPS = {
    "nms": "duplicates",
    "score": "score threshold",
    "zone": "zone filter",
    "hu": "HU filter",
    "size": "size filter",
    "bagging": "window voting",
}

CRITERIA = {
    "f1": ("F1 (slice precision and lesion sensitivity)", "F1"),
    "sensitivity": ("lesion sensitivity", "sensitivity"),
    "precision": ("slice precision", "precision"),
    "ap": ("average precision", "AP"),
    "froc": ("FROC score", "FROC score"),
    "map": ("mean average precision at IoU 0.10 to 0.50", "mAP"),
    "auc": ("AUC of the slices", "slice AUC"),
    "patient_auc": ("AUC of the patients", "patient AUC"),
    "fp": ("false alarms per case", "false alarms per case"),
}

HIT_RULES = {
    "overlap": "Shared volume is at least this share of the smaller of the two boxes.",
    "distance": "The centres of box and lesion lie at most this far apart.",
    "centre": "The centre of the box lies inside the lesion's box.",
}

CHOSEN_ON = {
    NO_CASES: "not tuned: starting values of the plan",
    OTHER_CASES: "chosen on other cases than these",
    SCORED_CASES: "chosen on cases that are scored here, so these numbers are optimistic",
    UNKNOWN_CASES: "chosen on cases that are not recorded",
}

INTERVALS = {
    "studentised": "standard error of the draws times Student's quantile (percentiles are too narrow for few patients)",
    "percentile": "between percentiles of the draws",
}

DISCLAIMER = (
    "Research software, not a medical device. The scores hold for these data only; they say nothing about other "
    "scanners, hospitals or patients."
)


def score_name(key: str) -> str:
    """``AP_IoU_0.10_MaxDet_100`` as "AP at IoU 0.10"; a class stands in front."""
    if key in _PLAIN:
        return _PLAIN[key][0]
    parts = _PATTERN.match(key)
    if parts is None:
        return key
    group = f"{parts['group'][:-1]}: " if parts["group"] else ""
    if parts["kind"] == "mAP":
        return f"{group}mAP, IoU 0.10 to 0.50"
    return f"{group}{'AP' if parts['kind'] == 'AP' else 'FROC score'} at IoU {parts['iou']}"


def score_meaning(key: str) -> str:
    """One sentence; "" for an unknown key."""
    if key in _PLAIN:
        return _PLAIN[key][1]
    parts = _PATTERN.match(key)
    return "" if parts is None else {"AP": _AP, "mAP": _MAP, "FROC_score": _FROC}[parts["kind"]]


def criterion_name(criterion: str, *, short: bool = False, lesions: bool = False) -> str:
    """What a sweep was tuned for, in words: ``sensitivity@precision=0.9`` as "sensitivity at precision 0.9".

    Args:
        criterion: its name.
        short: for axes.
        lesions: lesions in 3D were counted, not slice boxes.
    """
    if lesions and criterion == "f1" and not short:
        return "F1 (precision and sensitivity of lesions in 3D)"
    goal, _, limit = criterion.partition("@")
    name = CRITERIA.get(goal, (goal, goal))[1 if short or limit else 0]
    if not limit:
        return name
    of, _, value = limit.partition("=")
    return f"{name} at {CRITERIA.get(of, (of, of))[1]} {value}"


def hit_rule(key: str) -> tuple[str, str]:
    """Name and meaning of a further hit rule by its key in ``other_hits``: ``FROC_score_distance_5mm``."""
    rule = key.removeprefix("FROC_score_")
    kind, _, value = rule.partition("_")
    name = {"overlap": "Overlap of", "distance": "Centres within", "centre": "Centre inside"}.get(kind, kind)
    return f"{name} {value.replace('mm', ' mm')}".strip(), HIT_RULES.get(kind, "")


def hit_name(key: str) -> str:
    """Name of a hit rule by its own key: ``0.10`` as "IoU of 0.10", ``distance_5mm`` as "Centres within 5 mm"."""
    return f"IoU of {key}" if key[0].isdigit() else hit_rule(key)[0]


def is_class_score(key: str) -> bool:
    """Whether the score is that of one class."""
    parts = _PATTERN.match(key)
    return bool(parts and parts["group"])


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """``0.123 to 0.456``; "–" without one."""
    return "–" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def score_text(score: Score | None) -> str:
    """``0.50 (0.25 to 0.75)`` with two digits, for tables of many columns; "–" when undefined."""
    if score is None or score.value is None:
        return "–"
    spread = interval(score.ci_low, score.ci_high, 2)
    return number(score.value, 2) + ("" if spread == "–" else f" ({spread})")


def score_cells(score: Score) -> tuple[str, str]:
    """Value and interval; for an undefined score the reason stands in the interval's place."""
    if score.value is None:
        return "undefined", score.why or "–"
    text = interval(score.ci_low, score.ci_high)
    return number(score.value), f"– ({score.why or 'one patient'})" if text == "–" else text


def percent(level: float) -> str:
    """``0.95`` as "95 %"."""
    return f"{100 * level:g} %"


def millilitres(volume_mm3: float) -> str:
    """Two significant digits below 10 ml, whole millilitres above."""
    volume = volume_mm3 / 1000
    return f"{volume:.0f} ml" if volume >= 10 else f"{volume:.2g} ml"


def count(amount: int, one: str, many: str | None = None) -> str:
    """``1 case``, ``2 cases``."""
    return f"{amount} {one if amount == 1 else many or one + 's'}"


_PATH = re.compile(
    r"(?<![\w.:/<])(?:[A-Za-z]:[\\/]|~/|/|\\\\)(?:[^\s\"'<>|,;:()\\/]+[\\/])+(?P<name>[^\s\"'<>|,;:()\\/]*)"
)


def without_paths(text: str) -> str:
    """Absolute paths cut to their last part: a page that is sent away must not tell of the machine it was made on."""
    return _PATH.sub(lambda found: found["name"], text)
