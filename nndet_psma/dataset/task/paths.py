"""Where a task's files lie: the folders of nnDetection below ``$det_data`` and ``$det_models``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from nndet_psma.core.errors import UserError, did_you_mean

DATA_VARIABLE = "det_data"  # the variables of nnDetection
MODELS_VARIABLE = "det_models"
_TASK_FOLDER = re.compile(r"Task(?P<id>\d{3})_(?P<name>.+)")


@dataclass(frozen=True)
class TaskPaths:
    """Files and folders of one task; nothing is created by looking a path up.

    Attributes:
        root: the folder ``TaskXXX_Name``.
    """

    root: Path

    @property
    def name(self) -> str:
        """Folder name, ``TaskXXX_Name``."""
        return self.root.name

    @property
    def raw_splitted(self) -> Path:
        """Raw images and labels as the user put them there."""
        return self.root / "raw_splitted"

    def images(self, split: str) -> Path:
        """Raw images of ``split``, ``"Tr"`` or ``"Ts"``."""
        return self.raw_splitted / f"images{_check_split(split)}"

    def labels(self, split: str) -> Path:
        """Instance masks and their JSON of ``split``, ``"Tr"`` or ``"Ts"``."""
        return self.raw_splitted / f"labels{_check_split(split)}"

    @property
    def preprocessed(self) -> Path:
        """Everything computed from the raw data."""
        return self.root / "preprocessed"

    @property
    def fingerprint(self) -> Path:
        """The measured properties of the data set."""
        return self.preprocessed / "fingerprint.json"

    def plan(self, plan_id: str) -> Path:
        """The plan named ``plan_id``."""
        return self.preprocessed / f"{plan_id}.json"

    @property
    def stores(self) -> Path:
        """Preprocessed cases of all plans."""
        return self.preprocessed / "store"

    def store(self, data_identifier: str) -> Path:
        """Preprocessed cases of the plans that prepare images alike (``Plan.data_identifier``)."""
        return self.stores / data_identifier

    @property
    def analysis(self) -> Path:
        """Plots of the fingerprint."""
        return self.preprocessed / "analysis"

    @property
    def clinical(self) -> Path:
        """Optional table of patients and clinical columns."""
        return self.root / "clinical.csv"

    @property
    def splits(self) -> Path:
        """Optional folds of the user."""
        return self.root / "splits.json"


def data_root() -> Path:
    """The folder of all tasks, ``$det_data``.

    Raises:
        UserError: the variable is unset or names no folder.
    """
    value = os.environ.get(DATA_VARIABLE, "")
    if not value:
        raise UserError(
            "the environment variable det_data is not set", remedy="Say export det_data=FOLDER_OF_ALL_TASKS"
        )
    root = Path(value).expanduser()
    if not root.is_dir():
        raise UserError(
            "det_data names no folder",
            file=root,
            remedy="Create it, or say export det_data=FOLDER_OF_ALL_TASKS",
        )
    return root


def models_root() -> Path:
    """The folder of all trained models, ``$det_models``; created when absent.

    Raises:
        UserError: the variable is unset or the folder cannot be created.
    """
    value = os.environ.get(MODELS_VARIABLE, "")
    if not value:
        raise UserError(
            "the environment variable det_models is not set", remedy="Say export det_models=FOLDER_OF_MODELS"
        )
    root = Path(value).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            "the folder named by det_models cannot be created",
            file=root,
            found=str(error.strerror),
            remedy="Say export det_models=FOLDER_OF_MODELS",
        ) from None
    return root


def find_task(task: str, root: Path | None = None) -> TaskPaths:
    """Find a task by number (``100``), folder name (``Task100_Name``) or name (``Name``), as nnDetection does.

    Args:
        task: what the user typed.
        root: folder of all tasks; ``$det_data`` when omitted.

    Raises:
        UserError: no task or several tasks fit; the message lists what exists.
    """
    folder = data_root() if root is None else root
    if not folder.is_dir():
        raise UserError("no such folder of tasks", file=folder, remedy="Correct the path, or det_data")
    tasks = sorted(
        child for child in folder.iterdir() if child.is_dir() and _TASK_FOLDER.fullmatch(child.name)
    )
    matches = [child for child in tasks if _matches(task, child.name)]
    if not matches:
        listed = ", ".join(child.name for child in tasks) or "no task folders (TaskXXX_Name)"
        raise UserError(
            f"no task '{task}'",
            file=folder,
            expected="one of the tasks found",
            found=listed,
            remedy=did_you_mean(task, [child.name for child in tasks]) or "Correct the task, or det_data",
        )
    if len(matches) > 1:
        raise UserError(
            f"'{task}' fits several tasks",
            file=folder,
            found=", ".join(child.name for child in matches),
            remedy="Give the full folder name",
        )
    return TaskPaths(matches[0])


def _matches(task: str, folder_name: str) -> bool:
    parts = _TASK_FOLDER.fullmatch(folder_name)
    if parts is None:
        return False
    if task.isascii() and task.isdigit():
        return int(task) == int(parts["id"])
    return task in (folder_name, parts["name"])


def _check_split(split: str) -> str:
    if split not in ("Tr", "Ts"):
        raise ValueError(f"split must be 'Tr' or 'Ts', got {split!r}")
    return split
