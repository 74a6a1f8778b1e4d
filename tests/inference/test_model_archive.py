"""Archives that mean harm, and archives that were hurt: all are refused before anything of theirs is used."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from hostile_models import with_valid_hashes
from tiny_place import MODEL, TASK

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.core.errors import UserError
from nndet_psma.inference import model_archive
from nndet_psma.inference.model_archive import MAX_RATIO, read_manifest, unpack_model
from nndet_psma.stages.export_model import ExportJob, export_model
from nndet_psma.systems.exchange import check_contents


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "model.zip"
    export_model(ExportJob(ModelFolder(trained.model), file))
    return file


def _members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _rewritten(whole: Path, target: Path, change) -> Path:
    """The archive with its members changed by ``change(members)``; keys may also be ZipInfo."""
    members: dict = _members(whole)
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def _refused(file: Path, tmp_path: Path, message: str) -> None:
    target = tmp_path / "out" / "model"
    with pytest.raises(UserError, match=message) as caught:
        unpack_model(file, target, check_contents)
    assert str(file) in str(caught.value)
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.zip", "out"}


def test_round_trip(whole, trained, tmp_path):
    manifest = unpack_model(whole, tmp_path / "model", check_contents)
    assert manifest == read_manifest(whole)
    assert (manifest.task, manifest.model, manifest.folds) == (TASK, MODEL, [0, 1])
    found = {str(p.relative_to(tmp_path / "model")) for p in (tmp_path / "model").rglob("*") if p.is_file()}
    assert found == {*manifest.files, "manifest.json"}
    for name in manifest.files:
        if name.endswith(".safetensors"):
            original = trained.model / "consolidated" / name
            from safetensors.torch import load_file

            ours, theirs = load_file(tmp_path / "model" / name), load_file(original)
            assert ours.keys() == theirs.keys()
            assert all((ours[key] == theirs[key]).all() for key in ours)


NAMES = [
    "../evil.json",
    "fold0/../../evil/model.safetensors",
    "/etc/cron.d/model.safetensors",
    "C:\\evil\\model.safetensors",
    "fold0\\wsi\\model.safetensors",
    "fold0/wsi/model.pt",
    "fold0/wsi/model.pkl",
    "fold0/wsi/extra/model.safetensors",
    "fold0/./model.safetensors",
    "fold0/ wsi/model.safetensors",
    "fold0/wsi\n/model.safetensors",
    "setup.py",
    "plan.json/",
    "__MACOSX/plan.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_model_has(whole, tmp_path, name):
    file = _rewritten(whole, tmp_path / "bad.zip", lambda members: members.update({name: b"x"}))
    _refused(file, tmp_path, "holds a file that no model has")


def test_name_cut_by_a_nul(whole, tmp_path):
    """zipfile shows "plan2.json"; other readers may see what stands behind the NUL."""
    file = _rewritten(whole, tmp_path / "bad.zip", lambda members: members.update({"fold0/QQQQ": b"x"}))
    file.write_bytes(file.read_bytes().replace(b"fold0/QQQQ", b"fold0/QQ\0Q"))
    _refused(file, tmp_path, "holds a file that no model has|is no zip, or a damaged one")


def test_links_and_special_files(whole, tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR):

        def change(members, kind=kind):
            info = zipfile.ZipInfo("plan.json")
            info.create_system, info.external_attr = 3, (kind | 0o777) << 16
            members.pop("plan.json")
            members[info] = b"/etc/passwd"

        _refused(_rewritten(whole, tmp_path / "bad.zip", change), tmp_path, "holds a link or a special file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(whole, tmp_path):
    def again(members):
        members[zipfile.ZipInfo("plan.json")] = members["plan.json"]

    _refused(_rewritten(whole, tmp_path / "bad.zip", again), tmp_path, "names a file twice; found plan.json")


def test_names_that_differ_by_case_only(whole, tmp_path):
    def colliding(members):
        name = next(name for name in members if name.endswith(".safetensors"))
        folder = name.split("/")[1]
        members[name.replace(folder, folder.upper())] = members[name]

    _refused(_rewritten(whole, tmp_path / "bad.zip", colliding), tmp_path, "names a file twice")


def test_bomb(whole, tmp_path):
    """100 MB of zeros deflate to 0.1 MB: a thousand times."""

    def grown(members):
        info = zipfile.ZipInfo("fold0/wsi/model.safetensors")
        info.compress_type = zipfile.ZIP_DEFLATED
        members.pop(info.filename)
        members[info] = bytes(100 << 20)

    assert MAX_RATIO < 1000
    _refused(_rewritten(whole, tmp_path / "bad.zip", grown), tmp_path, "holds a file that grows too large")


def test_size_that_lies(whole, tmp_path):
    """The directory says 10 bytes, the data are longer: no more than announced is ever written."""
    file = _rewritten(whole, tmp_path / "bad.zip", lambda members: None)
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("plan.json")
    place = content.rindex(b"plan.json") - 46  # of its entry in the central directory
    assert content[place : place + 4] == b"PK\x01\x02"
    assert int.from_bytes(content[place + 24 : place + 28], "little") == info.file_size
    content[place + 24 : place + 28] = (10).to_bytes(4, "little")
    file.write_bytes(bytes(content))
    _refused(file, tmp_path, "differs from its hash|is no zip, or a damaged one")


def test_limits(whole, tmp_path, monkeypatch):
    shutil.copy(whole, tmp_path / "bad.zip")
    for name, value, message in (
        ("MAX_FILES", 3, "holds too many files"),
        ("MAX_JSON_BYTES", 100, "holds a file that grows too large"),
        ("MAX_WEIGHT_BYTES", 1000, "holds a file that grows too large"),
        ("MAX_TOTAL_BYTES", 10_000, "is too large when unpacked"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(model_archive, name, value)
            _refused(tmp_path / "bad.zip", tmp_path, message)


def test_overlapping_members(whole):
    """Members that together are longer than the archive share their bytes: a small file that unpacks without end."""
    with zipfile.ZipFile(whole) as archive:
        members = archive.infolist()
        for info in members:
            info.compress_size = whole.stat().st_size
        with pytest.raises(UserError, match="holds files that overlap"):
            model_archive._checked_members(archive, whole)


def test_a_flipped_byte_anywhere_is_found(whole, tmp_path):
    content = whole.read_bytes()
    for position in range(0, len(content), len(content) // 30):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        (tmp_path / "bad.zip").write_bytes(bytes(damaged))
        try:
            unpack_model(tmp_path / "bad.zip", tmp_path / "model", check_contents)
        except UserError:
            assert not (tmp_path / "model").exists()
        else:
            # a bit that carries nothing (a time, a mode): the very same model
            assert (tmp_path / "model/plan.json").read_bytes() == _members(whole)["plan.json"]
            shutil.rmtree(tmp_path / "model")


@pytest.mark.parametrize("keep", [0, 10, 1000, -1, -30])
def test_cut_off(whole, tmp_path, keep):
    (tmp_path / "bad.zip").write_bytes(whole.read_bytes()[:keep])
    _refused(tmp_path / "bad.zip", tmp_path, "is no zip, or a damaged one")


def _json_changed(name, **changes):
    def change(members):
        content = json.loads(members[name])
        content.pop("checksum", None)
        members[name] = json.dumps({**content, **changes}).encode()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("plan.json"), "is no model archive; found no plan.json"),
        (lambda members: members.pop("manifest.json"), "no manifest.json"),
        (lambda members: members.update({"manifest.json": b"{"}), "manifest that is not JSON"),
        (lambda members: members.update({"manifest.json": b"[" * 200_000}), "nested too deeply|not JSON"),
        (lambda members: members.update({"plan.json": members["plan.json"] + b" "}), "differs from its hash"),
        (_json_changed("manifest.json", version=99), "written by another release"),
        (_json_changed("manifest.json", schema="other"), "written by another release"),
        (_json_changed("manifest.json", task="../../etc"), "is no task name"),
        (_json_changed("manifest.json", model="a/b"), "is no model name"),
        (_json_changed("manifest.json", files={}), "does not hold what its manifest says"),
        (_json_changed("manifest.json", code="import os"), "unknown key"),
    ],
)
def test_contents_that_do_not_fit(whole, tmp_path, change, message):
    file = _rewritten(whole, tmp_path / "bad.zip", change)
    target = tmp_path / "model"
    with pytest.raises(UserError, match=message):
        unpack_model(file, target, check_contents)
    assert not target.exists()


def _other_stage(members):
    plan = json.loads(members["plan.json"])
    plan["stages"][-1]["name"] = "../../../outside"
    members["plan.json"] = json.dumps(plan).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_stage, r"has an invalid plan; found .* stages\[2\].name: expected a name"),
        (_json_changed("plan.json", stages=[]), "has an invalid plan"),
        (_json_changed("plan_inference.json", folds=[0, 5]), "has weights that do not fit its plan"),
        (_json_changed("plan_inference.json", settings={"zone": 1}), "has thresholds that make no sense"),
        (_json_changed("plan_inference.json", settings={"vote_iou": 7}), "has thresholds that make no sense"),
        (lambda members: members.pop("fold1/wsi/model.safetensors"), "has weights that do not fit its plan"),
    ],
)
def test_forgedwith_valid_hashes(whole, tmp_path, change, message):
    file = _rewritten(whole, tmp_path / "bad.zip", with_valid_hashes(change))
    with pytest.raises(UserError, match=message):
        unpack_model(file, tmp_path / "model", check_contents)
    assert not (tmp_path / "model").exists()


def test_not_a_zip(tmp_path):
    with pytest.raises(UserError, match="file does not exist"):
        unpack_model(tmp_path / "none.zip", tmp_path / "model", check_contents)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(UserError, match="is no zip"):
        read_manifest(tmp_path / "text.zip")
