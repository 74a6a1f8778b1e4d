"""HU windows from the lesions, cleaned of windows that would show nothing or nothing new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nndet_psma.artifacts.channels import Window
from nndet_psma.artifacts.fingerprint import Histogram

# Pelvic CT in soft-tissue reconstruction has a noise of 10-20 HU; a narrower window would show little else. Our choice.
MIN_WIDTH_HU = 50.0
# Neighbouring windows of the paper's table 2 overlap by 0.91 and 0.94 and were trained as voters of their own; what
# overlaps more than that is the same window but for rounding. Our choice.
MAX_OVERLAP = 0.95


@dataclass(frozen=True)
class WindowChoice:
    """Windows in the order of their tails, soft tissue last, and why others were left out."""

    windows: list[Window]
    notes: list[str] = field(default_factory=list)


def window_name(lower: float, upper: float) -> str:
    """Name of an HU window that is safe in file names: ``hu_m97_310`` for -97..310, ``hu_m97p4_310`` for -97.4..310."""
    return "hu_" + "_".join(f"{'m' if v < 0 else ''}{abs(v):g}".replace(".", "p") for v in (lower, upper))


def make_window(limits: tuple[float, float]) -> Window:
    """The window ``(lower, upper)`` in HU with its usual name."""
    return Window(window_name(*limits), *limits)


def quantile_limits(lesion_hu: Histogram, tails_percent: Sequence[float]) -> list[tuple[float, float]]:
    """(lower, upper) HU of all lesion voxels with the tails cut symmetrically; none without lesion voxels.

    Source: Xu et al. 2023, "Windowing analysis" and table 2 (tails 0.5, 1, 1.5 and 2 %).
    """
    if not lesion_hu.total:
        return []
    return [(lesion_hu.quantile(t / 100), lesion_hu.quantile(1 - t / 100)) for t in tails_percent]


def quantile_windows(
    lesion_hu: Histogram, tails_percent: Sequence[float], soft_tissue: tuple[float, float]
) -> WindowChoice:
    """HU windows from the lesions' quantiles, plus soft tissue, without degenerate or near-equal ones.

    Source: Xu et al. 2023, "Windowing analysis" and table 2; the merging is ours: every window costs a training.
    """
    return distinct_windows(quantile_limits(lesion_hu, tails_percent), soft_tissue)


def distinct_windows(limits: Sequence[tuple[float, float]], soft_tissue: tuple[float, float]) -> WindowChoice:
    """Windows of ``limits`` and soft tissue without those too narrow, or too like an earlier one or soft tissue."""
    last = make_window(soft_tissue)
    kept: list[Window] = []
    notes: list[str] = []
    for lower, upper in limits:
        if upper - lower < MIN_WIDTH_HU:
            notes.append(f"{lower:g}..{upper:g} is narrower than {MIN_WIDTH_HU:g} HU: left out")
            continue
        window = make_window((lower, upper))
        twin = next((other for other in [last, *kept] if window_overlap(window, other) > MAX_OVERLAP), None)
        if twin is None:
            kept.append(window)
        else:
            notes.append(f"{lower:g}..{upper:g} is merged into {twin.lower:g}..{twin.upper:g}")
    return WindowChoice([*kept, last], notes)


def window_overlap(first: Window, second: Window) -> float:
    """Intersection over union of two windows on the HU axis."""
    overlap = max(0.0, min(first.upper, second.upper) - max(first.lower, second.lower))
    return overlap / (max(first.upper, second.upper) - min(first.lower, second.lower))


def most_different_windows(windows: Sequence[Window], count: int) -> list[Window]:
    """``count`` windows that overlap each other least, in their given order.

    Greedy farthest-point choice starting from the last window (soft tissue): bagging gains from voters that see
    different things, and near-equal windows cost a training each.
    """
    if count >= len(windows):
        return list(windows)
    chosen = [windows[-1]]
    while len(chosen) < count:
        rest = [window for window in windows if window not in chosen]
        chosen.append(min(rest, key=lambda w: max(window_overlap(w, c) for c in chosen)))
    return [window for window in windows if window in chosen]
