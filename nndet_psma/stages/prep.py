"""Stage prep: check, fingerprint, plan, preprocess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Plan, Target
from nndet_psma.artifacts.plan_file import read_plan
from nndet_psma.artifacts.run_config import RunConfig
from nndet_psma.core.atomic import write_json
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.checks.checks import check_report, raise_if_errors
from nndet_psma.dataset.faults.findings import Finding
from nndet_psma.dataset.task.cases import RawCase, list_cases
from nndet_psma.dataset.task.clinical import read_clinical
from nndet_psma.dataset.task.description import DatasetDescription, read_description
from nndet_psma.dataset.task.paths import TaskPaths
from nndet_psma.planners.fingerprint.measure import measure_fingerprint
from nndet_psma.planners.folds import FoldChoice, choose_folds
from nndet_psma.planners.kept_plan import refuse_other_plan
from nndet_psma.planners.machine import choose_target
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.report.analysis import draw_analysis
from nndet_psma.stages.plan_check import check_plan, patients_of
from nndet_psma.systems.system import AnySystem, PlanJob, system_of

CHECK_FILE = "check.json"


@dataclass(frozen=True)
class PrepResult:
    """What a preparation found and made.

    Attributes:
        findings: of the check; warnings only, errors stop.
        fingerprint: measured.
        plan: written or kept.
        kept_plan: the plan of an earlier run was kept.
        made: case ids that were prepared now.
        total: training cases.
    """

    findings: list[Finding]
    fingerprint: Fingerprint
    plan: Plan
    kept_plan: bool
    made: list[str]
    total: int


def prepare_task(
    paths: TaskPaths,
    system: AnySystem,
    config: RunConfig[PlannerOptions, Any],
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
    system.require()
    description = read_description(paths.root)
    there = _existing_plan(paths, system, config, description)
    findings = _check(paths, full_check, processes, say) if check and config.prep.check else []
    cases = list_cases(paths, description)
    fingerprint = _fingerprint(paths, config, description, cases, processes, say)
    folds, target = _folds_and_target(paths, config, fingerprint, there)
    job = PlanJob(
        paths, config, description, cases, fingerprint, target, folds, there, preprocessing_processes, say
    )
    plan, kept = _plan(system, job)
    say(f"plan {plan.plan_id}: {'kept' if kept else 'written'}")
    system.hand_over(job, plan)
    if config.prep.fingerprint:
        draw_analysis(fingerprint, system.facts(plan), paths.analysis / plan.plan_id)
    made: list[str] = []
    if config.prep.process:
        made = system.prepare(job, plan)
        say(f"preprocessed {len(made)} cases, {len(cases) - len(made)} were current")
    return PrepResult(findings, fingerprint, plan, kept, made, len(cases))


def _existing_plan(
    paths: TaskPaths, system: AnySystem, config: RunConfig[Any, Any], description: DatasetDescription
) -> Plan | None:
    """A plan that is going to be kept, perhaps edited by hand, is judged before anything costly is done."""
    file = paths.plan(config.plan)
    if config.prep.plan and (config.prep.overwrite or not file.is_file()):
        return None
    plan = check_plan_file(paths, file, description)
    if type(plan) is not system.plan_type:
        owner = system_of(plan).name
        raise UserError(
            f"another plan of this name exists, one of {owner}",
            file=file,
            remedy=f"Keep it with -o train={owner}, replace it with -o prep.overwrite=true, or write -o plan=NAME",
        )
    return plan


def _folds_and_target(
    paths: TaskPaths,
    config: RunConfig[PlannerOptions, Any],
    fingerprint: Fingerprint,
    there: Plan | None,
) -> tuple[FoldChoice, Target]:
    """Chosen anew, or those of the plan where planning is switched off."""
    if not config.prep.plan and there is not None:
        return FoldChoice(there.folds, "", ""), there.target
    options = config.plan_cfg
    folds = choose_folds(
        fingerprint,
        paths.splits,
        num_folds=options.num_folds,
        stratify_by=options.stratify_by,
        seed=options.seed,
    )
    return folds, choose_target(options)


def check_plan_file(paths: TaskPaths, file: Path, description: DatasetDescription) -> Plan:
    """Read a plan and compare it with the raw task; see :func:`nndet_psma.stages.plan_check.check_plan`.

    Raises:
        UserError: the plan contradicts itself, the data set or the package.
    """
    plan = read_plan(file)
    names = [case.case_id for case in list_cases(paths, description)]
    check_plan(plan, file, description, names, patients_of(paths, names))
    return plan


def _check(paths: TaskPaths, full: bool, processes: int, say: Callable[[str], None]) -> list[Finding]:
    say("check of all files" if full else "check of names, headers and labels")
    report = check_report(paths, full=full, num_processes=processes if full else 1)
    write_json(paths.preprocessed / CHECK_FILE, report.to_json(paths.root))
    for finding in report.findings:
        say(f"{finding.severity}: {finding.to_error()}")
    raise_if_errors(report.findings)
    return report.findings


def _fingerprint(
    paths: TaskPaths,
    config: RunConfig[PlannerOptions, Any],
    description: DatasetDescription,
    cases: list[RawCase],
    processes: int,
    say: Callable[[str], None],
) -> Fingerprint:
    if not config.prep.fingerprint:
        return Fingerprint.read(paths.fingerprint)
    say(f"fingerprint of {len(cases)} cases")
    fingerprint = measure_fingerprint(
        cases,
        description,
        read_clinical(paths),
        stratify_by=config.plan_cfg.stratify_by,
        cache=paths.preprocessed / "fingerprints",
        processes=processes,
    )
    fingerprint.write(paths.fingerprint)
    return fingerprint


def _plan(system: AnySystem, job: PlanJob[Any, Any, Any]) -> tuple[Plan, bool]:
    """Keep the plan of an earlier run where it would come out the same or planning is switched off."""
    file = job.paths.plan(job.config.plan)
    if not job.config.prep.plan and job.there is not None:
        return job.there, True
    made = system.overwrite(system.make_plan(job), job.config.plan_overwrites)
    if job.there is not None:
        refuse_other_plan(file, job.there, made)
        return job.there, True
    made.write(file)
    return made, False
