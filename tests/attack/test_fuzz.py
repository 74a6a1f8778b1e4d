"""Damaged and hostile files: a reader refuses them with a :class:`UserError` or reads them, and nothing else.

No traceback, no hang, no more than 2 GB. Where a format has checksums, what is read is what was written.
``NNDET_PSMA_FUZZ=2000`` tries so many new mutations of every format; otherwise the same few are tried every time.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_samples import make_slices, make_structures, rectangle, save, save_all
from fake_models import boxes_2d, raw_of
from fuzzing import BYTE_MUTATIONS, JSON_MUTATIONS, bounded, mutated, mutated_json
from hypothesis import HealthCheck, Phase, example, given, settings
from tiny_place import GRID, Workplace, tiny_case

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.prediction import Prediction
from nndet_psma.artifacts.raw_predictions import RawPrediction, read_raw, write_raw
from nndet_psma.boxes.geometry import Geometry
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import to_plain
from nndet_psma.dataset.checks.case import check_case
from nndet_psma.dataset.dicom.headers import read_dataset, scan_folders
from nndet_psma.dataset.dicom.rtstruct import read_rtstruct
from nndet_psma.dataset.dicom.series import group_series, read_series
from nndet_psma.dataset.images.images import read_volume, write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.instances import read_instances
from nndet_psma.inference.postprocessing import make_prediction
from nndet_psma.postproc.steps.settings import PostprocSettings
from nndet_psma.stages.export_model import ExportJob, export_model
from nndet_psma.systems.exchange import take_in_archive

EXPLORED = int(os.environ.get("NNDET_PSMA_FUZZ", "0"))
CT, CTV, _ = tiny_case("test_0")
DESCRIBED = DatasetDescription("T", "T", 3, {0: "node"}, {0: "CT"})


def fuzz(examples: int) -> Callable[[Any], Any]:
    """So many mutations, the same every time; or as many new ones as the environment says."""
    return settings(
        max_examples=EXPLORED or examples,
        derandomize=not EXPLORED,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: of the file.
        content: of a good one.
        read: what a user gets of the file, comparable; raises UserError.
        sealed: checksums cover what is read.
    """

    name: str
    content: bytes
    read: Callable[[Path], Any]
    sealed: bool = False


def outcome(read: Callable[[Path], Any], file: Path) -> Any:
    """What was read, or None where it was refused."""
    with suppress(UserError), bounded():
        return read(file)
    return None


def image(file: Path) -> Any:
    """The volume; the check of data sets must have a name for whatever is wrong with it."""
    report = check_case(RawCase("p", (file,)), DESCRIBED, full=True)
    unknown = [finding for finding in report.findings if finding.kind == "check failed"]
    assert not unknown, unknown
    volume = read_volume(file)
    return volume.array.tobytes(), volume.geometry


def series(file: Path) -> Any:
    found = group_series(scan_folders([file.parent]))
    return [read_series(each).array.tobytes() for each in found] or None


def structures(file: Path) -> Any:
    dataset = read_dataset(file)
    return None if dataset is None else [roi.name for roi in read_rtstruct(file).rois]


def raw(file: Path) -> Any:
    found = read_raw(file)
    return json.dumps(to_plain(found.meta)), [
        (name, [(part.boxes.tolist(), part.scores.tolist(), part.labels.tolist()) for part in parts])
        for name, parts in found.voters.items()
    ]


def model(file: Path) -> Any:
    target = file.parent / "model"
    shutil.rmtree(target, ignore_errors=True)
    try:
        take_in_archive(file, target)
    except UserError:
        assert not target.exists()
        raise
    return {
        str(each.relative_to(target)): each.read_bytes()
        for each in target.rglob("*")
        if each.is_file() and each.name != "manifest.json"  # the times of members are not covered
    }


def images(folder: Path, name: str) -> Format:
    write_volume(folder / name, CT[:, :20, :24], Geometry((10, 20, 24), GRID.spacing))
    return Format(name, (folder / name).read_bytes(), image, sealed=name.endswith(".gz"))


def dicom_series(folder: Path) -> Format:
    save_all(make_slices(CT[:3, :20, :24]), folder / "ct")
    return Format("a.dcm", min((folder / "ct").iterdir()).read_bytes(), series)


def structure_set(folder: Path) -> Format:
    contours = [("node", [rectangle(3.0, (4, 12), (3, 9)), rectangle(6.0, (4, 12), (3, 9))])]
    save(make_structures(contours), folder / "rs.dcm")
    return Format("rs.dcm", (folder / "rs.dcm").read_bytes(), structures)


def raw_boxes() -> RawPrediction:
    boxes = boxes_2d([(2, 10, 12, 16, 18, 0.9), (3, 10, 12, 16, 18, 0.8), (6, 20, 22, 24, 26, 0.4)])
    return raw_of({"a": [boxes, boxes], "b": [boxes]}, GRID)


def raw_prediction(folder: Path) -> Format:
    write_raw(folder / "raw.npz", raw_boxes())
    return Format("raw.npz", (folder / "raw.npz").read_bytes(), raw, sealed=True)


def prediction(folder: Path) -> Format:
    made = make_prediction(raw_boxes(), PostprocSettings(), {"0": "node"})
    made.write(folder / "p_boxes.json")
    return Format("p_boxes.json", (folder / "p_boxes.json").read_bytes(), Prediction.read)


