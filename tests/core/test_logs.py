"""Log files: appended to, closed afterwards, and they tell how a stage ended."""

from __future__ import annotations

import logging
import re

import pytest

from nndet_psma.core.logs import LOGGER, log_to


@pytest.fixture(autouse=True)
def _level():
    """Leave the level of the shared logger as it was."""
    before = LOGGER.level
    yield
    LOGGER.setLevel(before)


def test_messages_go_to_the_file_with_time_and_level(tmp_path):
    file = tmp_path / "new" / "folder" / "prep.log"  # folders are made
    with log_to(file):
        LOGGER.info("8 cases, %d lesions: μ", 9)
        LOGGER.debug("not wanted")
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO 8 cases, 9 lesions: μ", line)


def test_a_second_run_appends_and_nothing_is_written_outside_the_block(tmp_path):
    file = tmp_path / "train.log"
    with log_to(file):
        LOGGER.info("first")
    LOGGER.info("between")
    with log_to(file):
        LOGGER.warning("second")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO first", "WARNING second"]


def test_nested_logs_both_get_the_message(tmp_path):
    with log_to(tmp_path / "outer.log"):
        with log_to(tmp_path / "inner.log"):
            LOGGER.info("both")
        LOGGER.info("outer only")
    count = {name: len((tmp_path / name).read_text().splitlines()) for name in ("outer.log", "inner.log")}
    assert count == {"outer.log": 2, "inner.log": 1}


@pytest.mark.parametrize("error", [ValueError("bad plan"), KeyboardInterrupt("bad plan")])
def test_an_exception_is_logged_and_goes_on(error, tmp_path):
    file = tmp_path / "sweep.log"
    handlers = list(LOGGER.handlers)
    with pytest.raises(type(error), match="bad plan"), log_to(file):
        raise error
    assert f"ERROR stopped: {type(error).__name__}: bad plan" in file.read_text(encoding="utf-8")
    assert LOGGER.handlers == handlers  # the file is let go, so Windows and full disks do not keep it


def test_modules_of_the_package_write_to_it(tmp_path):
    file = tmp_path / "stage.log"
    with log_to(file):
        logging.getLogger("nndet_psma.stages.prep").info("from a child")
    assert file.read_text(encoding="utf-8").endswith("INFO from a child\n")


def test_paths_begin_at_the_folders_given(tmp_path):
    file = tmp_path / "doe" / "train.log"
    with pytest.raises(ValueError, match="doe"), log_to(file, tmp_path / "doe"):  # noqa: PT012
        LOGGER.info("weights in %s", tmp_path / "doe" / "fold0")
        raise ValueError(f"{tmp_path}/doe/x is bad")
    lines = [line.split(" ", 3)[3] for line in file.read_text().splitlines()]
    assert lines == ["weights in fold0", "stopped: ValueError: x is bad"]
