"""SUV by hand: 100 MBq at 10:00, scan at 11:00, half-life one hour, 80 kg."""

import math
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from dicom_samples import make_slices, new_dataset, pet_tags, save_all
from hypothesis import given
from hypothesis import strategies as st

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.suv import scan_start, suv_factor, suv_factors

FILE = Path("pet.dcm")
AT_SCAN = 80000 / 50e6  # half of the dose is left
AT_INJECTION = 80000 / 100e6


def pet(tracer: dict | None = None, **changes):
    dataset = new_dataset("PT", **pet_tags(**changes))
    for name, value in (tracer or {}).items():
        setattr(dataset.RadiopharmaceuticalInformationSequence[0], name, value)
    return dataset


@pytest.mark.parametrize(
    ("tracer", "changes", "expected"),
    [
        ({}, {}, AT_SCAN),
        ({}, {"DecayCorrection": "ADMIN"}, AT_INJECTION),
        ({"RadionuclideTotalDose": 100.0}, {}, AT_SCAN),  # MBq
        ({}, {"Units": "GML"}, 1.0),
        ({}, {"Units": "GML", "SUVType": "BW"}, 1.0),
        ({"RadiopharmaceuticalStartDateTime": "20200102100000.00"}, {}, AT_SCAN),
        ({"RadiopharmaceuticalStartDateTime": "20200102100000.00+0100"}, {}, AT_SCAN),
        # the date of injection was shifted, or lost, by a pseudonymisation: its time of the day counts
        ({"RadiopharmaceuticalStartDateTime": "19990101100000"}, {}, AT_SCAN),
        ({"RadiopharmaceuticalStartTime": "10:00:00"}, {}, AT_SCAN),
        ({"RadiopharmaceuticalStartTime": "1000"}, {}, AT_SCAN),
        # injected half an hour before midnight, scanned half an hour after
        (
            {"RadiopharmaceuticalStartTime": "233000"},
            {"SeriesTime": "003000", "AcquisitionTime": "003000"},
            AT_SCAN,
        ),
        ({"RadionuclideHalfLife": 1800.0}, {}, 80000 / 25e6),
        ({}, {"SeriesDate": "", "AcquisitionDate": ""}, AT_SCAN),
    ],
)
def test_factor_by_hand(tracer, changes, expected):
    assert suv_factor(pet(tracer, **changes), FILE) == pytest.approx(expected, rel=1e-12)


def test_philips_counts():
    dataset = pet(Units="CNTS")
    block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x09, "DS", "2.5")
    assert suv_factor(dataset, FILE) == pytest.approx(2.5 * AT_SCAN)
    block.add_new(0x00, "DS", "0.00071")
    assert suv_factor(dataset, FILE) == 0.00071


def test_later_processing_does_not_move_the_scan():
    # a series time after the acquisition is of a reconstruction; GE notes the scan time on its own
    dataset = pet(SeriesTime="150000")
    assert suv_factor(dataset, FILE) == pytest.approx(AT_SCAN)
    block = dataset.private_block(0x0009, "GEMS_PETD_01", create=True)
    block.add_new(0x0D, "DT", "20200102104500.00")
    assert suv_factor(dataset, FILE) == pytest.approx(80000 / (1e8 * 2**-0.75))


def test_siemens_reference_time():
    # the slice was acquired at 11:10; its activity is stated for 600 s before the time when the mean count rate of
    # the frame occurs, which for a frame much shorter than the half-life is its middle
    dataset = pet(
        SeriesTime="150000", AcquisitionTime="111000", FrameReferenceTime=610000.0, ActualFrameDuration=20000
    )
    start = scan_start(dataset, 3600.0)
    assert start is not None
    assert abs(start - datetime(2020, 1, 2, 11, 0, 0)) < timedelta(seconds=0.02)


def test_series_time_counts_when_the_first_slice_began_then():
    # beds follow each other: a later slice does not make an earlier series time a processing time
    dataset = pet(AcquisitionTime="111500")
    assert scan_start(dataset, 3600.0, datetime(2020, 1, 2, 11, 0, 0)) == datetime(2020, 1, 2, 11, 0, 0)


def test_factors_of_a_series_use_its_first_acquisition(tmp_path):
    import numpy as np

    slices = make_slices(np.ones((3, 2, 2), np.int16), "PT", **pet_tags(SeriesTime="150000"))
    for k, dataset in enumerate(slices):
        dataset.AcquisitionTime = f"11{2 - k}000"
    files = sorted(save_all(slices, tmp_path).iterdir())
    assert suv_factors(files) == pytest.approx([AT_SCAN] * 3)


@given(st.floats(0, 6 * 3600), st.floats(600, 50000))
def test_factor_grows_with_the_decay(waited, half_life):
    scan = datetime(2020, 1, 2, 6, 0, 0) + timedelta(seconds=waited)
    dataset = pet(
        {"RadiopharmaceuticalStartTime": "060000", "RadionuclideHalfLife": half_life},
        SeriesTime=scan.strftime("%H%M%S.%f"),
        AcquisitionTime=scan.strftime("%H%M%S.%f"),
    )
    expected = AT_INJECTION * math.exp(math.log(2) * waited / float(f"{half_life}"))
    assert suv_factor(dataset, FILE) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("tracer", "changes", "message"),
    [
        ({}, {"Units": "PROPCPS"}, "expected BQML, GML, or CNTS of Philips; found units 'PROPCPS'"),
        ({}, {"Units": "CNTS"}, "counts without the factor"),
        ({}, {"Units": "GML", "SUVType": "LBM"}, "SUV normalised by LBM"),
        ({}, {"CorrectedImage": ["DECY"]}, "no correction for attenuation"),
        ({}, {"CorrectedImage": ["ATTN"]}, "no correction for decay"),
        ({}, {"DecayCorrection": "NONE"}, "DecayCorrection 'NONE'"),
        ({}, {"PatientWeight": None}, "PatientWeight missing"),
        ({}, {"PatientWeight": 0.0}, "PatientWeight 0"),
        ({}, {"PatientWeight": 80000.0}, "expected kilograms"),
        ({"RadionuclideTotalDose": None}, {}, "RadionuclideTotalDose missing"),
        ({"RadionuclideHalfLife": None}, {}, "RadionuclideHalfLife missing"),
        ({"RadiopharmaceuticalStartTime": ""}, {}, "no RadiopharmaceuticalStartTime"),
        ({}, {"RadiopharmaceuticalInformationSequence": []}, "no RadiopharmaceuticalInformationSequence"),
        ({}, {"SeriesTime": "", "AcquisitionTime": ""}, "no time of the scan"),
    ],
)
def test_what_cannot_be_computed_is_refused(tracer, changes, message):
    with pytest.raises(UserError, match=f"pet.dcm: SUV cannot be computed.*{message}"):
        suv_factor(pet(tracer, **changes), FILE)
