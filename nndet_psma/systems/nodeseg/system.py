"""Stages prep and train inside nnU-Net: our check of the data, then the host's own work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nndet_psma.artifacts.model_folder import ModelFolder
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_report, raise_if_errors
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.description import read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.stages.prep import CHECK_FILE
from nndet_psma.systems.nodeseg.plan import NodeSegPlan

if TYPE_CHECKING:
    from nndet_psma.systems.nodeseg.nnunet.prepare import NodeSegPrep

_NEEDED = "nnunetv2"
_AGAIN = "Plan again with -o prep.overwrite=true"


@dataclass(frozen=True)
class SegmentationPrep:
    """What a preparation found and made.

    Attributes:
        findings: of the check; warnings only, errors stop.
        made: by the host: its plan, exported and preprocessed cases.
    """

    findings: list[Finding]
    made: NodeSegPrep


def prepare_segmentation(
    paths: TaskPaths,
    config: Any,
    *,
    full_check: bool,
    check: bool,
    processes: int,
    say: Callable[[str], None],
) -> SegmentationPrep:
    """Check the raw data, then fingerprint, plan, export and preprocess inside nnU-Net.

    Raises:
        UserError: the data set has errors (all are listed by ``say``; the first is raised), planning is refused, or
            nnU-Net is not installed.
    """
    require_nnunet()
    from nndet_psma.systems.nodeseg.nnunet.prepare import prepare

    findings = _check(paths, full_check, processes, say) if check and config.prep.check else []
    return SegmentationPrep(findings, prepare(paths, config, say, processes=processes))


def train_segmentation(
    paths: TaskPaths, models: Path, config: Any, fold: int, say: Callable[[str], None]
) -> ModelFolder:
    """Train one fold inside nnU-Net; see :func:`nndet_psma.systems.nodeseg.nnunet.train.train_fold`.

    Raises:
        UserError: a choice that belongs to detectors, no plan, no such fold, or cases that are not preprocessed.
    """
    require_nnunet()
    if config.exp.voter is not None:
        raise UserError(
            "a segmentation has no voters",
            found=f"exp.voter={config.exp.voter}",
            remedy="Leave exp.voter out",
        )
    if config.plan_overwrites:
        raise UserError(
            "nnU-Net's plans are made by nndet_prep, so plan_overwrites come too late here",
            remedy="Give them to nndet_prep (with -o prep.overwrite=true), or set trainer_cfg",
        )
    from nndet_psma.systems.nodeseg.nnunet.train import train_fold

    return train_fold(paths, models, config, fold, say)


def check_segmentation_plan(paths: TaskPaths, plan: NodeSegPlan, file: Path) -> None:
    """Compare a plan that was read from ``file`` with the raw task.

    Raises:
        UserError: modalities, classes or cases are not those of the data set.
    """
    description = read_description(paths.root)
    for key, planned, found in (
        ("modalities", plan.modalities, description.modalities),
        ("classes", plan.classes, description.labels),
    ):
        actual = {str(index): name for index, name in found.items()}
        if planned != actual:
            raise UserError(
                f"{key} of the plan are not those of the data set",
                file=file,
                expected=str(actual),
                found=str(planned),
                remedy=_AGAIN,
            )
    named = {name for fold in plan.folds for name in (*fold.train, *fold.val)}
    unknown = sorted(named - {case.case_id for case in list_cases(paths, description)})
    if unknown:
        raise UserError(
            "folds of the plan name cases that do not exist",
            file=file,
            found=", ".join(unknown[:5]),
            remedy=_AGAIN,
        )


def require_nnunet() -> None:
    """Say how to get nnU-Net where it is not installed.

    Raises:
        UserError: it is not.
    """
    from importlib.util import find_spec

    if find_spec(_NEEDED) is None:
        raise UserError(
            "nnU-Net v2 is not installed, which -o train=nodeseg runs in", remedy=f"pip install {_NEEDED}"
        )


def _check(paths: TaskPaths, full: bool, processes: int, say: Callable[[str], None]) -> list[Finding]:
    say("check of all files" if full else "check of names, headers and labels")
    report = check_report(paths, full=full, num_processes=processes if full else 1)
    write_json(paths.preprocessed / CHECK_FILE, report.to_json())
    for finding in report.findings:
        say(f"{finding.severity}: {finding.to_error()}")
    raise_if_errors(report.findings)
    return report.findings
