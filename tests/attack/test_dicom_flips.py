"""Damaged DICOM files: every one is refused in a line or read as numbers that a scan can have; never a traceback.

``NNDET_PSMA_FUZZ=5000`` tries as many files of each kind. A failure prints the kind and the seed of the file.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from dicom_samples import (
    make_segmentation,
    make_slices,
    make_structures,
    pet_tags,
    rectangle,
    save,
    save_all,
    write_series,
)

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.convert.dicom import DicomSource, convert_dicom
from nndet_psma.dataset.images.images import read_volume
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.report.structured.source_series import read_series

TRIES = int(os.environ.get("NNDET_PSMA_FUZZ", "10"))
SHAPE = (4, 12, 14)
_VRS = [
    b"AE",
    b"AT",
    b"CS",
    b"DA",
    b"DS",
    b"DT",
    b"FD",
    b"FL",
    b"IS",
    b"LO",
    b"LT",
    b"OB",
    b"OW",
    b"PN",
    b"SH",
    b"SL",
]
_VRS += [b"SQ", b"SS", b"ST", b"TM", b"UI", b"UL", b"UN", b"US", b"UT"]
_IS_VR = re.compile(b"|".join(_VRS))
_NUMBER = re.compile(rb"[0-9][0-9.]*")
_NUMBERS = [
    b"NaN",
    b"inf",
    b"1e30",
    b"-1e30",
    b"1e-9",
    b"-",
    b"",
    b"0",
    b"-1",
    b"3,5",
    b"1\\2",
    b"9" * 16,
    b"\xff\x00",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    slices = make_slices(np.full(SHAPE, 1064, np.int16), spacing=(3.0, 1.0, 1.0), intercept=-1024)
    save_all(slices, folder, "ct")
    pet = np.full((4, 6, 7), 10, np.int16)
    write_series(folder, pet, "PT", series="pet", spacing=(3.0, 2.0, 2.0), slope=250.0, **pet_tags())
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 8:11, 8:11] = True
    make_segmentation(slices, {"SEG": mask}).save_as(folder / "seg")
    drawn = [("PSMA+1", [rectangle(3.0 * k, (2.5, 6.5), (2.5, 6.5)) for k in (1, 2, 3)])]
    save(make_structures(drawn), folder / "rs")
    return folder


def damaged(content: bytes, chance: random.Random) -> bytes:
    """One file with one kind of damage, mostly in its header."""
    data = bytearray(content)
    end = len(data) if chance.random() < 0.2 else min(len(data), 2500)
    kind = chance.choice(["flips", "bits", "number", "number", "vr", "cut", "zeros", "doubled"])
    at = chance.randrange(128, end)
    if kind == "flips":
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(128, end)] = chance.randrange(256)
    elif kind == "bits":
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(128, end)] ^= 1 << chance.randrange(8)
    elif kind in ("number", "vr"):
        pattern, others = (_NUMBER, _NUMBERS) if kind == "number" else (_IS_VR, _VRS)
        found = chance.choice([one for one in pattern.finditer(content) if one.start() >= 128])
        size = found.end() - found.start()
        data[found.start() : found.end()] = chance.choice(others)[:size].ljust(size)
    elif kind == "cut":
        del data[at:]
    elif kind == "zeros":
        size = min(chance.choice([8, 64, len(data)]), len(data) - at)
        data[at : at + size] = bytes(size)
    else:
        data[at:at] = data[at : at + chance.randint(1, 64)]
    return bytes(data)


def check_numbers(paths: TaskPaths) -> None:
    for file in paths.images("Tr").glob("*.nii.gz"):
        volume = read_volume(file)
        assert np.isfinite(volume.array).all()
        assert np.abs(volume.array).max() < 1e7
        assert min(volume.geometry.spacing) >= 0.01
        assert max(volume.geometry.spacing) <= 100
        assert np.abs(volume.geometry.origin).max() < 1e4


@pytest.mark.parametrize("kind", ["ct", "PT", "seg", "rs"])
def test_damaged_files_give_one_line_or_plausible_numbers(sound, tmp_path, kind):
    folder = shutil.copytree(sound, tmp_path / "pacs")
    file = min(folder.glob(f"{kind}*"))
    content = file.read_bytes()
    (alone := tmp_path / "alone").mkdir()
    (alone / "x").symlink_to(file)
    source = DicomSource((folder,), lesion_rois=("PSMA*", "SEG*"), allow_empty=True)
    paths = TaskPaths(tmp_path / "Task100_X")
    for seed in range(TRIES):
        shutil.rmtree(paths.root, ignore_errors=True)
        file.write_bytes(damaged(content, random.Random(f"{kind} {seed}")))
        try:
            one_line_or_done(lambda: convert_dicom(source, paths))
            one_line_or_done(lambda: read_series(alone))
            check_numbers(paths)
        except Exception as error:
            raise AssertionError(f"{kind} {seed}") from error


def one_line_or_done(work: Callable[[], object]) -> None:
    said = ""
    try:
        work()
    except UserError as error:
        said = str(error)
    assert "\n" not in said
