"""Stage prep: check, fingerprint, plan, preprocess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_report, raise_if_errors
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.task.cases import list_cases
from nndet_psma.dataset.task.clinical import patient_of, read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners.describe import compare_plans
from nndet_psma.planners.fingerprint.measure import measure_fingerprint
from nndet_psma.planners.machine import make_plan
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.preprocess.build import build_store
from nndet_psma.report.analysis import draw_analysis
from nndet_psma.stages.plan_check import check_plan

CHECK_FILE = "check.json"


@dataclass(frozen=True)
class PrepResult:
    """What a preparation found and made.

    Attributes:
        findings: of the check; warnings only, errors stop.
        fingerprint: measured.
        plan: written or kept.
        kept_plan: the plan of an earlier run was kept.
        made: case ids that were preprocessed now.
        total: cases in the store.
    """

    findings: list[Finding]
    fingerprint: Fingerprint
    plan: Plan
    kept_plan: bool
    made: list[str]
    total: int


def prepare_task(
    paths: TaskPaths,
    config: Any,
    options: PlannerOptions,
    *,
    full_check: bool,
    check: bool,
    processes: int,
    preprocessing_processes: int,
    say: Callable[[str], None],
) -> PrepResult:
    """Run the parts of ``config.prep``.

    Raises:
        UserError: the data set has errors (all are listed by ``say``; the first is raised), or planning is refused.
    """
    description = read_description(paths.root)
    _check_existing_plan(paths, config, description)
    findings = _check(paths, full_check, processes, say) if check and config.prep.check else []
    cases = list_cases(paths, description)
    if config.prep.fingerprint:
        say(f"fingerprint of {len(cases)} cases")
        fingerprint = measure_fingerprint(
            cases,
            description,
            read_clinical(paths),
            stratify_by=options.stratify_by,
            cache=paths.preprocessed / "fingerprints",
            processes=processes,
        )
        fingerprint.write(paths.fingerprint)
    else:
        fingerprint = Fingerprint.read(paths.fingerprint)
    plan, kept = _plan(paths, config, options, fingerprint)
    say(f"plan {plan.plan_id}: {'kept' if kept else 'written'}")
    if config.prep.fingerprint:
        draw_analysis(fingerprint, plan, paths.analysis / plan.plan_id)
    made: list[str] = []
    if config.prep.process:
        made = build_store(
            paths.store(plan.data_identifier), cases, description, plan, preprocessing_processes
        )
        say(f"preprocessed {len(made)} cases, {len(cases) - len(made)} were current")
    return PrepResult(findings, fingerprint, plan, kept, made, len(cases))


def _check_existing_plan(paths: TaskPaths, config: Any, description: DatasetDescription) -> None:
    """A plan that is going to be kept, perhaps edited by hand, is judged before anything costly is done."""
    file = paths.plan(config.plan)
    planned = bool(config.prep.plan)
    if (planned and not file.is_file()) or (planned and config.prep.overwrite):
        return
    check_plan_file(paths, file, description)


def check_plan_file(paths: TaskPaths, file: Path, description: DatasetDescription) -> Plan:
    """Read a plan and compare it with the raw task; see :func:`nndet_psma.stages.plan_check.check_plan`.

    Raises:
        UserError: the plan contradicts itself, the data set or the package.
    """
    plan = Plan.read(file)
    names = [case.case_id for case in list_cases(paths, description)]
    clinical = read_clinical(paths)
    check_plan(plan, file, description, names, {name: patient_of(name, clinical) for name in names})
    return plan


def _check(paths: TaskPaths, full: bool, processes: int, say: Callable[[str], None]) -> list[Finding]:
    say("check of all files" if full else "check of names, headers and labels")
    report = check_report(paths, full=full, num_processes=processes if full else 1)
    write_json(paths.preprocessed / CHECK_FILE, report.to_json())
    for finding in report.findings:
        say(f"{finding.severity}: {finding.to_error()}")
    raise_if_errors(report.findings)
    return report.findings


def _plan(
    paths: TaskPaths, config: Any, options: PlannerOptions, fingerprint: Fingerprint
) -> tuple[Plan, bool]:
    """Keep the plan of an earlier run where it would come out the same or planning is switched off."""
    file = paths.plan(config.plan)
    if not config.prep.plan:
        return Plan.read(file), True
    made = make_plan(
        fingerprint, paths, options, planner=config.planner, plan_id=config.plan, trainer=config.module
    )
    made = override_plan(made, plain_overwrites(config))
    if file.is_file() and not config.prep.overwrite:
        there = Plan.read(file)
        differing = list(dict.fromkeys(row.key.split(".")[0] for row in compare_plans(there, made)))
        if not differing:
            return there, True
        raise UserError(
            "another plan of this name exists (edited by hand, or made with other data or options)",
            file=file,
            found=f"other values of {', '.join(differing)}",
            remedy="Keep it with -o prep.plan=false, replace it with -o prep.overwrite=true, or write -o plan=NAME",
        )
    made.write(file)
    return made, False


def plain_overwrites(config: Any) -> dict[str, Any]:
    """``plan_overwrites`` as a plain dictionary."""
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(config.plan_overwrites, resolve=True)
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def override_plan(plan: Plan, overwrites: dict[str, Any]) -> Plan:
    """The plan with ``plan_overwrites`` of the configuration put in; UserError names a wrong key or contradiction."""
    if not overwrites:
        return plan
    content = {k: v for k, v in plan.to_json().items() if k not in ("schema", "version")}
    return Plan.parse(_merged(content, overwrites), "plan_overwrites")


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(content)
    for key, value in changes.items():
        inner = result.get(key)
        if isinstance(value, dict) and isinstance(inner, dict):
            result[key] = _merged(inner, value)
        else:
            result[key] = value
    return result
