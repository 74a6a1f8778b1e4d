"""One fault of names, files or headers each: kind -> (spoil a good task, end of the file that must be named)."""

from __future__ import annotations

import errno
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from good_task import CTV, GRID, PET, SHAPE, GoodTask

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.dataset.images.images import write_volume


def _link(task: GoodTask, target: str) -> None:
    task.image("case_b", PET).unlink()
    task.image("case_b", PET).symlink_to(target)


def _folder(task: GoodTask) -> None:
    task.image("case_b", PET).unlink()
    task.image("case_b", PET).mkdir()


def _forbid(task: GoodTask, monkeypatch) -> None:
    """The superuser may read everything, so the refusal is simulated where the file is opened."""
    original = Path.open

    def refuse(self, *args, **kwargs):
        if self.name == "case_b_0002.nii.gz":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)


def _unlisted(task: GoodTask, monkeypatch) -> None:
    original = Path.iterdir

    def refuse(self):
        if self.name == "imagesTs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return original(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    task.describe(test_labels=False)
    for folder in (task.paths.labels("Ts"),):  # otherwise their labels have no images
        for file in folder.iterdir():
            file.unlink()
    task.paths.clinical.unlink()


def _die(task: GoodTask, monkeypatch) -> None:
    from nndet_psma.dataset.checks import checks

    def map_surviving(function, items, num_processes, died):
        return [died(item) if item.case_id == "case_b" else function(item) for item in items]

    monkeypatch.setattr(checks, "map_surviving", map_surviving)


def _fail(task: GoodTask, monkeypatch) -> None:
    from nndet_psma.dataset.checks import case as case_checks

    original = case_checks.read_volume

    def read_volume(file, **rest):
        if file.name == "case_b_0002.nii.gz":
            raise MemoryError("no room")
        return original(file, **rest)

    monkeypatch.setattr(case_checks, "read_volume", read_volume)


def _disk_error(task: GoodTask, monkeypatch) -> None:
    from nndet_psma.dataset.checks import case as case_checks

    original = case_checks.read_volume

    def read_volume(file, **rest):
        if file.name == "case_b_0002.nii.gz":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(file, **rest)

    monkeypatch.setattr(case_checks, "read_volume", read_volume)


def _corrupt(task: GoodTask) -> None:
    """A voxel changed in a stored (uncompressed) gzip block: length and structure stay right."""
    file = task.image("case_b", PET)
    packed = bytearray(gzip.compress(gzip.decompress(file.read_bytes()), compresslevel=0))
    packed[30_000] ^= 255
    file.write_bytes(bytes(packed))


def _other_format(task: GoodTask) -> None:
    file = task.image("case_b", PET)
    image = sitk.ReadImage(str(file))
    file.unlink()
    sitk.WriteImage(image, str(file).replace(".nii.gz", ".nrrd"))


def _several_values(task: GoodTask) -> None:
    image = sitk.Compose([sitk.Image(list(SHAPE[::-1]), sitk.sitkUInt8)] * 3)
    sitk.WriteImage(image, str(task.image("case_b", PET)))


def _sheared(task: GoodTask) -> None:
    """A hand-written NRRD whose axes meet at 60 degrees."""
    task.image("case_b", PET).unlink()
    lines = [
        "NRRD0004",
        "type: uint8",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: 36 32 8",
        "space directions: (2,0,0) (1,1.732,0) (0,0,4)",
        "encoding: raw",
        "space origin: (0,0,0)",
    ]
    text = "\n".join(lines) + "\n\n"
    file = task.paths.images("Tr") / "case_b_0002.nrrd"
    file.write_bytes(text.encode() + bytes(36 * 32 * 8))


def _pack(format_: str, offset: int, *values):
    return lambda content: struct.pack_into(format_, content, offset, *values)


def _tilted(degrees: float) -> Geometry:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return Geometry(SHAPE, GRID.spacing, GRID.origin, (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))


def _mask_on(geometry: Geometry):
    return lambda task: write_volume(task.label("case_b"), np.zeros(geometry.shape, np.uint8), geometry)


