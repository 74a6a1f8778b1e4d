"""Half-lives of the radionuclides of PET, and which of them a text or code names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

HALF_LIVES_S = {
    "C-11": 20.36 * _MINUTE,
    "N-13": 9.965 * _MINUTE,
    "O-15": 122.3,
    "F-18": 109.77 * _MINUTE,
    "Na-22": 950.6 * _DAY,
    "K-38": 7.65 * _MINUTE,
    "Sc-43": 3.891 * _HOUR,
    "Sc-44": 4.01 * _HOUR,
    "Ti-45": 184.8 * _MINUTE,
    "Mn-51": 46.2 * _MINUTE,
    "Mn-52": 5.591 * _DAY,
    "Fe-52": 8.275 * _HOUR,
    "Co-55": 17.53 * _HOUR,
    "Cu-60": 23.7 * _MINUTE,
    "Cu-61": 3.34 * _HOUR,
    "Cu-62": 9.67 * _MINUTE,
    "Cu-64": 12.701 * _HOUR,
    "Ga-66": 9.49 * _HOUR,
    "Ga-68": 67.8 * _MINUTE,
    "Ge-68": 270.9 * _DAY,
    "As-72": 26.0 * _HOUR,
    "Br-75": 96.7 * _MINUTE,
    "Br-76": 16.2 * _HOUR,
    "Rb-82": 75.9,
    "Y-86": 14.74 * _HOUR,
    "Zr-89": 78.4 * _HOUR,
    "Nb-90": 14.6 * _HOUR,
    "Y-90": 64.1 * _HOUR,
    "Tc-94m": 52.0 * _MINUTE,
    "I-124": 4.18 * _DAY,
    "Tb-152": 17.5 * _HOUR,
}
"""Seconds, by element and mass number: those of DICOM PS3.16 CID 4020 (PET Radionuclide) that are given to patients or
phantoms, with half-lives from ENSDF (NNDC)."""

TOLERANCE = 0.02
"""Share by which a half-life may differ: tables of vendors do by up to one hundredth, minutes for seconds by 60."""

_ELEMENTS = {
    "carbon": "C",
    "nitrogen": "N",
    "oxygen": "O",
    "fluorine": "F",
    "sodium": "Na",
    "potassium": "K",
    "scandium": "Sc",
    "titanium": "Ti",
    "manganese": "Mn",
    "iron": "Fe",
    "cobalt": "Co",
    "copper": "Cu",
    "gallium": "Ga",
    "germanium": "Ge",
    "arsenic": "As",
    "bromine": "Br",
    "rubidium": "Rb",
    "yttrium": "Y",
    "zirconium": "Zr",
    "niobium": "Nb",
    "technetium": "Tc",
    "iodine": "I",
    "terbium": "Tb",
}


def named_nuclides(texts: Iterable[str]) -> set[str]:
    """Radionuclides of PET that texts name, however they are written: ``18F``, ``F-18``, ``^18^Fluorine``, ``Ga68``."""
    return {
        nuclide for text in texts for nuclide, pattern in _patterns().items() if pattern.search(text.strip())
    }


def nuclide_with(half_life: float) -> str | None:
    """The radionuclide whose half-life (s) is nearest, where one lies within :data:`TOLERANCE`."""
    name = min(HALF_LIVES_S, key=lambda one: abs(half_life / HALF_LIVES_S[one] - 1))
    return name if agrees(half_life, name) else None


def agrees(half_life: float, nuclide: str) -> bool:
    """Whether a half-life (s) is that of a radionuclide."""
    return abs(half_life / HALF_LIVES_S[nuclide] - 1) <= TOLERANCE


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    spelt = {symbol: name for name, symbol in _ELEMENTS.items()}
    found = {}
    for nuclide in HALF_LIVES_S:
        symbol, mass = nuclide.split("-")
        element = f"(?:{symbol}|{spelt[symbol]})"
        apart = r"[\s^\[\]()_-]*"
        found[nuclide] = re.compile(
            rf"(?<![0-9]){mass}{apart}{element}(?![a-z])|(?<![a-z]){element}{apart}{mass}(?![0-9m])",
            re.IGNORECASE,
        )
    return found
