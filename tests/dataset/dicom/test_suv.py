"""SUV by hand: 100 MBq of F-18 at 09:10:13.8, scan one half-life (6586.2 s) later at 11:00, 80 kg."""

import copy
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from dicom_samples import make_slices, new_dataset, pet_tags, save_all
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.dicom.nuclides import HALF_LIVES_S, named_nuclides, nuclide_with
from nndet_psma.dataset.dicom.suv import SuvGiven, check_given, factors_of, suv_factors, waited_since
from nndet_psma.dataset.dicom.times import scan_start

FILE = Path("pet.dcm")
HALF_LIFE = 6586.2
AT_SCAN = 80000 / 50e6  # half of the dose is left
AT_INJECTION = 80000 / 100e6
START, FULL = "RadiopharmaceuticalStartTime", "RadiopharmaceuticalStartDateTime"
ZR89 = 282240.0
CU64 = 45723.6


def pet(tracer: dict | None = None, **changes):
    dataset = new_dataset("PT", **pet_tags(**changes))
    for name, value in (tracer or {}).items():
        setattr(dataset.RadiopharmaceuticalInformationSequence[0], name, value)
    return dataset


def factor(dataset, given=None):
    [found] = factors_of([dataset], [FILE], given or SuvGiven())
    return found


def private(dataset, group, creator, **elements):
    block = dataset.private_block(group, creator, create=True)
    for element, (vr, value) in elements.items():
        block.add_new(int(element[1:], 16), vr, value)
    return dataset


@pytest.mark.parametrize(
    ("tracer", "changes", "expected"),
    [
        ({}, {}, AT_SCAN),
        ({}, {"DecayCorrection": "ADMIN"}, AT_INJECTION),
        ({}, {"Units": "GML"}, 1.0),
        ({}, {"Units": "GML", "SUVType": "BW"}, 1.0),
        ({}, {"Units": "GML", "CorrectedImage": None}, 1.0),  # by a workstation
        ({FULL: "20200102091013.80"}, {}, AT_SCAN),
        ({FULL: "20200102091013.80", START: ""}, {}, AT_SCAN),
        ({FULL: "20200102", START: "091013.80"}, {}, AT_SCAN),
        ({START: "09:10:13.8"}, {}, AT_SCAN),
        ({START: "0910"}, {}, AT_INJECTION * 2 ** (6600 / HALF_LIFE)),
        # injected an hour before midnight, scanned after
        ({START: "230000"}, {"SeriesTime": "004946.20", "AcquisitionTime": "004946.20"}, AT_SCAN),
        ({}, {"SeriesDate": "", "AcquisitionDate": ""}, AT_SCAN),
        ({}, {"SeriesTime": "", "AcquisitionTime": "", "AcquisitionDateTime": "20200102110000"}, AT_SCAN),
    ],
)
def test_factor_by_hand(tracer, changes, expected):
    assert factor(pet(tracer, **changes)) == pytest.approx(expected, rel=1e-9)


# ----- dates and times


def test_injection_days_before_the_scan_decays_for_days():
    # Zr-89, 72 h: 2 ** (-259200 / 282240) = 0.52907 of 74 MBq is left, so 10 kBq/ml in 80 kg are SUV 20.43
    tracer = {"RadionuclideTotalDose": 74e6, "RadionuclideHalfLife": ZR89}
    dataset = pet({**tracer, START: "110000", FULL: "20191230110000"})
    assert 10000 * factor(dataset) == pytest.approx(20.43, abs=0.005)
    # Cu-64, 26 h: 2 ** (-93600 / 45723.6) = 0.24199
    dataset = pet({"RadionuclideHalfLife": CU64, START: "090000", FULL: "20200101090000"})
    assert factor(dataset) == pytest.approx(80000 / (0.24199 * 100e6), rel=1e-4)


