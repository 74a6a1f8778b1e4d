"""The description of a data set: ``dataset.json`` (or yaml) in nnDetection's form, read strictly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.parsing import parse_yaml, read_text
from nndet_psma.dataset.faults.kinds import Fault, first_error
from nndet_psma.dataset.task.description_keys import (
    boolean_key,
    dim_key,
    mapping_key,
    numbered_key,
    target_class_key,
    text_key,
)

DESCRIPTION_FILES = ("dataset.json", "dataset.yaml", "dataset.yml")


class Role(str, Enum):
    """What a modality means to the planners; told by its name in the description (case does not matter)."""

    CT = "CT"  # HU
    PET = "PET"  # SUV body weight
    DWI = "DWI"
    ADC = "ADC"
    T2 = "T2"
    BLADDER = "BLADDER"  # binary mask
    PROSTATE = "PROSTATE"  # binary mask
    CTV = "CTV"  # binary mask, the search region
    OTHER = "OTHER"


@dataclass(frozen=True)
class DatasetDescription:
    """Content of ``dataset.json``.

    Attributes:
        task: ``TaskXXX_Name``.
        name: free name, the task when absent.
        dim: 2 or 3.
        labels: class names by class index from 0; there is no background class.
        modalities: modality names by file number ``_000N``.
        target_class: class for the case-level scores of nnDetection, or None.
        test_labels: whether imagesTs has labels.
        psma: our own optional block: choices that are data, not taste.
    """

    task: str
    name: str
    dim: int
    labels: dict[int, str]
    modalities: dict[int, str]
    target_class: int | None = None
    test_labels: bool = False
    psma: dict[str, Any] = field(default_factory=dict)

    def role(self, index: int) -> Role:
        """Meaning of modality ``index``."""
        try:
            return Role(self.modalities[index].strip().upper())
        except ValueError:
            return Role.OTHER

    @property
    def ctv_modality(self) -> int | None:
        """Index of the search region, or None."""
        return next((index for index in self.modalities if self.role(index) is Role.CTV), None)

    @property
    def image_modalities(self) -> tuple[int, ...]:
        """Indices of every modality but the search region."""
        return tuple(index for index in self.modalities if self.role(index) is not Role.CTV)

    @property
    def target(self) -> str | None:
        """What is to be told of the cases where it is not their lesions: ``target`` of the block ``psma``."""
        target = self.psma.get("target")
        return None if target is None else str(target)

    def to_json(self) -> dict[str, Any]:
        """nnDetection's spelling, with string keys."""
        content: dict[str, Any] = {
            "task": self.task,
            "name": self.name,
            "dim": self.dim,
            "target_class": self.target_class,
            "test_labels": self.test_labels,
            "labels": {str(index): name for index, name in self.labels.items()},
            "modalities": {str(index): name for index, name in self.modalities.items()},
        }
        return {**content, "psma": self.psma} if self.psma else content


def read_description(folder: Path) -> DatasetDescription:
    """Read the description in ``folder`` (the task's root); keys that nnDetection does not define are ignored.

    Raises:
        UserError: no or several description files, a key is missing or has the wrong type, class or modality
            numbers are not 0..n-1, a class is called background, or there is no modality besides the CTV.
    """
    description, faults = scan_description(folder)
    error = first_error(faults)
    if error is not None:
        raise error
    if description is None:  # cannot be: without a description there is an error
        raise UserError("no data set description", file=folder, expected="dataset.json (or dataset.yaml)")
    return description


def scan_description(folder: Path) -> tuple[DatasetDescription | None, list[Fault]]:
    """The description with every fault of it.

    Where a key is faulty the others are still read, so that the cases can be checked against them: ``dim`` falls
    back to 3, ``labels`` to no class. None without readable modalities, for nothing can be checked then.
    """
    try:
        file = find_description(folder)
        content = _read_json(file) if file.suffix == ".json" else _read_yaml(file)
    except Fault as fault:
        return None, [fault]
    faults: list[Fault] = []

    def take(read: Callable[[], Any], fallback: Any = None) -> Any:
        try:
            return read()
        except Fault as fault:
            faults.append(fault)
            return fallback

    task = take(lambda: text_key(content, "task", file), folder.name)
    description = DatasetDescription(
        task=task,
        name=take(lambda: text_key(content, "name", file, default=task), task),
        dim=take(lambda: dim_key(content, file), 3),
        labels=take(lambda: numbered_key(content, "labels", file), {}),
        modalities=take(lambda: numbered_key(content, "modalities", file), {}),
        target_class=take(lambda: target_class_key(content, file)),
        test_labels=take(lambda: boolean_key(content, "test_labels", file), False),
        psma=take(lambda: mapping_key(content, "psma", file), {}),
    )
    faults += _doubtful_meaning(description, file)
    return (description if description.image_modalities else None), faults


