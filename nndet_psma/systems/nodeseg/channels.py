"""Which raw files become which input channels, and how nnU-Net is to normalise each."""

from __future__ import annotations

from nndet_psma.artifacts.fingerprint import Fingerprint, Histogram
from nndet_psma.planners.ledger import Ledger
from nndet_psma.systems.nodeseg.options import NodeSegOptions
from nndet_psma.systems.nodeseg.plan import Channel

SOFT_TISSUE = (-125.0, 225.0)
"""HU window of Xu et al. 2023 for whole slices."""

_ALIKE = 0.8  # windows that overlap by this share of their union show the same
_SAME_UNIT = 3.0  # medians of cases in one unit do not differ by more than this factor
_QUANTITATIVE = ("ADC", "PET")
_MASKS = ("BLADDER", "PROSTATE")


def choose_channels(
    ledger: Ledger, fingerprint: Fingerprint, options: NodeSegOptions, ct: int | None, ctv: int | None
) -> list[Channel]:
    """Channels in the order of the raw files; a CT gives one for nnU-Net's own clipping and one for each HU window.

    Windows are limits in nnU-Net's plans, so that every channel of a CT is a link to the same file.
    """
    channels: list[Channel] = []
    notes: list[str] = []
    for key, name in fingerprint.modalities.items():
        index = int(key)
        if index == ct:
            found, note = _ct_channels(fingerprint, options, index)
        elif index == ctv:
            found = [Channel(index, "noNorm", "NoNormalization")] if options.ctv_channel else []
            note = "CTV: a channel" if options.ctv_channel else "CTV: cuts, is no channel"
        else:
            found, note = _other_channel(fingerprint, options, index, name)
        channels += found
        notes.append(note)
    ledger.note("channels", "nodeseg_channels.choose_channels", "; ".join(notes))
    return channels


def _ct_channels(fingerprint: Fingerprint, options: NodeSegOptions, index: int) -> tuple[list[Channel], str]:
    own = Channel(index, "CT", "CTNormalization")
    pooled = Histogram.pooled([case.lesion_hu for case in fingerprint.cases])
    inside = (pooled.quantile(0.005), pooled.quantile(0.995)) if pooled.total else None
    clipped = (
        "nnU-Net's clipping" if inside is None else f"nnU-Net's clipping to {inside[0]:g}..{inside[1]:g} HU"
    )
    windows = options.windows
    if windows is None:
        windows = [] if inside is not None and _overlap(inside, SOFT_TISSUE) > _ALIKE else [SOFT_TISSUE]
    more = [Channel(index, "CT", "CTNormalization", lower, upper) for lower, upper in windows]
    listed = ", ".join(f"{lower:g}..{upper:g}" for lower, upper in windows)
    return [own, *more], f"CT: {clipped}" + (f", windows {listed} HU" if more else ", no further window")


def _overlap(first: tuple[float, float], second: tuple[float, float]) -> float:
    shared = min(first[1], second[1]) - max(first[0], second[0])
    return max(0.0, shared) / (max(first[1], second[1]) - min(first[0], second[0]))


def _other_channel(
    fingerprint: Fingerprint, options: NodeSegOptions, index: int, name: str
) -> tuple[list[Channel], str]:
    role = name.strip().upper()
    if role in _MASKS:
        return [Channel(index, "noNorm", "NoNormalization")], f"{name}: mask as it is"
    if options.quantitative is not None:
        wanted = name in options.quantitative
        why = "plan_cfg.quantitative"
    else:
        ratio = _unit_ratio(fingerprint, name)
        wanted = role in _QUANTITATIVE and ratio is not None and ratio <= _SAME_UNIT
        why = "" if ratio is None else f"medians of the body differ by a factor {ratio:.1f}"
    if wanted:
        return [Channel(index, name, "CTNormalization")], f"{name}: one scale for all cases ({why})"
    return [Channel(index, name, "ZScoreNormalization")], f"{name}: z-score of each case" + (
        f" ({why})" if why else ""
    )


def _unit_ratio(fingerprint: Fingerprint, name: str) -> float | None:
    """Largest over smallest median of the body; None where it is not positive or not measured."""
    medians = [
        case.intensities[name]["body"].percentile_50
        for case in fingerprint.cases
        if "body" in case.intensities.get(name, {})
    ]
    if not medians or min(medians) <= 0:
        return None
    return max(medians) / min(medians)