def test_time_of_the_day_without_a_date_must_fit_one_day_only():
    with pytest.raises(
        UserError, match=r"StartTime \(0018,1072\) '090000' without a date.* on each of 4 days"
    ):
        factor(pet({"RadionuclideHalfLife": CU64, START: "090000"}))
    with pytest.raises(UserError, match=r"'19990101090000' without a date that fits.* on each of 20 days"):
        factor(pet({"RadionuclideHalfLife": ZR89, START: "", FULL: "19990101090000"}))


def test_a_date_shifted_by_a_de_identification_leaves_the_time_of_the_day():
    assert factor(pet({FULL: "19990101091013.80"})) == pytest.approx(AT_SCAN)
    assert factor(pet({FULL: "20210101091013.80"})) == pytest.approx(AT_SCAN)


def test_injection_after_the_scan_is_refused():
    # four minutes too late are not 23 h 56 min of the day before
    for tracer in ({START: "110400"}, {START: "", FULL: "20200102110400"}):
        with pytest.raises(
            UserError, match=r"pet.dcm: SUV cannot be computed.*'\d*110400', which is 4 min after the scan"
        ):
            factor(pet(tracer))
    with pytest.raises(UserError, match=r"'20200102200000', which is 9.0 h after the scan began"):
        factor(pet({START: "", FULL: "20200102200000"}))


def test_injection_too_many_half_lives_before_the_scan_is_refused():
    with pytest.raises(
        UserError,
        match=r"4.0 h after .*, or which is 20.0 h \(10.9 half-lives\) before it began.*--injected-at",
    ):
        factor(pet({START: "150000"}))
    with pytest.raises(UserError, match=r"12.0 h \(10.6 half-lives\) before it began"):
        factor(pet({"RadionuclideHalfLife": 4062.0, START: "230000"}))


def test_scan_across_midnight_without_dates_of_acquisition():
    # beds at 23:50 and 00:10; the series began at 23:50, injected 22:00:13.8 - one half-life before 23:50
    slices = [pet({START: "220013.80"}, SeriesTime="235000") for _ in range(6)]
    for k, dataset in enumerate(slices):
        del dataset.AcquisitionDate
        dataset.AcquisitionTime = "235000" if k < 3 else "001000"
    assert factors_of(slices, [FILE] * 6, SuvGiven()) == pytest.approx([AT_SCAN] * 6)
    # a reconstruction after midnight
    for dataset in slices:
        dataset.SeriesDate, dataset.SeriesTime = "20200103", "003000"
    assert factors_of(slices, [FILE] * 6, SuvGiven()) == pytest.approx([AT_SCAN] * 6)


@pytest.mark.parametrize(
    ("injected", "scanner", "local"),
    [
        ("20200102091013.80+0100", "", True),  # one clock for all, as the standard demands
        ("20200102091013.80+0100", "+0100", True),
        ("20200102081013.80+0000", "+0100", True),
        ("20200102151013.80+0100", "+0700", False),
        ("20200102031013.80-0500", "+0100", True),
        ("20200102091013.80", "-0800", True),
    ],
)
def test_offsets_from_utc_on_either_side(injected, scanner, local):
    dataset = pet({FULL: injected, START: ""}, TimezoneOffsetFromUTC=scanner)
    if local:
        assert factor(dataset) == pytest.approx(AT_SCAN)
    else:
        with pytest.raises(UserError, match="after the scan"):
            factor(dataset)


def test_times_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match=r"'20200102081013.80\+0000' and .*'091013.80', which contradict"):
        factor(pet({FULL: "20200102081013.80+0000"}))
    # rounding to minutes is no contradiction
    assert factor(pet({FULL: "20200102091000"})) == pytest.approx(AT_SCAN, rel=0.01)


