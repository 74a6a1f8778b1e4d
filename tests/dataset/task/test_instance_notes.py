"""Stations and unknown classes beside the classes of instances."""

import json

import pytest

from nndet_psma.core.errors import UserError
from nndet_psma.dataset.task.cases import RawCase
from nndet_psma.dataset.task.instance_notes import read_measured, read_stations, read_unknown


def case_with(tmp_path, content):
    file = tmp_path / "case.json"
    file.write_text(json.dumps(content))
    return RawCase("case", (), None, file)


def test_what_is_there_is_read(tmp_path):
    case = case_with(
        tmp_path, {"instances": {"1": 0, "3": 0}, "stations": {"1": " left iliac "}, "status": {"3": None}}
    )
    assert read_stations(case) == {1: "left iliac"}
    assert read_unknown(case) == {3}


def test_what_is_not_there_is_told_apart(tmp_path):
    case = case_with(tmp_path, {"instances": {"1": 0}})
    assert read_stations(case) is None
    assert read_unknown(case) == set()
    assert read_stations(RawCase("case", ())) is None


def test_a_status_that_is_known_belongs_elsewhere(tmp_path):
    with pytest.raises(UserError, match=r"status of instance 2 is not null.*into 'instances'"):
        read_unknown(case_with(tmp_path, {"status": {"2": 1}}))


def test_no_mapping_is_refused(tmp_path):
    with pytest.raises(UserError, match="stations are no mapping"):
        read_stations(case_with(tmp_path, {"stations": ["iliac"]}))


def test_measured_by_instance_and_name(tmp_path):
    content = {"instances": {"1": 0, "2": 0}, "measured": {"score": {"1": 0.5, "2": 1}, "age": {"2": 3.5}}}
    assert read_measured(case_with(tmp_path, content)) == {1: {"score": 0.5}, 2: {"score": 1.0, "age": 3.5}}
    assert read_measured(case_with(tmp_path, {"instances": {}})) == {}


@pytest.mark.parametrize(
    "measured", [[1], {"score": 0.5}, {"score": {"1": "0.5"}}, {"score": {"one": 1}}, {"score": {"1": True}}]
)
def test_measured_values_are_numbers(tmp_path, measured):
    with pytest.raises(UserError, match=r"'measured' holds no numbers.*detector_score"):
        read_measured(case_with(tmp_path, {"instances": {}, "measured": measured}))
