"""A case with two nodes, and a synthetic DICOM series on the same grid."""

import numpy as np

from nndet_psma.boxes.geometry import Geometry
from nndet_psma.nodes.measurement import measure_nodes
from nndet_psma.report.structured.artifact import structured_report

GRID = Geometry((6, 16, 20), (3.0, 1.0, 1.0), origin=(-10.0, -8.0, 50.0))
PATIENT = "Doe^Jane"


def instances():
    """Node 1: 1 x 2 x 3 voxels (3 x 2 x 3 mm), node 2: 3 x 10 x 9 voxels (9 x 10 x 9 mm), at the border in x."""
    ids = np.zeros(GRID.shape, dtype=np.int32)
    ids[1, 2:4, 3:6] = 1
    ids[2:5, 4:14, 11:20] = 2
    return ids


def report(**changes):
    ids = instances()
    arguments = {"origin": "instances", "made_from": "0123456789abcdef"} | changes
    return structured_report("case_1", measure_nodes(ids, GRID), GRID, **arguments)


def image():
    return np.random.default_rng(0).normal(0, 100, GRID.shape) + 200.0 * (instances() > 0)


def write_series(folder, slices=range(6), series="1.2.3.4", shift=0.0, **changes):
    """CT slices on ``GRID``; ``changes`` are attributes, None takes one away."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    for z in slices:
        slice_ = Dataset()
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, f"{series}.{z + 1}"
        slice_.SeriesInstanceUID, slice_.StudyInstanceUID = series, "1.2.3"
        slice_.FrameOfReferenceUID = "1.2.9"
        slice_.PatientName, slice_.PatientID = PATIENT, "4711"
        slice_.PatientBirthDate, slice_.PatientSex = "19500101", "M"
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID = "20260101", "120000", "1"
        slice_.AccessionNumber, slice_.ReferringPhysicianName = "", ""
        slice_.Modality, slice_.InstanceNumber, slice_.SliceThickness = "CT", int(z) + 1, 3.0
        slice_.Rows, slice_.Columns, slice_.PixelSpacing = 16, 20, [1.0, 1.0]
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [-10.0, -8.0, 50.0 + 3.0 * z + shift]
        for name, value in changes.items():
            if value is None:
                delattr(slice_, name)
            else:
                setattr(slice_, name, value)
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.save_as(folder / f"{z}.dcm", enforce_file_format=True)
    return folder