@pytest.mark.parametrize(
    ("tracer", "changes", "message"),
    [
        ({START: "000000"}, {}, r"StartTime \(0018,1072\) '000000'"),
        ({START: "", FULL: "20200102000000"}, {}, r"StartTime \(0018,1072\) missing"),
        ({}, {"SeriesTime": "000000", "AcquisitionTime": "000000"}, r"SeriesTime \(0008,0031\) '000000'"),
        ({}, {"SeriesTime": "", "AcquisitionTime": ""}, r"SeriesTime \(0008,0031\) missing"),
        ({START: "9 Uhr"}, {}, r"StartTime \(0018,1072\) '9 Uhr'"),
        ({START: "256000"}, {}, "'256000'"),
        ({}, {"SeriesTime": "NA"}, r"SeriesTime \(0008,0031\) 'NA'"),
        ({}, {"SeriesDate": "02.01.20"}, r"SeriesDate \(0008,0021\) '02.01.20'"),
        ({}, {"TimezoneOffsetFromUTC": "CET"}, "AT_SCAN"),
    ],
)
def test_times_blanked_or_unreadable(tracer, changes, message):
    dataset = pet(tracer, **changes)
    if message == "AT_SCAN":  # an offset that nothing is compared with
        assert factor(dataset) == pytest.approx(AT_SCAN)
        return
    with pytest.raises(UserError, match=message):
        factor(dataset)


def test_blanked_times_are_replaced_by_others_where_there_are_any():
    assert factor(pet(SeriesTime="000000")) == pytest.approx(AT_SCAN)
    assert factor(pet(AcquisitionTime="000000")) == pytest.approx(AT_SCAN)
    assert factor(pet({FULL: "20200102000000"})) == pytest.approx(AT_SCAN)
    assert factor(pet({START: "000000", FULL: "20200102091013.80"})) == pytest.approx(AT_SCAN)


# ----- vendors


def test_philips_counts():
    dataset = private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", _09=("DS", "2.5"))
    assert factor(dataset) == pytest.approx(2.5 * AT_SCAN)
    private(dataset, 0x7053, "Philips PET Private Group", _00=("DS", "0"))
    assert factor(dataset) == pytest.approx(2.5 * AT_SCAN)
    private(dataset, 0x7053, "Philips PET Private Group", _00=("DS", "0.00071"))
    assert factor(dataset) == 0.00071
    dataset.RadiopharmaceuticalInformationSequence = []  # its own factor needs no dose
    assert factor(dataset) == 0.00071
    private(dataset, 0x7053, "Philips PET Private Group", _00=("LO", "0,00071"))
    with pytest.raises(UserError, match=r"Philips PET Private Group \(7053,1000\) '0,00071'"):
        factor(dataset)


def test_philips_factor_of_an_uncorrected_pet_is_refused():
    dataset = pet(Units="CNTS", CorrectedImage=["DECY", "RAN"])
    with pytest.raises(UserError, match=r"CorrectedImage \(0028,0051\) 'DECY\\\\RAN'"):
        factor(private(dataset, 0x7053, "Philips PET Private Group", _00=("DS", "0.00071")))


def test_ge_notes_the_scan_time_on_its_own():
    # a series time after the acquisition is of a reconstruction
    dataset = pet(SeriesTime="150000", Manufacturer="GE MEDICAL SYSTEMS")
    assert factor(dataset) == pytest.approx(AT_SCAN)
    private(dataset, 0x0009, "GEMS_PETD_01", _0D=("DT", "20200102104500.00"))
    expected = 80000 / (1e8 * 2 ** -((HALF_LIFE - 900) / HALF_LIFE))
    assert factor(dataset) == pytest.approx(expected)
    # also when the series was created before the scan began
    dataset.SeriesTime = "103000"
    assert factor(dataset) == pytest.approx(expected)
    # and when the dates were shifted, but not those in private attributes
    private(dataset, 0x0009, "GEMS_PETD_01", _0D=("DT", "20150717104500.00"))
    assert factor(dataset) == pytest.approx(expected)
    # a note of later than the acquisition is none of the scan
    private(dataset, 0x0009, "GEMS_PETD_01", _0D=("DT", "20200102120000.00"))
    dataset.SeriesTime = "110000"
    assert factor(dataset) == pytest.approx(AT_SCAN)