def _two_dimensional(task: GoodTask) -> None:
    """Every case but case_b loses all slices but one."""
    task.describe(dim=2)
    flat = Geometry((1, *SHAPE[1:]), GRID.spacing, GRID.origin)
    for case in ("case_a", "case_c", "case_t"):
        task.regrid(flat, case)


def _no_files(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _no_cases(task: GoodTask) -> None:
    """None at all: a task of test cases alone is one to predict."""
    for split in ("Tr", "Ts"):
        _no_files(task.paths.images(split))
        _no_files(task.paths.labels(split))
    task.describe(test_labels=False)
    task.without_tables()


def _no_test_images(task: GoodTask) -> None:
    _no_files(task.paths.images("Ts"))
    task.paths.clinical.unlink()


def _no_folder(task: GoodTask) -> None:
    _no_cases(task)
    task.paths.images("Tr").rmdir()


def _no_label_folder(task: GoodTask) -> None:
    _no_files(task.paths.labels("Ts"))
    task.paths.labels("Ts").rmdir()


def _renamed(new: str):
    def spoil(task: GoodTask) -> None:
        task.without_tables()
        task.rename("case_c", new)

    return spoil


def _dot(task: GoodTask) -> None:
    image = task.paths.images("Tr") / "case.b_0000.nii.gz"
    image.write_bytes(task.image("case_b").read_bytes())


FAULTS = {
    # names
    "missing folder": (_no_folder, "imagesTr"),
    "missing labels": (_no_label_folder, "labelsTs"),
    "unreadable folder": (_unlisted, "imagesTs"),
    "no cases": (_no_cases, "imagesTr"),
    "no test images": (_no_test_images, "imagesTs"),
    "stray file": (lambda t: (t.paths.images("Tr") / "notes.txt").touch(), "notes.txt"),
    "misnamed file": (lambda t: (t.paths.images("Tr") / "case_b.nii.gz").touch(), "imagesTr/case_b.nii.gz"),
    "extra modality": (lambda t: t.image("case_b", 7).touch(), "case_b_0007.nii.gz"),
    "missing modality": (lambda t: t.image("case_b", CTV).unlink(), "case_b_0001.nii.gz"),
    "duplicate file": (lambda t: (t.paths.images("Tr") / "case_b_0000.nrrd").touch(), "case_b_0000.nrrd"),
    "dot in case name": (_dot, "case.b_0000.nii.gz"),
    "unsafe case name": (_renamed("case c"), "case c_0000.nii.gz"),
    "names differ in case only": (_renamed("CASE_B"), "/case_b_0000.nii.gz"),
    "mixed suffixes": (_other_format, "case_b_0002.nrrd"),
    "unlabelled case": (lambda t: (t.label("case_b").unlink(), t.table("case_b").unlink()), "case_b.nii.gz"),
    "missing label": (lambda t: t.label("case_b").unlink(), "labelsTr/case_b.nii.gz"),
    "missing instances": (lambda t: t.table("case_b").unlink(), "labelsTr/case_b.json"),
    "label without images": (lambda t: (t.paths.labels("Tr") / "case_x.nii.gz").touch(), "case_x.nii.gz"),
    # files
    "broken link": (lambda t: _link(t, "gone.nii.gz"), "case_b_0002.nii.gz"),
    "link loop": (lambda t: _link(t, "case_b_0002.nii.gz"), "case_b_0002.nii.gz"),
    "folder instead of file": (_folder, "case_b_0002.nii.gz"),
    "empty file": (lambda t: t.image("case_b", PET).write_bytes(b""), "case_b_0002.nii.gz"),
    "no permission": (_forbid, "case_b_0002.nii.gz"),
    "not gzip": (lambda t: t.image("case_b", PET).write_bytes(b"no image" * 99), "case_b_0002.nii.gz"),
    "plain under .nii.gz": (
        lambda t: t.image("case_b", PET).write_bytes(gzip.decompress(t.image("case_b", PET).read_bytes())),
        "case_b_0002.nii.gz",
    ),
    "compressed under .nii": (
        lambda t: t.image("case_b", PET).rename(t.paths.images("Tr") / "case_b_0002.nii"),
        "case_b_0002.nii",
    ),
    "not an image": (
        lambda t: t.image("case_b", PET).write_bytes(gzip.compress(b"no image" * 99)),
        "case_b_0002.nii.gz",
    ),
    "truncated file": (
        lambda t: t.image("case_b", PET).write_bytes(t.image("case_b", PET).read_bytes()[:-40]),
        "case_b_0002.nii.gz",
    ),
    "damaged file": (_corrupt, "case_b_0002.nii.gz"),
    "unreadable image": (_disk_error, "case_b_0002.nii.gz"),
    "worker died": (_die, "case_b_0000.nii.gz"),
    "check failed": (_fail, "case_b_0000.nii.gz"),
    # headers
    "not 3D": (
        lambda t: sitk.WriteImage(sitk.Image([*SHAPE[::-1], 2], sitk.sitkInt16), str(t.image("case_b", PET))),
        "case_b_0002.nii.gz",
    ),
    "several values per voxel": (_several_values, "case_b_0002.nii.gz"),
    "complex voxels": (
        lambda t: t.header(t.image("case_b", PET), _pack("<2h", 70, 32, 32)),
        "case_b_0002.nii.gz",
    ),
    "spacing not positive": (
        lambda t: t.header(t.image("case_b", PET), _pack("<f", 88, 0.0)),
        "case_b_0002.nii.gz",
    ),
    "spacing in metres": (
        lambda t: t.regrid(Geometry(SHAPE, (0.004, 0.002, 0.002), GRID.origin)),
        "case_b_0000.nii.gz",
    ),
    "spacing too large": (
        lambda t: t.regrid(Geometry(SHAPE, (4000.0, 2000.0, 2000.0), GRID.origin)),
        "case_b_0000.nii.gz",
    ),
    "sheared axes": (_sheared, "case_b_0002.nrrd"),
    "rounded axes": (  # 0.0002 rad between x and y: 0.007 mm at the far end, within the tolerance of a grid
        lambda t: t.header(
            t.image("case_b", PET), lambda c: (_pack("<2h", 252, 0, 1)(c), _pack("<f", 284, 2e-4 * 2.0)(c))
        ),
        "case_b_0002.nii.gz",
    ),
    "no orientation": (
        lambda t: t.header(t.image("case_b", PET), _pack("<2h", 252, 0, 0)),
        "case_b_0002.nii.gz",
    ),
    "qform and sform differ": (
        lambda t: t.header(t.image("case_b", PET), _pack("<f", 268, 50.0)),  # the offset of the qform along x
        "case_b_0002.nii.gz",
    ),
    "wrong dimension": (_two_dimensional, "case_b_0000.nii.gz"),
    "few slices": (
        lambda t: t.regrid(Geometry((4, *SHAPE[1:]), GRID.spacing, GRID.origin)),
        "case_b_0000.nii.gz",
    ),
    "thick slices": (lambda t: t.regrid(Geometry(SHAPE, (8.5, 2.0, 2.0), GRID.origin)), "case_b_0000.nii.gz"),
    "shape mismatch": (_mask_on(Geometry((7, 32, 36), GRID.spacing, GRID.origin)), "labelsTr/case_b.nii.gz"),
    "spacing mismatch": (_mask_on(Geometry(SHAPE, (4.0, 2.0, 2.01), GRID.origin)), "labelsTr/case_b.nii.gz"),
    "origin mismatch": (_mask_on(Geometry(SHAPE, GRID.spacing, (0.0, 0.0, 0.0))), "labelsTr/case_b.nii.gz"),
    "direction mismatch": (_mask_on(_tilted(1.0)), "labelsTr/case_b.nii.gz"),
}
# what the fault necessarily brings with it
ALSO = {
    "sheared axes": {"mixed suffixes"},
    "compressed under .nii": {"mixed suffixes"},
    "wrong dimension": {"empty CTV", "empty mask"},
    "few slices": {"lesion at the image border"},
    "no orientation": {"origin mismatch"},
    "shape mismatch": {"empty mask"},
    "spacing mismatch": {"empty mask"},
    "origin mismatch": {"empty mask"},
    "direction mismatch": {"empty mask"},
    "spacing in metres": {"mixed spacings"},
    "spacing too large": {"mixed spacings"},
}
