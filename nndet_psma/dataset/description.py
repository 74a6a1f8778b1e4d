"""The description of a data set: ``dataset.json`` (or yaml) in nnDetection's form, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError

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
    file = find_description(folder)
    content = read_json(file) if file.suffix == ".json" else _read_yaml(file)
    if not isinstance(content, dict):
        raise UserError("the data set description is not a mapping", file=file, expected="keys and values")
    description = DatasetDescription(
        task=_text(content, "task", file),
        name=_text(content, "name", file, default=_text(content, "task", file)),
        dim=_dim(content, file),
        labels=_numbered(content, "labels", file),
        modalities=_numbered(content, "modalities", file),
        target_class=_target_class(content, file),
        test_labels=_boolean(content, "test_labels", file),
        psma=_mapping(content, "psma", file),
    )
    _check_meaning(description, file)
    return description


def find_description(folder: Path) -> Path:
    """The one description file in ``folder``.

    Raises:
        UserError: there is none, or there are several.
    """
    found = [folder / name for name in DESCRIPTION_FILES if (folder / name).is_file()]
    if not found:
        raise UserError(
            "no data set description",
            file=folder,
            expected=" or ".join(DESCRIPTION_FILES),
            remedy="Write dataset.json with the keys task, dim, labels, modalities",
        )
    if len(found) > 1:
        raise UserError(
            "several data set descriptions",
            file=folder,
            found=", ".join(file.name for file in found),
            remedy="Keep one",
        )
    return found[0]


def _read_yaml(file: Path) -> Any:
    import yaml  # comes with omegaconf, hydra's configuration library

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"not valid YAML ({problem})", file=file, remedy="Correct the file") from None


def _text(content: Mapping[str, Any], key: str, file: Path, default: str | None = None) -> str:
    value = content.get(key, default)
    if value is None:
        raise UserError(f"key '{key}' is missing", file=file, remedy=f"Add '{key}'")
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"key '{key}' has the wrong type", file=file, expected="a text", found=repr(value))
    return value


def _dim(content: Mapping[str, Any], file: Path) -> int:
    if "dim" not in content:
        raise UserError("key 'dim' is missing", file=file, remedy="Add 'dim': 3 (or 2)")
    value = content["dim"]
    if isinstance(value, bool) or value not in (2, 3):
        raise UserError("key 'dim' is wrong", file=file, expected="2 or 3", found=repr(value))
    return int(value)


def _numbered(content: Mapping[str, Any], key: str, file: Path) -> dict[int, str]:
    example = f'{{"0": "{"lesion" if key == "labels" else "CT"}"}}'
    if key not in content:
        raise UserError(f"key '{key}' is missing", file=file, remedy=f"Add '{key}': {example}")
    value = content[key]
    if not isinstance(value, dict) or not value:
        raise UserError(f"key '{key}' has the wrong type", file=file, expected=example, found=repr(value))
    if not all(isinstance(name, str) and name.strip() for name in value.values()):
        raise UserError(f"a name in '{key}' is not a text", file=file, expected=example, found=repr(value))
    numbers = sorted(_number(number, key, file) for number in value)
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"the keys of '{key}' are not consecutive numbers from 0",
            file=file,
            expected=", ".join(f'"{index}"' for index in range(len(numbers))),
            found=", ".join(f'"{number}"' for number in value),
        )
    by_number = {_number(number, key, file): name for number, name in value.items()}
    return {number: by_number[number] for number in numbers}


def _number(value: Any, key: str, file: Path) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        raise UserError(
            f"a key of '{key}' is not a number", file=file, expected='"0", "1", ...', found=repr(value)
        )
    return int(text)


def _target_class(content: Mapping[str, Any], file: Path) -> int | None:
    value = content.get("target_class")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(
            "key 'target_class' has the wrong type", file=file, expected="a number or null", found=repr(value)
        )
    return value


def _boolean(content: Mapping[str, Any], key: str, file: Path) -> bool:
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise UserError(
            f"key '{key}' has the wrong type", file=file, expected="true or false", found=repr(value)
        )
    return value


def _mapping(content: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"key '{key}' has the wrong type", file=file, expected="a mapping", found=repr(value))
    return dict(value)


def _check_meaning(description: DatasetDescription, file: Path) -> None:
    for index, name in description.labels.items():
        if name.strip().lower() == "background":
            raise UserError(
                "there must be no class for the background",
                file=file,
                found=f'"{index}": "{name}"',
                remedy="Count the lesion classes from 0 and leave the background out",
            )
    target = description.target_class
    if target is not None and target not in description.labels:
        raise UserError(
            "target_class is no class",
            file=file,
            expected=f"one of {list(description.labels)}",
            found=str(target),
        )
    if not description.image_modalities:
        raise UserError("no modality besides the CTV", file=file, remedy="Add the image, e.g. CT")
    regions = [i for i in description.modalities if description.role(i) is Role.CTV]
    if len(regions) > 1:
        raise UserError("several modalities are called CTV", file=file, remedy="Join them into one mask")
    names = [name.strip().lower() for name in description.modalities.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"two modalities are called '{twice[0]}'",
            file=file,
            remedy="Give every modality its own name, e.g. T1, T2",
        )