def test_ge_frames_begin_at_their_reference_time():
    # without its private attributes: acquired at 11:10, 600 s after the scan began
    tags = {"SeriesTime": "150000", "AcquisitionTime": "111000", "Manufacturer": "GE MEDICAL SYSTEMS"}
    dataset = pet(**tags, FrameReferenceTime=600000.0, ActualFrameDuration=240000)
    assert factor(dataset) == pytest.approx(AT_SCAN)


def test_siemens_notes_the_time_of_its_decay_correction():
    dataset = pet(SeriesTime="150000", AcquisitionTime="111000", Manufacturer="SIEMENS")
    private(dataset, 0x0071, "SIEMENS MED PT", _22=("DT", "20200102110000.000000"))
    assert factor(dataset) == pytest.approx(AT_SCAN)


def test_siemens_reference_time():
    # the slice was acquired at 11:10; its activity is stated for 600 s before the time when the mean count rate of
    # the frame occurs, which for a frame much shorter than the half-life is its middle
    tags = {"SeriesTime": "150000", "AcquisitionTime": "111000", "ActualFrameDuration": 20000}
    start = scan_start([pet(**tags, FrameReferenceTime=610000.0)], HALF_LIFE)
    assert abs(start - datetime(2020, 1, 2, 11, 0, 0)) < timedelta(seconds=0.02)


def test_frames_that_disagree_leave_the_first_acquisition():
    slices = [
        pet(SeriesTime="150000", AcquisitionTime="110000", FrameReferenceTime=t, ActualFrameDuration=240000)
        for t in (120000.0, 1215000.0)
    ]
    assert scan_start(slices, HALF_LIFE) == datetime(2020, 1, 2, 11, 0, 0)


def test_series_time_counts_when_the_first_slice_began_then():
    # beds follow each other: a later slice does not make an earlier series time a processing time
    slices = [pet(), pet(AcquisitionTime="111500")]
    assert factors_of(slices, [FILE] * 2, SuvGiven()) == pytest.approx([AT_SCAN] * 2)


def test_factors_of_a_series_use_its_first_acquisition(tmp_path):
    slices = make_slices(np.ones((3, 2, 2), np.int16), "PT", **pet_tags(SeriesTime="150000"))
    for k, dataset in enumerate(slices):
        dataset.AcquisitionTime = f"11{2 - k}000"
    files = sorted(save_all(slices, tmp_path).iterdir())
    assert suv_factors(files) == pytest.approx([AT_SCAN] * 3)


@pytest.mark.parametrize(
    ("tracer", "changes", "message"),
    [
        ({}, {"PatientWeight": 90.0}, r"PatientWeight \(0010,1030\) '90.0', which is another one in a"),
        ({}, {"Units": "GML"}, r"Units \(0054,1001\) 'GML', which is another one in a"),
        ({"RadionuclideTotalDose": 9e8}, {}, r"RadiopharmaceuticalInformationSequence \(0054,0016\), which"),
    ],
)
def test_slices_that_contradict_each_other_are_refused(tracer, changes, message):
    files = [FILE.with_name("a"), FILE.with_name("b")]
    with pytest.raises(UserError, match=f"b: SUV cannot be computed.*found {message}"):
        factors_of([pet(), pet(tracer, **changes)], files, SuvGiven())


@pytest.mark.parametrize("value", ["1e30", "1e-30", "-1", "nan"])
def test_implausible_factors_of_philips_are_refused(value):
    dataset = private(pet(Units="CNTS"), 0x7053, "Philips PET Private Group", _09=("LO", value))
    with pytest.raises(
        UserError, match=rf"expected 1e-09 to 1e\+06; found Philips .*\(7053,1009\) '{value}'"
    ):
        factor(dataset)


