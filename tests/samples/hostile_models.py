"""A consolidated model of the tiny task with something of it changed, as a folder and as a zip."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.model_folder import INFERENCE_PLAN, PLAN

Members = dict[str, bytes]


def copied_model(source: Path, target: Path) -> Path:
    """The consolidated model of ``source`` and nothing else; returns its model folder ``target``."""
    shutil.copytree(
        source / "consolidated",
        target / "consolidated",
        ignore=shutil.ignore_patterns("*_predictions", "*_results"),
    )
    return target


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    """Change a JSON file in place; a checksum in it goes away, as a forger would see to."""
    content = json.loads(file.read_text())
    content.pop("checksum", None)
    change(content)
    file.write_text(json.dumps(content))


def plan_of(model: Path) -> Path:
    """The plan of a consolidated model."""
    return model / "consolidated" / PLAN


def thresholds_of(model: Path) -> Path:
    """The thresholds of a consolidated model."""
    return model / "consolidated" / INFERENCE_PLAN


def with_valid_hashes(change: Callable[[Members], None]) -> Callable[[Members], None]:
    """``change``, and a manifest whose hashes are right again: a forger who writes them anew."""

    def forge(members: Members) -> None:
        change(members)
        manifest = json.loads(members["manifest.json"])
        manifest["files"] = {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in members.items()
            if name != "manifest.json"
        }
        members["manifest.json"] = json.dumps(manifest).encode()

    return forge


def forged_archive(whole: Path, target: Path, change: Callable[[Members], None]) -> Path:
    """The archive with its members changed by ``change(members)``, and valid hashes."""
    with zipfile.ZipFile(whole) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with_valid_hashes(change)(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def json_member(name: str, change: Callable[[Any], None]) -> Callable[[Members], None]:
    """A change of one JSON member."""

    def changed(members: Members) -> None:
        content = json.loads(members[name])
        content.pop("checksum", None)
        change(content)
        members[name] = json.dumps(content).encode()

    return changed
