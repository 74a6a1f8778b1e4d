"""Files of a model that only the report reads: tables, curves and costs that training, sweep and evaluation left."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nndet_psma.core.atomic import read_json
from nndet_psma.core.errors import UserError
from nndet_psma.core.schema import SchemaError, from_plain
from nndet_psma.evaluation.detection.record import CaseRecord
from nndet_psma.evaluation.detection.scores import Scores, upgraded_scores, with_accepted_auc
from nndet_psma.evaluation.judgements.scores import JudgementScores
from nndet_psma.inference.ablation import AblationRow
from nndet_psma.report.training_cost import TrueCost, true_cost
from nndet_psma.trainers.watch.memory_check import MEMORY_FILE, MemoryCheck

T = TypeVar("T")

COMPARISONS = "comparison_*.json"
_SWEEP_KEYS = ("columns", "rows", "best", "criterion", "num_settings", "num_cases", "num_lesions", "tie_rule")
_LATER_KEYS = ("nested", "search", "judged")  # of newer files only


def read_scores(file: Path, command: str) -> Scores:
    """``scores.json`` of any version; ``command`` makes it anew.

    Raises:
        UserError: it has another layout.
    """
    return _read_scores(Scores, file, command, upgraded_scores)


def read_judgement_scores(file: Path, command: str) -> JudgementScores:
    """``scores.json`` of judgements; ``command`` makes it anew.

    Raises:
        UserError: it has another layout.
    """
    return _read_scores(JudgementScores, file, command)


def read_records(file: Path) -> list[CaseRecord]:
    """``records.json``; SchemaError for another layout."""
    return [from_plain(CaseRecord, each) for each in read_json(file)]


def read_ablation(file: Path) -> list[AblationRow]:
    """``ablation.json``; SchemaError for another layout."""
    return [from_plain(AblationRow, _named(each)) for each in read_json(file)]


def read_sweep(file: Path) -> dict[str, Any]:
    """What the report needs of ``sweep.json``; KeyError where it lacks something that every sweep has."""
    content: dict[str, Any] = read_json(file)
    found = {key: content[key] for key in _SWEEP_KEYS}
    return found | {key: content[key] for key in _LATER_KEYS if key in content}


def read_comparisons(results: Path, kind: type[T]) -> tuple[list[T], str]:
    """Comparisons with other models in the folder of the results, and why the first unreadable one is left out."""
    found, problem = [], ""
    for file in sorted(results.glob(COMPARISONS)):
        try:
            found.append(from_plain(kind, _named(read_json(file))))
        except (UserError, SchemaError) as error:
            problem = problem or f"{file.name} cannot be read ({error})"
    return found, problem


def _named(content: Any) -> Any:
    """Content with scores by key under today's names."""
    if not isinstance(content, dict) or "scores" not in content:
        return content
    return {**content, "scores": with_accepted_auc(content["scores"])}


def read_environment(folder: Path) -> dict[str, Any] | None:
    """``environment.json`` of a fold; None without one, or when it is no table or not JSON."""
    file = folder / "environment.json"
    try:
        content = read_json(file) if file.is_file() else None
    except UserError:
        return None
    return content if isinstance(content, dict) else None


def read_cost(folders: Sequence[Path]) -> TrueCost:
    """What the folds have cost; nothing where a file is damaged: the curves tell of it."""
    try:
        return true_cost(folders)
    except (UserError, SchemaError):
        return TrueCost(())


def trained_precision(file: Path) -> str:
    """``trainer_cfg.precision`` of a fold's ``config.yaml``; "no" where it does not say."""
    found = re.search(r"^\s+precision: *['\"]?(\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "no"


def read_memory(folders: Sequence[Path]) -> list[tuple[str, MemoryCheck]]:
    """(fold folder, check) of every readable ``memory.json``: only training on a GPU leaves one."""
    found = []
    for folder in folders:
        for file in sorted(folder.glob(f"*/{MEMORY_FILE}")):
            try:
                found.append((folder.name, MemoryCheck.read(file)))
            except (UserError, SchemaError):
                continue
    return found


def _read_scores(
    kind: type[T], file: Path, command: str, upgraded: Callable[[Any], Any] = lambda content: content
) -> T:
    try:
        return from_plain(kind, upgraded(read_json(file)))
    except SchemaError as error:
        raise UserError(f"invalid scores: {error}", file=file, remedy=f"Run {command} again") from None