def test_implausible_frame_times_are_refused():
    dataset = pet(SeriesTime="150000", FrameReferenceTime=1e30, ActualFrameDuration=240000)
    with pytest.raises(UserError, match=r"FrameReferenceTime \(0054,1300\) '1e\+30'"):
        factor(dataset)


@given(st.sampled_from(sorted(HALF_LIVES_S)), st.floats(0, 5.9))
def test_factor_grows_with_the_decay(nuclide, half_lives):
    half_life = round(HALF_LIVES_S[nuclide], 1)
    scan = datetime(2020, 6, 2, 11, 0, 0)
    given_at = scan - timedelta(seconds=min(half_lives * half_life, 3e8))
    tracer = {
        START: "",
        FULL: given_at.strftime("%Y%m%d%H%M%S.%f"),
        "RadionuclideHalfLife": half_life,
        "Radiopharmaceutical": nuclide,
    }
    if (given_at.hour, given_at.minute, given_at.second, given_at.microsecond) == (0, 0, 0, 0):
        return
    expected = AT_INJECTION * math.exp(math.log(2) * (scan - given_at).total_seconds() / half_life)
    dates = {"SeriesDate": "20200602", "AcquisitionDate": "20200602"}
    assert factor(pet(tracer, **dates)) == pytest.approx(expected, rel=1e-6)


# ----- plausibility


@pytest.mark.parametrize(
    ("tracer", "changes", "message"),
    [
        (
            {},
            {"Units": "PROPCPS"},
            r"expected BQML, GML, or CNTS of Philips; found Units \(0054,1001\) 'PROPCPS'",
        ),
        ({}, {"Units": ""}, r"found Units \(0054,1001\) missing"),
        ({}, {"Units": "CNTS"}, "counts without the factors"),
        ({}, {"Units": "GML", "SUVType": "LBM"}, r"SUVType \(0054,1006\) 'LBM'"),
        ({}, {"Units": "GML", "CorrectedImage": ["DECY"]}, r"CorrectedImage \(0028,0051\) 'DECY'"),
        ({}, {"CorrectedImage": ["DECY"]}, r"attenuation.*CorrectedImage \(0028,0051\) 'DECY'"),
        ({}, {"CorrectedImage": ["ATTN"]}, r"decay.*CorrectedImage \(0028,0051\) 'ATTN'"),
        ({}, {"CorrectedImage": None}, r"CorrectedImage \(0028,0051\) missing"),
        ({}, {"DecayCorrection": "NONE"}, r"START or ADMIN; found DecayCorrection \(0054,1102\) 'NONE'"),
        (
            {},
            {"PatientWeight": None},
            r"1 to 500 kg; found PatientWeight \(0010,1030\) missing.*--weight in kg",
        ),
        ({}, {"PatientWeight": 0.0}, r"PatientWeight \(0010,1030\) '0.0'"),
        ({}, {"PatientWeight": 0.08}, r"PatientWeight \(0010,1030\) '0.08'"),
        ({}, {"PatientWeight": 80000.0}, r"PatientWeight \(0010,1030\) '80000.0'"),
        ({"RadionuclideTotalDose": None}, {}, r"RadionuclideTotalDose \(0018,1074\) missing.*--dose in MBq"),
        (
            {"RadionuclideTotalDose": 100.0},
            {},
            r"1e\+06 to 1e\+10 Bq; found RadionuclideTotalDose .* '100.0'",
        ),
        ({"RadionuclideTotalDose": 1e5}, {}, r"RadionuclideTotalDose \(0018,1074\) '100000.0'"),
        ({"RadionuclideTotalDose": 2e10}, {}, r"RadionuclideTotalDose \(0018,1074\) '20000000000.0'"),
        ({"RadionuclideTotalDose": -1e8}, {}, r"'-100000000.0'"),
        ({"RadionuclideHalfLife": None}, {}, r"RadionuclideHalfLife \(0018,1075\) missing"),
        ({"RadionuclideHalfLife": 109.77}, {}, r"known radionuclide .* within 2 %; found .* '109.77'"),
        ({"RadionuclideHalfLife": 6800.0}, {}, r"RadionuclideHalfLife \(0018,1075\) '6800.0'"),
        ({"Radiopharmaceutical": "68Ga-PSMA-11"}, {}, r"4068 s, the half-life of Ga-68, .* '6586.2'"),
        ({START: ""}, {}, r"RadiopharmaceuticalStartTime \(0018,1072\) missing.*--injected-at"),
        ({}, {"RadiopharmaceuticalInformationSequence": []}, r"InformationSequence \(0054,0016\) missing"),
    ],
)
def test_what_cannot_be_computed_is_refused(tracer, changes, message):
    with pytest.raises(UserError, match=f"pet.dcm: SUV cannot be computed.*{message}") as caught:
        factor(pet(tracer, **changes))
    assert "--suv-factor" in str(caught.value)


