"""One fault of voxels, masks or lesions each: kind -> (spoil a good task, end of the file that must be named)."""

from __future__ import annotations

import numpy as np
from good_task import ADC, CT, CTV, GRID, MODALITIES, PET, SHAPE, T2, GoodTask

from nndet_psma.dataset.images.images import write_volume


def _image(index: int, change):
    return lambda task: task.edit(task.image("case_b", index), change)


def _mask(change):
    return lambda task: task.edit(task.label("case_b"), change)


def _with(value):
    def change(array):
        array = array.astype(np.float32)
        array[0, 0, 0] = value
        return array

    return change


def _box(z, y, x, dtype=np.uint8, value=1):
    def change(array):
        array = np.zeros(SHAPE, dtype)
        array[slice(*z), slice(*y), slice(*x)] = value
        return array

    return change


def _add(number, z, y, x):
    """Another box of instance ``number`` in the mask of case_b."""

    def change(array):
        array[slice(*z), slice(*y), slice(*x)] = number
        return array

    return change


def _second(z, y, x):
    """A second lesion, in mask and JSON."""

    def spoil(task: GoodTask) -> None:
        task.edit(task.label("case_b"), _add(2, z, y, x))
        task.classes("case_b", {"1": 0, "2": 0})

    return spoil


def _organ(value):
    """The T2 becomes a bladder mask in every case; case_b's holds ``value``."""

    def spoil(task: GoodTask) -> None:
        task.describe(modalities={**MODALITIES, str(T2): "BLADDER"})
        for case in ("case_a", "case_b", "case_c", "case_t"):
            drawn = value if case == "case_b" else 1
            task.edit(task.image(case, T2), _box((2, 5), (8, 12), (8, 12), value=drawn))

    return spoil


def _without_ids(task: GoodTask) -> None:
    write_volume(task.label("case_b"), np.zeros(SHAPE, np.uint8), GRID)


FAULTS = {
    # voxels
    "NaN voxels": (_image(PET, _with(np.nan)), "case_b_0002.nii.gz"),
    "infinite voxels": (_image(PET, _with(np.inf)), "case_b_0002.nii.gz"),
    "constant image": (_image(PET, np.zeros_like), "case_b_0002.nii.gz"),
    "CT as grey values": (
        _image(CT, lambda hu: np.clip((hu + 160) * 255 / 400, 0, 255).astype(np.int16)),
        "case_b_0000.nii.gz",
    ),
    "CT without intercept": (_image(CT, lambda hu: np.maximum(hu + 1024, 0)), "case_b_0000.nii.gz"),
    "CT wrapped around": (_image(CT, lambda hu: hu.astype(np.uint16)), "case_b_0000.nii.gz"),
    "CT not in HU": (_image(CT, lambda hu: np.maximum(hu, -125)), "case_b_0000.nii.gz"),
    "CT padding": (
        _image(CT, lambda hu: np.where(hu < -995, -3024, hu).astype(np.int16)),
        "case_b_0000.nii.gz",
    ),
    "CT with fractions": (_image(CT, lambda hu: (hu + 0.25).astype(np.float32)), "case_b_0000.nii.gz"),
    "PET not SUV": (_image(PET, lambda suv: suv * 5000), "case_b_0002.nii.gz"),
    "PET normalised": (_image(PET, lambda suv: suv / suv.max()), "case_b_0002.nii.gz"),
    "negative PET": (_image(PET, lambda suv: suv - 0.5), "case_b_0002.nii.gz"),
    "ADC units": (_image(ADC, lambda adc: (adc / 1000).astype(np.float32)), "case_b_0003.nii.gz"),
    "negative MR": (_image(T2, lambda t2: (t2 - 100).astype(np.int16)), "case_b_0004.nii.gz"),
    # masks
    "mask not binary": (_organ(3), "case_b_0004.nii.gz"),
    "mask of 0 and 255": (_image(CTV, lambda mask: mask * 255), "case_b_0001.nii.gz"),
    "empty CTV": (_image(CTV, np.zeros_like), "case_b_0001.nii.gz"),
    "CTV fills the image": (_image(CTV, np.ones_like), "case_b_0001.nii.gz"),
    "CTV in one slice": (_image(CTV, _box((4, 5), (10, 23), (10, 25))), "case_b_0001.nii.gz"),
    "CTV outside the body": (_image(CTV, _box((1, 7), (0, 32), (0, 3))), "case_b_0001.nii.gz"),
    "CTV equals lesions": (_image(CTV, _box((3, 5), (14, 17), (18, 21))), "case_b_0001.nii.gz"),
    # lesions
    "bad instances": (lambda t: t.table("case_b").write_text("{"), "labelsTr/case_b.json"),
    "class out of range": (lambda t: t.classes("case_b", {"1": 3}), "labelsTr/case_b.json"),
    "ids not consecutive": (
        lambda t: (t.classes("case_b", {"5": 0}), t.edit(t.label("case_b"), lambda ids: ids * 5)),
        "labelsTr/case_b.json",
    ),
    "mask of floats": (_mask(lambda ids: ids.astype(np.float32)), "labelsTr/case_b.nii.gz"),
    "fractional ids": (_mask(lambda ids: ids * np.float32(0.5)), "labelsTr/case_b.nii.gz"),
    "negative ids": (_mask(lambda ids: -ids.astype(np.int16)), "labelsTr/case_b.nii.gz"),
    "empty mask": (_without_ids, "labelsTr/case_b.nii.gz"),
    "mask and JSON disagree": (lambda t: t.classes("case_b", {"1": 0, "2": 0}), "labelsTr/case_b.nii.gz"),
    # case_b: instance 1 at z 3..5, y 14..17, x 18..21; CTV z 1..7, y 10..23, x 10..25
    "lesion in pieces": (_mask(_add(1, (3, 5), (14, 17), (10, 12))), "labelsTr/case_b.nii.gz"),
    "lesion of one voxel": (_second((1, 2), (20, 21), (12, 13)), "labelsTr/case_b.nii.gz"),
    "lesion at the image border": (
        lambda t: _second((0, 2), (20, 23), (12, 15))(t),
        "labelsTr/case_b.nii.gz",
    ),
    "huge lesion": (_mask(_box((1, 7), (9, 24), (9, 26))), "labelsTr/case_b.nii.gz"),
    "lesions touch": (_second((3, 5), (14, 17), (21, 24)), "labelsTr/case_b.nii.gz"),
    "lesion outside the body": (_second((2, 4), (1, 3), (1, 3)), "labelsTr/case_b.nii.gz"),
    "lesion outside CTV": (_second((2, 4), (4, 6), (16, 19)), "labelsTr/case_b.nii.gz"),
    "lesion partly outside CTV": (_mask(_add(1, (3, 5), (14, 17), (18, 33))), "labelsTr/case_b.nii.gz"),
}
ALSO = {
    "CT wrapped around": {"mixed voxel types"},
    "CT with fractions": {"mixed voxel types"},
    "ADC units": {"mixed voxel types"},
    "CTV outside the body": {"lesion outside CTV"},
    "lesion outside the body": {"lesion outside CTV"},
}
