"""Nothing half-written survives, whatever goes wrong inside the block."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from killed_writer import killed_writer

from nndet_psma.core import atomic
from nndet_psma.core.atomic import (
    atomic_file,
    atomic_folder,
    read_json,
    remove_leftovers,
    scratch_folder,
    temporary_beside,
    write_json,
    write_text,
)
from nndet_psma.core.errors import UserError


def _names(folder):
    return sorted(child.name for child in folder.iterdir())


def test_file_is_replaced(tmp_path):
    target = tmp_path / "new" / "a.txt"
    write_text(target, "old")
    write_text(target, "now")
    assert target.read_text() == "now"
    assert _names(target.parent) == ["a.txt"]


def test_temporary_keeps_the_suffixes(tmp_path):
    with atomic_file(tmp_path / "ct.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path
        temporary.write_text("x")


def test_crash_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_file(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError("crash")
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_crash_leaves_the_old_folder(tmp_path):
    target = tmp_path / "case"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(KeyError), atomic_folder(target) as temporary:  # noqa: PT012
        (temporary / "half.txt").write_text("half")
        raise KeyError("crash")
    assert _names(target) == ["old.txt"]
    assert _names(tmp_path) == ["case"]


def test_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "case"
    for name in ("first", "second"):
        with atomic_folder(target) as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / name).write_text(name)
    assert _names(target / "deep") == ["second"]
    assert _names(tmp_path) == ["case"]


def test_folder_comes_back_when_the_second_rename_fails(tmp_path, monkeypatch):
    target = tmp_path / "case"
    target.mkdir()
    (target / "old.txt").write_text("old")
    replace = type(target).replace

    def failing(self, to):
        if self.name.startswith(".tmp-"):
            raise OSError(errno.EIO, "input/output error")
        return replace(self, to)

    monkeypatch.setattr(type(target), "replace", failing)
    with pytest.raises(OSError, match="input/output error"), atomic_folder(target) as temporary:
        (temporary / "new.txt").write_text("new")
    assert _names(target) == ["old.txt"]
    assert _names(tmp_path) == ["case"]


def _fail(code):
    def failing(*_, **__):
        raise OSError(code, os.strerror(code))

    return failing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_on_flush(tmp_path, monkeypatch, code):
    target = tmp_path / "a.json"
    target.write_text("old")
    monkeypatch.setattr(atomic.os, "fsync", _fail(code))
    with pytest.raises(UserError, match=r"a\.json: the disk is full\. Free space and start"):
        write_json(target, {"a": 1})
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["a.json"]


def test_full_disk_while_writing_a_folder(tmp_path):
    with pytest.raises(UserError, match="case: the disk is full"), atomic_folder(tmp_path / "case") as folder:  # noqa: PT012
        (folder / "a").write_text("a")
        _fail(errno.ENOSPC)()
    assert _names(tmp_path) == []


@pytest.mark.parametrize("context", [atomic_file, atomic_folder])
def test_folder_without_permission(tmp_path, monkeypatch, context):
    monkeypatch.setattr("pathlib.Path.mkdir", _fail(errno.EACCES))
    with pytest.raises(
        UserError, match=r"cannot be written; found Permission denied\. Check its permissions"
    ):
        context(tmp_path / "sub" / "a").__enter__()


def test_other_trouble_keeps_its_type(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.os, "fsync", _fail(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_text(tmp_path / "a", "a")


def test_json_round_trip(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"b": [1, None, "µ"]})
    assert read_json(file) == {"b": [1, None, "µ"]}
    assert file.read_text().endswith("}\n")


def test_json_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text('{"a": "\u00b5"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": "\u00b5"}


def test_json_too_deep_to_read(tmp_path):
    (tmp_path / "a.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "a.json")


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert _names(tmp_path) == []


def test_reading_names_file_and_place(tmp_path):
    file = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json: file does not exist"):
        read_json(file)
    file.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(UserError, match=r"a\.json: not valid JSON \(.*line 2 column 6"):
        read_json(file)
    file.write_bytes(b'"\xff"')
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(file)


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".tmp-12345678-case").mkdir()
    (tmp_path / ".tmp-12345678-case" / "a.npy").write_text("half")
    (tmp_path / ".tmp-87654321-a.json").write_text("half")
    (tmp_path / ".old-12345678-case").mkdir()
    (tmp_path / "case").mkdir()
    (tmp_path / ".keep").write_text("")
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == [".keep", "case"]
    remove_leftovers(tmp_path / "absent")


def _living_writer():
    """The tag of this process."""
    return temporary_beside(Path("x")).name.removeprefix(".tmp-").removesuffix("-x")


def _of_another_machine(tag):
    return f"{(int(tag[:2], 16) + 1) % 256:02x}{tag[2:]}"


def test_what_others_write_is_left_alone(tmp_path):
    living, dead = _living_writer(), killed_writer()
    away = _of_another_machine(dead)
    kept = [
        ".tmp-of-another-program",
        f".tmp-{living}-a",
        f".tmp-{away}-a",
        f".old-{living}-b",
        f".old-{away}-c",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    gone = [f".tmp-{dead}-a", f".tmp-{dead}-folder", f".old-{dead}-d"]
    for name in gone:
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == sorted([*kept, "d"])


@pytest.mark.parametrize(("hours", "there"), [(23, True), (25, False)])
def test_what_nobody_wrote_to_for_a_day_has_no_owner(tmp_path, hours, there):
    leftover = tmp_path / f".tmp-{_of_another_machine(killed_writer())}-a"
    leftover.mkdir()
    (leftover / "file").write_text("half")
    before = time.time() - 3600 * hours
    os.utime(leftover / "file", (before, before))
    os.utime(leftover, (before, before))
    remove_leftovers(tmp_path)
    assert leftover.exists() is there


def test_only_what_was_to_become_one_file(tmp_path):
    dead = killed_writer()
    for name in ("a.zip", "b.zip", "[ab].zip"):
        (tmp_path / f".tmp-{dead}-{name}").write_text("half")
    remove_leftovers(tmp_path, "[ab].zip")
    assert _names(tmp_path) == [f".tmp-{dead}-a.zip", f".tmp-{dead}-b.zip"]


def test_scratch_folder_is_gone_afterwards(tmp_path):
    with pytest.raises(KeyError), scratch_folder(tmp_path / "new" / "a.zip") as folder:  # noqa: PT012
        (folder / "x").write_text("x")
        assert folder.parent == tmp_path / "new"
        raise KeyError
    assert _names(tmp_path / "new") == []


def test_written_json_is_readable_by_others(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_folder_moved_aside_by_a_killed_run_is_put_back(tmp_path):
    (tmp_path / ".old-12345678-case-1").mkdir()
    (tmp_path / ".old-12345678-case-1" / "old.txt").write_text("old")
    (tmp_path / ".tmp-87654321-case-1").mkdir()
    remove_leftovers(tmp_path)
    assert _names(tmp_path) == ["case-1"]
    assert (tmp_path / "case-1" / "old.txt").read_text() == "old"


def test_lists_of_numbers_stand_on_one_line_and_read_back_equal(tmp_path):
    content = {"a": [1, -2.5, 1e-7], "b": [[1, 2], ["x\n", None]], "c": [], "d": "[\n1,\n2]"}
    write_json(tmp_path / "a.json", content)
    assert '"a": [1, -2.5, 1e-07],' in (tmp_path / "a.json").read_text()
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("name", ["x" * 251 + ".csv", "é" * 125 + ".csv"])
def test_names_as_long_as_the_file_system_allows(tmp_path, name):
    """255 and 254 bytes: the temporary name beside them is no longer, and keeps the suffix."""
    with atomic_file(tmp_path / name) as temporary:
        temporary.write_text("now")
        assert temporary.name.startswith(".tmp-")
        assert temporary.name.endswith(".csv")
    with atomic_folder(tmp_path / name[:-4]) as folder:
        (folder / "a").write_text("now")
    assert _names(tmp_path) == sorted([name, name[:-4]])
    with pytest.raises(UserError, match="too long"):
        write_text(tmp_path / f"{name}{name}", "now")
    assert _names(tmp_path) == sorted([name, name[:-4]])