def test_decimal_commas_are_refused_and_not_read_as_thousands(tmp_path):
    slices = make_slices(np.ones((2, 2, 2), np.int16), "PT", **pet_tags(PatientWeight="80.5"))
    files = sorted(save_all(slices, tmp_path).iterdir())
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"80.5", b"80,5"))
    with pytest.raises(
        UserError, match=r"1 to 500 kg; found PatientWeight \(0010,1030\) '80,5'.*--weight in kg"
    ):
        suv_factors(files)
    assert suv_factors(files, SuvGiven(weight_kg=80.0)) == pytest.approx([AT_SCAN] * 2)


def code(meaning):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "C-1", "SRT", meaning
    return Sequence([item])


def test_half_life_must_be_that_of_the_radionuclide_named():
    assert factor(pet({"RadionuclideCodeSequence": code("^18^Fluorine")})) == pytest.approx(AT_SCAN)
    with pytest.raises(UserError, match=r"half-life of Ga-68"):
        factor(pet({"RadionuclideCodeSequence": code("^68^Gallium")}))
    mixed = {"RadionuclideCodeSequence": code("^18^Fluorine"), "Radiopharmaceutical": "[68Ga]PSMA-11"}
    with pytest.raises(UserError, match=r"one radionuclide; found a tracer of F-18 and Ga-68"):
        factor(pet(mixed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("18F", {"F-18"}),
        ("^18^Fluorine", {"F-18"}),
        ("Fluorodeoxyglucose F^18^", {"F-18"}),
        ("[18F]PSMA-1007", {"F-18"}),
        ("Ga68-PSMA-11", {"Ga-68"}),
        ("64Cu-SAR-bisPSMA", {"Cu-64"}),
        ("^94m^Technetium", {"Tc-94m"}),
        ("PSMA-11 copper", set()),
        ("FDG -- fluorodeoxyglucose", set()),
        ("Solution", set()),
    ],
)
def test_names_of_radionuclides(text, expected):
    assert named_nuclides([text]) == expected


def test_half_lives_as_vendors_write_them_are_known():
    written = {"F-18": (6586.2, 6588.0, 6584.0), "Ga-68": (4057.74, 4080.0, 4062.6), "Zr-89": (282240.0,)}
    written |= {"Cu-64": (45720.0,), "C-11": (1223.4, 1224.0), "Rb-82": (75.0, 76.4), "I-124": (361152.0,)}
    for nuclide, values in written.items():
        assert {nuclide_with(value) for value in values} == {nuclide}
    assert nuclide_with(109.77) is None
    assert nuclide_with(67.8) is None