def dataset(folder: Path) -> Format:
    content = {
        "task": "Task900_T",
        "dim": 3,
        "target_class": None,
        "test_labels": True,
        "labels": {"0": "node"},
    }
    content |= {"modalities": {"0": "CT", "1": "CTV"}, "psma": {"target": "case"}}
    return Format("dataset.json", json.dumps(content).encode(), lambda file: read_description(file.parent))


def instances(folder: Path) -> Format:
    return Format("p.json", b'{"instances": {"1": 0, "2": 0}}', read_instances)


def plan(folder: Path, trained: Workplace) -> Format:
    return Format("plan.json", (trained.model / "fold0/plan.json").read_bytes(), read_plan)


def archive(folder: Path, trained: Workplace) -> Format:
    export_model(ExportJob(ModelFolder(trained.model), folder / "model.zip"))
    return Format("model.zip", (folder / "model.zip").read_bytes(), model, sealed=True)


IMAGES = ("p.nii.gz", "p.nii", "p.mha", "p.nrrd")
MAKERS: dict[str, Callable[..., Format]] = {
    **{name: partial(images, name=name) for name in IMAGES},
    "dicom": dicom_series,
    "rtstruct": structure_set,
    "raw": raw_prediction,
    "boxes": prediction,
    "dataset": dataset,
    "instances": instances,
    "plan": plan,
    "model": archive,
}


@pytest.fixture(scope="module")
def formats(tmp_path_factory, request) -> Callable[[str], Format]:
    """A format by its name, made once."""
    folder = tmp_path_factory.mktemp("seeds")

    @cache
    def made(name: str) -> Format:
        needed = [request.getfixturevalue("trained")] if name in ("plan", "model") else []
        return MAKERS[name](folder, *needed)

    return made


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def place(scratch: Path, chosen: Format, content: bytes) -> Path:
    folder = scratch / chosen.name
    folder.mkdir(exist_ok=True)
    (folder / chosen.name).write_bytes(content)
    return folder / chosen.name


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_bytes(name, formats, scratch):
    chosen = formats(name)
    good = outcome(chosen.read, place(scratch, chosen, chosen.content))
    assert good is not None

    @fuzz(30)
    @given(BYTE_MUTATIONS)
    @example(
        [("delete", 417, 1, 0), ("zero", 177, 1, 0), ("repeat", 71, 1, 0)]
    )  # .nii that two readers size differently
    def damage(mutations):
        found = outcome(chosen.read, place(scratch, chosen, mutated(chosen.content, mutations)))
        if chosen.sealed and found is not None:
            assert found == good

    damage()


@pytest.mark.parametrize("name", [*IMAGES, "dicom", "raw", "model"])
def test_cut_short(name, formats, scratch):
    """A copy that broke off is refused, or what it lacks carries nothing."""
    chosen = formats(name)
    good = outcome(chosen.read, place(scratch, chosen, chosen.content))
    size = len(chosen.content)
    for keep in {0, 1, 100, 400, size // 3, size // 2, size - 200, size - 9, size - 1}:
        found = outcome(chosen.read, place(scratch, chosen, chosen.content[:keep]))
        assert found in (None, good), f"{keep} of {size} bytes"


@pytest.mark.parametrize("name", ["boxes", "plan", "dataset", "instances"])
def test_odd_json(name, formats, scratch):
    chosen = formats(name)

    @fuzz(40)
    @given(JSON_MUTATIONS)
    @example([("replace", 0.57, 9)])  # a number of 400 digits for a float of the plan
    def change(mutations):
        text = mutated_json(json.loads(chosen.content), mutations)
        outcome(chosen.read, place(scratch, chosen, text))

    change()


def test_odd_header_in_good_compression(formats, scratch):
    """The checksum is right, so only the header can tell."""
    chosen = formats("p.nii.gz")
    inner = gzip.decompress(chosen.content)

    @fuzz(40)
    @given(BYTE_MUTATIONS)
    @example([("delete", 23, 2, 0)])  # the same
    @example([("flip", 4, 1, 0), ("fill", 42, 4, 41)])  # asks for 2 GB
    def change(mutations):
        outcome(chosen.read, place(scratch, chosen, gzip.compress(mutated(inner, mutations), 1)))

    change()


@pytest.mark.parametrize("name", ["raw", "model"])
def test_odd_members_in_a_good_zip(name, formats, scratch):
    """The checksums of the zip are right; a model's manifest still has the hashes of the good files."""
    chosen = formats(name)
    with zipfile.ZipFile(io.BytesIO(chosen.content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}

    @fuzz(15)
    @given(BYTE_MUTATIONS)
    @example([("cut", 334, 1, 127), ("fill", 40, 5000, 55)])  # a header of an array that never ends
    def change(mutations):
        names = sorted(members)
        spoilt = names[mutations[0][3] % len(names)]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for each, content in members.items():
                archive.writestr(each, mutated(content, mutations) if each == spoilt else content)
        outcome(chosen.read, place(scratch, chosen, buffer.getvalue()))

    change()


def test_the_bounds_hold():
    with pytest.raises(MemoryError), bounded():
        np.zeros(3 << 30, dtype=np.uint8)
