"""Damaged DICOM files of any kind: refused in one line or converted, never a traceback."""

import contextlib
import shutil

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.convert.dicom import DicomSource, convert_dicom
from nndet_psma.dataset.task.paths import TaskPaths

SHAPE = (6, 20, 24)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    slices = make_slices(np.full(SHAPE, 1064, np.int16), spacing=(3.0, 1.0, 1.0), intercept=-1024)
    save_all(slices, folder, "ct")
    pet = np.full((6, 8, 9), 10, np.int16)
    write_series(folder, pet, "PT", series="pet", spacing=(3.0, 2.0, 2.0), slope=250.0, **pet_tags())
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 10:13, 10:13] = True
    make_segmentation(slices, {"SEG": mask}).save_as(folder / "seg")
    drawn = [("PSMA+1", [rectangle(3.0 * k, (2.5, 6.5), (2.5, 6.5)) for k in (1, 2, 3)])]
    save(make_structures(drawn), folder / "rs")
    return folder


places = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["ct", "PT", "seg", "rs"]),
    changes=st.lists(places, min_size=1, max_size=30),
    header_only=st.booleans(),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_files_give_one_line_or_a_case(sound, tmp_path, kind, changes, header_only, kept):
    shutil.rmtree(tmp_path)
    folder = shutil.copytree(sound, tmp_path / "pacs")
    file = min(folder.glob(f"{kind}*"))
    content = bytearray(file.read_bytes())
    for where, value in changes:
        content[int(where * min(len(content), 900 if header_only else len(content)))] = value
    file.write_bytes(content[: int(len(content) * kept)])
    source = DicomSource((folder,), lesion_rois=("PSMA*", "SEG*"), allow_empty=True)
    paths = TaskPaths(tmp_path / "Task100_X")
    with contextlib.suppress(UserError):
        assert len(convert_dicom(source, paths).training) == 1