def test_several_radiopharmaceutical_items():
    dataset = pet()
    first = dataset.RadiopharmaceuticalInformationSequence[0]
    empty, other = Dataset(), copy.deepcopy(first)
    dataset.RadiopharmaceuticalInformationSequence = Sequence([empty, first, other])
    assert factor(dataset) == pytest.approx(AT_SCAN)  # one says nothing, two say the same
    other.RadionuclideTotalDose = 5e7
    with pytest.raises(UserError, match=r"one tracer, injected once; found 2 different items.*--dose"):
        factor(dataset)
    assert factor(dataset, SuvGiven(dose_mbq=100, waited_s=HALF_LIFE)) == pytest.approx(AT_SCAN)
    other.RadionuclideHalfLife = 4062.0
    with pytest.raises(UserError, match="2 different items"):
        factor(dataset, SuvGiven(dose_mbq=100, waited_s=HALF_LIFE))


# ----- what the user states


@pytest.mark.parametrize(
    ("tracer", "changes", "stated"),
    [
        ({"RadionuclideTotalDose": 100.0}, {}, SuvGiven(dose_mbq=100)),
        ({}, {"PatientWeight": None}, SuvGiven(weight_kg=80)),
        ({START: "110400"}, {}, SuvGiven(waited_s=HALF_LIFE)),
        ({}, {"SeriesTime": "", "AcquisitionTime": ""}, SuvGiven(waited_s=HALF_LIFE)),
        ({}, {"Units": "PROPCPS"}, SuvGiven(factor=AT_SCAN)),
    ],
)
def test_what_the_user_states_counts(tmp_path, tracer, changes, stated):
    slices = make_slices(np.ones((1, 2, 2), np.int16), "PT", **pet_tags(**changes))
    for name, value in tracer.items():
        setattr(slices[0].RadiopharmaceuticalInformationSequence[0], name, value)
    files = list(save_all(slices, tmp_path).iterdir())
    with pytest.raises(UserError):
        suv_factors(files)
    assert suv_factors(files, stated) == pytest.approx([AT_SCAN])


def test_stated_times(tmp_path):
    slices = make_slices(np.ones((2, 2, 2), np.int16), "PT", **pet_tags())
    files = sorted(save_all(slices, tmp_path / "f18").iterdir())
    assert waited_since(files, "10:00") == 3600
    assert waited_since(files, "00:30:30") == 10.5 * 3600 - 30
    assert waited_since(files, "2020-01-02 10:30:00") == 1800
    for text, message in (
        ("11:04", "'11:04', which is 4 min after the scan began"),
        ("2020-01-01 10:00", r"'2020-01-01 10:00', which is 25.0 h \(13.7 half-lives\) before it began"),
        ("ten", "'ten', which is no time"),
    ):
        with pytest.raises(UserError, match=rf"--injected-at {message}"):
            waited_since(files, text)
    slices = make_slices(np.ones((1, 2, 2), np.int16), "PT", **pet_tags())
    slices[0].RadiopharmaceuticalInformationSequence[0].RadionuclideHalfLife = ZR89
    files = sorted(save_all(slices, tmp_path / "zr89").iterdir())
    assert waited_since(files, "2019-12-30 11:00") == 72 * 3600
    with pytest.raises(UserError, match="on each of 20 days"):
        waited_since(files, "10:00")


def test_stated_wait_must_be_plausible():
    with pytest.raises(UserError, match=r"an injection 20\.0 h before the scan was stated"):
        factor(pet(), SuvGiven(waited_s=72000))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (SuvGiven(dose_mbq=1e8), r"--dose is implausible; expected 1 to 10000 MBq; found 1e\+08"),
        (SuvGiven(weight_kg=0.08), "--weight is implausible; expected 1 to 500 kg; found 0.08"),
        (SuvGiven(factor=0.0), "--suv-factor is implausible"),
        (SuvGiven(factor=1e-3, dose_mbq=100), "--suv-factor takes the place of all else"),
    ],
)
def test_implausible_statements_are_refused(stated, message):
    with pytest.raises(UserError, match=message):
        check_given(stated)
