"""Small DICOM files made for a test: image series, PET headers, structure sets."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from places import DATA
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

NAME = "Doe^John"
PATIENT = "MRN-4711"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
    "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
}
FRAME = generate_uid(entropy_srcs=["frame"])
STUDY = generate_uid(entropy_srcs=["study"])


def uid(*parts: object) -> str:
    """The same identifier for the same parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def new_dataset(modality: str, **tags) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CLASSES[modality]
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = modality
    dataset.PatientName, dataset.PatientID = NAME, PATIENT
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = STUDY, FRAME
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, file: Path) -> Path:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def make_slices(
    array,
    modality="CT",
    *,
    spacing=(3.0, 2.0, 1.0),
    origin=(0.0, 0.0, 0.0),
    orientation=AXIAL,
    series="1",
    slope=1.0,
    intercept=0.0,
    **tags,
) -> list[Dataset]:
    """One dataset per slice of ``array`` [z, y, x] of stored values; slice k lies k * spacing[0] along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    datasets = []
    for k, stored in enumerate(np.asarray(array)):
        dataset = new_dataset(modality, SeriesInstanceUID=uid("series", series), InstanceNumber=k + 1)
        dataset.SOPInstanceUID = uid("image", series, k, tags.get("StudyInstanceUID", ""))
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImageOrientationPatient = list(orientation)
        dataset.ImagePositionPatient = [float(v) for v in np.array(origin) + k * spacing[0] * normal]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing[1:]), spacing[0]
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.Rows, dataset.Columns = stored.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.PixelData = stored.astype("<i2").tobytes()
        for name, value in tags.items():
            setattr(dataset, name, value)
        datasets.append(dataset)
    return datasets


def save_all(datasets: list[Dataset], folder: Path, stem: str = "a") -> Path:
    """Write slices so that the order of the names is not the order of the positions."""
    for k, dataset in enumerate(datasets):
        save(dataset, folder / f"{stem}{(k * 7) % 10}{k:02d}")
    return folder


def write_series(folder: Path, array, modality="CT", **arguments) -> Path:
    return save_all(
        make_slices(array, modality, **arguments), folder, f"{modality}{arguments.get('series', '')}_"
    )


def pet_tags(**changes) -> dict:
    """Header of a PET: 100 MBq of F-18 given to 80 kg at 09:10:13.8, scanned one half-life later, at 11:00."""
    tracer = Dataset()
    tracer.RadiopharmaceuticalStartTime = "091013.80"
    tracer.RadionuclideTotalDose = 1e8
    tracer.RadionuclideHalfLife = 6586.2
    tags = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "SeriesDate": "20200102",
        "SeriesTime": "110000.00",
        "AcquisitionDate": "20200102",
        "AcquisitionTime": "110000.00",
        "PatientWeight": 80.0,
        "RadiopharmaceuticalInformationSequence": Sequence([tracer]),
    }
    return {**tags, **changes}


def rectangle(z: float, y: tuple[float, float], x: tuple[float, float]) -> list[float]:
    """A closed contour in the plane ``z`` as DICOM stores it (x, y, z), mm."""
    corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
    return list(itertools.chain.from_iterable((cx, cy, z) for cx, cy in corners))


def make_structures(rois, *, series="1", kind="CLOSED_PLANAR", **tags) -> Dataset:
    """A structure set of ``(name, [contour, ...])`` drawn on a series."""
    dataset = new_dataset("RTSTRUCT", SeriesInstanceUID=uid("structures", series), **tags)
    names, contours = [], []
    for number, (name, polygons) in enumerate(rois, start=1):
        item = Dataset()
        item.ROINumber, item.ROIName = number, name
        item.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
        names.append(item)
        drawn = Dataset()
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = Sequence([_contour(polygon, kind) for polygon in polygons])
        contours.append(drawn)
    reference = Dataset()
    reference.SeriesInstanceUID = uid("series", series)
    study, frame = Dataset(), Dataset()
    study.RTReferencedSeriesSequence = Sequence([reference])
    frame.RTReferencedStudySequence = Sequence([study])
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(names), Sequence(contours)
    return dataset


def _contour(polygon, kind: str) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(polygon) // 3
    contour.ContourData = [float(value) for value in polygon]
    return contour


def make_segmentation(images: list[Dataset], masks: dict[str, np.ndarray], kind="BINARY"):
    """A DICOM SEG of masks ``[z, y, x]`` by label, drawn on all images of a series, as highdicom writes it."""
    import highdicom
    from pydicom.sr.codedict import codes

    for name in ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber"):
        for image in images:
            setattr(image, name, image.get(name) or "")
    for image in images:
        image.ReferringPhysicianName = ""
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(masks, start=1)
    ]
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=np.stack(list(masks.values()), axis=-1),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=uid("segmentation", *masks),
        series_number=9,
        sop_instance_uid=uid("segments", *masks),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )


def data_folder(name: str) -> Path:
    """Folder of a public data set, or skip."""
    root = DATA
    if not (root / name).is_dir():
        pytest.skip(f"public data set {name} found neither through NNDET_PSMA_DATA nor in ../shared/data")
    return root / name
