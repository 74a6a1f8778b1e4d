"""Stage prep: check, fingerprint, plan, preprocess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nndet_psma.artifacts.fingerprint import Fingerprint
from nndet_psma.artifacts.plan import Plan
from nndet_psma.core.errors import UserError
from nndet_psma.dataset.cases import list_cases
from nndet_psma.dataset.checks import check_task, raise_if_errors
from nndet_psma.dataset.clinical import read_clinical
from nndet_psma.dataset.description import read_description
from nndet_psma.dataset.findings import Finding
from nndet_psma.dataset.paths import TaskPaths
from nndet_psma.planners.fingerprint import measure_fingerprint
from nndet_psma.planners.options import PlannerOptions
from nndet_psma.planners.prepare import make_plan
from nndet_psma.preprocess.build import build_store


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
    made: list[str] = []
    if config.prep.process:
        made = build_store(paths.store, cases, description, plan, preprocessing_processes)
        say(f"preprocessed {len(made)} cases, {len(cases) - len(made)} were current")
    return PrepResult(findings, fingerprint, plan, kept, made, len(cases))


def _check(paths: TaskPaths, full: bool, processes: int, say: Callable[[str], None]) -> list[Finding]:
    say("check of all files" if full else "check of names, headers and labels")
    findings = check_task(paths, full=full, num_processes=processes if full else 1)
    for finding in findings:
        say(f"{finding.severity}: {finding.to_error()}")
    raise_if_errors(findings)
    return findings


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
        differing = _differences(Plan.read(file), made)
        if not differing:
            return made, True
        raise UserError(
            "another plan of this name exists (edited by hand, or made with other data or options)",
            file=file,
            found=f"other values of {', '.join(differing)}",
            remedy="Keep it with -o prep.plan=false, replace it with -o prep.overwrite=true, or write -o plan=NAME",
        )
    made.write(file)
    return made, False


def _differences(first: Plan, second: Plan) -> list[str]:
    """Top-level keys whose values differ."""
    own, other = first.to_json(), second.to_json()
    return [key for key in own if own[key] != other[key]]


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


def describe_plan(plan: Plan) -> Sequence[tuple[str, str, str, str]]:
    """Rows (key, value, rule, evidence) of the plan's decisions."""
    rows = []
    for key, decision in plan.decisions.items():
        rows.append((key, _value_text(plan, key), decision.rule, decision.evidence))
    return rows


def _value_text(plan: Plan, key: str) -> str:
    value: Any = plan
    for part in key.split("."):
        value = getattr(value, part)
    if key == "windows":
        return ", ".join(f"{w.lower:g}..{w.upper:g}" for w in plan.windows) or "none"
    if key == "stages":
        return ", ".join(f"{s.name}: {s.iterations} at {s.learning_rate:g}" for s in plan.stages)
    if key == "augmentation":
        return f"scale {value.scale}, rotation {value.rotation_degrees:g}"
    if key == "postproc_grid":
        return ", ".join(f"{name} {len(values)}" for name, values in value.items()) + " values"
    return f"{value:g}" if isinstance(value, float) else str(value)
