"""Names of the tissues a phantom volume is made of."""

from __future__ import annotations

from enum import IntEnum


class Tissue(IntEnum):
    """Values of the labelled tissue volume; every modality has its own painter from these."""

    AIR = 0
    TABLE = 1
    SKIN = 2
    FAT = 3
    MUSCLE = 4
    CORTEX = 5
    MARROW = 6
    CARTILAGE = 7
    ARTERY = 8
    VEIN = 9
    SMALL_VESSEL = 10
    URETER = 11
    BLADDER = 12
    BLADDER_CONTRAST = 13
    PROSTATE = 14
    PROSTATE_BED = 15
    RECTUM_WALL = 16
    STOOL = 17
    BOWEL_WALL = 18
    BOWEL_SOFT = 19
    BOWEL_CONTRAST = 20
    GAS = 21
    CLIP = 22
    NODE = 23


BONES = (Tissue.CORTEX, Tissue.MARROW, Tissue.CARTILAGE)
VESSELS = (Tissue.ARTERY, Tissue.VEIN)
HOLLOW_ORGANS = (
    Tissue.BLADDER,
    Tissue.BLADDER_CONTRAST,
    Tissue.PROSTATE,
    Tissue.RECTUM_WALL,
    Tissue.STOOL,
    Tissue.BOWEL_WALL,
    Tissue.BOWEL_SOFT,
    Tissue.BOWEL_CONTRAST,
    Tissue.GAS,
)
"""Organs no lymph node lies in; the CTV leaves them out."""