def find_description(folder: Path) -> Path:
    """The one description file in ``folder``.

    Raises:
        UserError: there is none, or there are several.
    """
    found = [folder / name for name in DESCRIPTION_FILES if (folder / name).is_file()]
    if not found:
        raise Fault(
            "no description",
            "no data set description",
            file=folder,
            expected=" or ".join(DESCRIPTION_FILES),
            remedy="Write dataset.json with the keys task, dim, labels, modalities",
        )
    if len(found) > 1:
        raise Fault(
            "several descriptions",
            "several data set descriptions",
            file=folder,
            found=", ".join(file.name for file in found),
            remedy="Keep one",
        )
    return found[0]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return _as_mapping(read_json(file), file)
    except OSError as error:
        raise _not_readable(f"cannot be opened ({error.strerror})", file) from None
    except Fault:
        raise
    except UserError as error:
        raise _not_readable(error.what, file) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        return _as_mapping(parse_yaml(read_text(file)), file)
    except OSError as error:
        raise _not_readable(f"cannot be opened ({error.strerror})", file) from None
    except ValueError as error:
        raise _not_readable(f"not valid YAML ({error})", file) from None


def _not_readable(what: str, file: Path) -> Fault:
    return Fault("description not readable", what, file=file, remedy="Correct or rewrite the file")


def _as_mapping(content: Any, file: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise Fault(
            "description not readable",
            "the data set description is not a mapping",
            file=file,
            expected="keys and values",
            remedy="Write the keys task, dim, labels, modalities",
        )
    if "modalities" not in content and "channel_names" in content:
        raise Fault(
            "description of nnU-Net",
            "this is a description for nnU-Net",
            file=file,
            found="channel_names",
            expected="nnDetection's keys task, dim, labels, modalities",
            remedy="Write channel_names as modalities, and labels as number to name without the background",
        )
    return content


def _doubtful_meaning(description: DatasetDescription, file: Path) -> Iterator[Fault]:
    """Faults of a description whose keys have the right types."""
    yield from _class_faults(description, file)
    if description.modalities:
        yield from _modality_faults(description, file)
    if description.task != file.parent.name:
        yield Fault(
            "task name mismatch",
            "the task in the description is not the name of its folder",
            file=file,
            expected=file.parent.name,
            found=description.task,
            remedy="Make them equal: nnDetection looks tasks up by both",
        )


def _class_faults(description: DatasetDescription, file: Path) -> Iterator[Fault]:
    names = [name.strip().lower() for name in description.labels.values()]
    for index, name in description.labels.items():
        if name.strip().lower() == "background":
            yield Fault(
                "background class",
                "there must be no class for the background",
                file=file,
                found=f'"{index}": "{name}"',
                remedy="Count the lesion classes from 0 and leave the background out",
            )
    for name in sorted(name for name, times in Counter(names).items() if times > 1):
        yield Fault(
            "duplicate class",
            f"two classes are called '{name}'",
            file=file,
            remedy="Give every class its own name, or join them",
        )
    target = description.target_class
    if target is not None and description.labels and target not in description.labels:
        yield Fault(
            "unknown target class",
            "target_class is no class",
            file=file,
            expected=f"one of {list(description.labels)}",
            found=str(target),
            remedy="Correct target_class or leave it out",
        )


def _modality_faults(description: DatasetDescription, file: Path) -> Iterator[Fault]:
    if not description.image_modalities:
        yield Fault(
            "no image modality", "no modality besides the CTV", file=file, remedy="Add the image, e.g. CT"
        )
    names = [name.strip().lower() for name in description.modalities.values()]
    for name in sorted(name for name, times in Counter(names).items() if times > 1):
        if name == "ctv":
            what, remedy = "several modalities are called CTV", "Join them into one mask"
        else:
            what, remedy = (
                f"two modalities are called '{name}'",
                "Give every modality its own name, e.g. T1, T2",
            )
        yield Fault("duplicate modality", what, file=file, remedy=remedy)
