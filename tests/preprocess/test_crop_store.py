"""The store of crops: made once, kept, made again where something changed."""

import json

import numpy as np
import pytest
from crop_plan import crop_plan, volumes

from nndet_psma.artifacts.candidate_table import CandidateTable
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.images.images import Volume, write_volume
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.preprocess.crop_store import (
    TABLE,
    TABLE_CSV,
    build_crops,
    crops_hash,
    cut_case,
    numbered,
    read_crops,
    read_table,
)

PLAN = crop_plan()
BOXES = ((8, 9, 10, 12, 13, 14), (2, 2, 2, 4, 5, 6))


def raw_case(folder, name, boxes=BOXES, notes=None):
    ct, mask = volumes(boxes=boxes, seed=len(name))
    image, label, table = (folder / f"{name}{end}" for end in ("_0000.nii.gz", ".nii.gz", ".json"))
    write_volume(image, ct.array, ct.geometry)
    write_volume(label, mask.array, mask.geometry)
    classes = {str(k): k % 2 for k in range(1, len(boxes) + 1)}
    table.write_text(json.dumps({"instances": classes, **(notes or {})}))
    return RawCase(name, (image,), label, table)


def build(store, cases):
    return build_crops(
        store, cases, PLAN, patients=lambda c: f"patient of {c}", tracers=lambda c: "PSMA-11", processes=1
    )


@pytest.fixture
def cases(tmp_path):
    notes = {"stations": {"1": "iliac"}, "status": {"2": None}}
    return [raw_case(tmp_path, "a", notes=notes), raw_case(tmp_path, "empty", boxes=())]


def test_rows_and_crops(tmp_path, cases):
    store = tmp_path / "store"
    assert build(store, cases) == ["a", "empty"]
    first, second = read_table(store, ["a", "empty"]).rows
    assert (first.object_id, first.label, first.station, first.origin) == (1, 1, "iliac", "annotated")
    assert (first.patient_id, first.tracer) == ("patient of a", "PSMA-11")
    assert (second.label, second.station) == (None, "unknown")
    crops = read_crops(store, "a")
    assert crops.ct.dtype == np.int16
    assert np.array_equal(crops.ct, cut_case(cases[0], PLAN).ct)
    assert np.array_equal(crops.codes, cut_case(cases[0], PLAN).codes)
    assert len(read_crops(store, "empty").ct) == 0
    assert CandidateTable.read(store / TABLE).rows == [first, second]
    header, line, *_ = (store / TABLE_CSV).read_text().splitlines()
    assert header.startswith("case_id,patient_id,object_id,x_mm")
    assert header.endswith("hu_p10,hu_p90")
    assert line.startswith("a,patient of a,1,11.50,10.50,9.50,iliac,1,annotated,PSMA-11,64,")


def test_what_is_current_is_kept(tmp_path, cases):
    store = tmp_path / "store"
    build(store, cases)
    before = crops_hash(store, "a")
    assert build(store, cases) == []
    cases[0].instances.write_text(json.dumps({"instances": {"1": 0, "2": 0}}))
    assert build(store, cases) == ["a"]
    assert crops_hash(store, "a") != before
    assert build(store, cases[:1]) == []
    with pytest.raises(UserError, match="case empty are not prepared"):
        read_crops(store, "empty")


def test_a_damaged_array_is_named(tmp_path, cases):
    build(tmp_path / "store", cases)
    (tmp_path / "store/a/ct.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match="stored crops cannot be read"):
        read_crops(tmp_path / "store", "a")


def test_a_case_without_mask_is_refused(cases):
    with pytest.raises(UserError, match=r"no mask of the objects to judge.*--objects"):
        cut_case(RawCase("a", cases[0].images), PLAN)


def test_masks_of_other_types_and_of_no_numbers(cases):
    mask = volumes(boxes=BOXES)[1]
    as_float = numbered(Volume(mask.array.astype(np.float32), mask.geometry), cases[0].label)
    assert as_float.array.dtype == np.uint8
    assert np.array_equal(as_float.array, mask.array)
    with pytest.raises(UserError, match="no instance ids"):
        numbered(Volume(mask.array * 0.5, mask.geometry), cases[0].label)


def test_a_description_of_another_release_is_made_anew(tmp_path, cases):
    store = tmp_path / "store"
    build(store, cases)
    file = store / "a/crops.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    assert build(store, cases) == ["a"]
