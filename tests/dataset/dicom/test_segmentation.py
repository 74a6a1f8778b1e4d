"""DICOM SEG: names, voxels on the grid of the file, and what is refused."""

import numpy as np
import pytest
from dicom_samples import FRAME, make_segmentation, make_slices, make_structures, save, uid

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.headers import scan_folders
from nndet_psma.dataset.dicom.segmentation import read_segment, read_segmentation
from nndet_psma.dataset.dicom.series import group_series
from nndet_psma.dataset.images.images import resample_volume

SHAPE = (6, 8, 9)
OBLIQUE = tuple(float(v) for v in np.round([0.8, 0.6, 0.0, 0.0, 0.0, -1.0], 6))


def masks():
    found = {"PSMA+1": np.zeros(SHAPE, bool), "CTV_LN": np.zeros(SHAPE, bool)}
    found["PSMA+1"][2:4, 3:6, 3:5] = True
    found["CTV_LN"][1:5, 1:7, 1:8] = True
    return found


def written(folder, orientation, change=None, kind="BINARY"):
    slices = make_slices(
        np.zeros(SHAPE, np.int16), spacing=(3.0, 2.0, 1.0), orientation=orientation, origin=(5.0, -7.0, 11.0)
    )
    for k, dataset in enumerate(slices):
        save(dataset, folder / f"ct{k}")
    drawn = make_segmentation(slices, masks() if kind == "BINARY" else {"a": masks()["CTV_LN"] * 0.5}, kind)
    if change is not None:
        change(drawn)
    drawn.save_as(folder / "seg.dcm")
    return read_segmentation(folder / "seg.dcm")


@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE])
def test_segments_lie_where_they_were_drawn(tmp_path, orientation):
    found = written(tmp_path, orientation)
    assert [(s.name, s.number, s.fault, s.frame) for s in found.rois] == [
        ("PSMA+1", 1, "", FRAME),
        ("CTV_LN", 2, "", FRAME),
    ]
    assert found.series == {uid("series", "1")}
    [series] = group_series(h for h in scan_folders([tmp_path]) if h.modality == "CT")
    for segment in found.rois:
        volume = read_segment(segment)
        moved = resample_volume(volume, series.geometry, order=0, fill=0).array
        assert np.array_equal(moved, masks()[segment.name])


def test_numbers_that_are_given_twice_and_fractions_are_refused(tmp_path):
    def twice(dataset):
        dataset.SegmentSequence[1].SegmentNumber = 1

    for segment in written(tmp_path, OBLIQUE, twice).rois:
        with pytest.raises(
            UserError, match=r"seg.dcm: segment '.*' cannot be drawn.*\(0062,0004\) 1 for 2 segments"
        ):
            read_segment(segment)
    [fraction] = written(tmp_path, OBLIQUE, kind="FRACTIONAL").rois
    with pytest.raises(UserError, match=r"SegmentationType \(0062,0001\) 'FRACTIONAL'.*binary segmentation"):
        read_segment(fraction)


def test_damaged_frames_are_refused(tmp_path):
    def spoil(dataset):
        del dataset.SharedFunctionalGroupsSequence

    with pytest.raises(UserError, match="segment 'PSMA\\+1' cannot be read"):
        read_segment(written(tmp_path, OBLIQUE, spoil).rois[0])


def test_what_is_no_segmentation(tmp_path):
    file = save(make_structures([]), tmp_path / "rs")
    with pytest.raises(UserError, match="rs: no segmentation; expected DICOM of modality SEG"):
        read_segmentation(file)
