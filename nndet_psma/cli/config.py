"""The configuration of a command: defaults of the system, a preset, ``-o`` overrides in Hydra's grammar; typed at once.

``nndet_psma config`` prints it.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from nndet_psma.core.errors import UserError

if TYPE_CHECKING:
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.artifacts.run_config import RunConfig
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.systems.system import AnySystem

AnyConfig: TypeAlias = "RunConfig[Any, Any]"

_CHOICE = "train="
_SCHEMA = "system"
_ADDED = "plan_overwrites."


def compose_config(task: str, overrides: Sequence[str], system: str | None = None) -> AnyConfig:
    """The configuration of a task.

    ``system`` is the preset that is taken when no override names one. ``-o`` takes Hydra's override grammar as in
    nnDetection: ``key=value``, ``train=PRESET``, ``+plan_overwrites.key=value``, ``~key``.

    Raises:
        UserError: an override is malformed, names an unknown key or preset, has a value of the wrong kind, or an
            import fails.
    """
    from nndet_psma.systems.choice import CENTRAL

    named = [text.removeprefix(_CHOICE) for text in overrides if text.startswith(_CHOICE)]
    preset = named[-1] if named else system or CENTRAL
    owner = _owner(preset, overrides)
    content = _composed(task, preset, overrides, owner)
    config = _typed(content, owner)
    _check_host(config, owner)
    _import_modules(config.additional_imports)
    return config


def presets() -> dict[str, str]:
    """The system of each name that ``-o train=`` may have, in alphabetical order."""
    from nndet_psma.systems.system import SYSTEMS

    found = {preset: name for name in SYSTEMS for preset in (name, *_preset_files(SYSTEMS[name].presets))}
    return dict(sorted(found.items()))


def config_for_task(paths: TaskPaths, overrides: Sequence[str], tell: Callable[[str], None]) -> AnyConfig:
    """The configuration of a task; when no override names a system, the data set does, and ``tell`` hears why."""
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.systems.choice import default_system

    if any(text.startswith(_CHOICE) for text in overrides):
        return compose_config(paths.name, overrides)
    choice = default_system(read_description(paths.root))
    tell(f"system {choice.name}: {choice.reason} (another with -o train=NAME)")
    return compose_config(paths.name, overrides, choice.name)


def config_for_model(task: str, plan: Plan, overrides: Sequence[str]) -> AnyConfig:
    """The configuration of commands that are given a model: the defaults of the system that made it."""
    from nndet_psma.systems.system import system_of

    return compose_config(task, overrides, system_of(plan).name)


def system_of_config(config: AnyConfig) -> AnySystem:
    """The system that a composed configuration belongs to."""
    from nndet_psma.systems.system import SYSTEMS

    return SYSTEMS[config.system]()


def default_content(system: AnySystem) -> dict[str, Any]:
    """Every key at its default, as plain values."""
    from nndet_psma.artifacts.run_config import RunConfig
    from nndet_psma.core.schema import to_plain

    config = RunConfig(
        task="",
        system=system.name,
        host=system.host,
        module=system.trainer,
        planner=system.planner,
        plan=system.plan_id,
        plan_cfg=system.options_type(),
        trainer_cfg=system.settings_type(),
    )
    content: dict[str, Any] = to_plain(config)
    return content


def _owner(preset: str, overrides: Sequence[str]) -> AnySystem:
    from nndet_psma.systems.system import SYSTEMS

    known = presets()
    if preset not in known:
        raise UserError(
            f"configuration override is wrong: Could not find '{_CHOICE[:-1]}/{preset}'",
            found=" ".join(overrides) or None,
            expected=f"train={' or '.join(known)}",
        )
    return SYSTEMS[known[preset]]()


def _composed(task: str, preset: str, overrides: Sequence[str], owner: AnySystem) -> dict[str, Any]:
    """Plain content: defaults, then the preset, then the overrides."""
    from hydra import compose, initialize
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    content = {**default_content(owner), "task": task}
    for changes in _preset_contents(owner, preset):
        content = _merged(content, changes, preset)
    ConfigStore.instance().store(name=_SCHEMA, node=content)
    try:
        with initialize(config_path=None, version_base="1.3"):
            others = [_quoted(text) for text in overrides if not text.startswith(_CHOICE)]
            composed = compose(_SCHEMA, overrides=others)
        # what ~key took away is at its default again
        found = OmegaConf.to_container(OmegaConf.merge(content, composed), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise _wrong_override(error, overrides, content) from None
    return _with_names({str(key): value for key, value in found.items()} if isinstance(found, dict) else {})


def _with_names(content: dict[str, Any]) -> dict[str, Any]:
    """Names that are numbers (``exp.tag=2``), which Hydra reads as such, are text."""
    exp = content["exp"]
    named = {"exp": _as_text(exp, "tag", "id")} if isinstance(exp, dict) else {}
    return {**_as_text(content, "plan"), **named}


def _as_text(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    numbers = {key: content[key] for key in keys if type(content.get(key)) in (int, float)}
    return {**content, **{key: str(value) for key, value in numbers.items()}}


def _preset_contents(owner: AnySystem, preset: str) -> Iterator[dict[str, Any]]:
    """Changes of a preset, after those of the presets it builds on."""
    import yaml

    known = _preset_files(owner.presets)
    chain = [preset] if preset == owner.name else [owner.name, preset]
    for name in chain:
        if name in known:
            yield yaml.safe_load(known[name]) or {}


def _preset_files(package: str) -> dict[str, str]:
    """Texts of the presets in a package, by name."""
    if not package:
        return {}
    found = [file for file in files(package).iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in found}


def _merged(content: Mapping[str, Any], changes: Mapping[str, Any], preset: str) -> dict[str, Any]:
    result = dict(content)
    for key, value in changes.items():
        if key not in content:
            raise UserError(f"preset '{preset}' sets an unknown key '{key}'", expected=_nearest(key, content))
        inner = result[key]
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[key] = _merged(inner, value, preset) if both else value
    return result


def _typed(content: dict[str, Any], owner: AnySystem) -> AnyConfig:
    from nndet_psma.artifacts.run_config import RunConfig

    parts = {
        "plan_cfg": from_config(owner.options_type, content["plan_cfg"], "plan_cfg"),
        "trainer_cfg": from_config(owner.settings_type, content["trainer_cfg"], "trainer_cfg"),
    }
    config: AnyConfig = from_config(RunConfig, {**content, **parts}, "")
    return config


def from_config(kind: type[Any], content: Any, key: str) -> Any:
    """A part of the configuration as the dataclass ``kind``; UserError names the key that is wrong."""
    from nndet_psma.core.schema import SchemaError, from_plain

    try:
        return from_plain(kind, content, key)
    except (SchemaError, ValueError) as error:
        raise UserError(
            f"configuration: {error}", remedy="nndet_psma config prints every key with its default"
        ) from None


def _wrong_override(error: Exception, overrides: Sequence[str], content: Mapping[str, Any]) -> UserError:
    first, *more = [line.strip() for line in str(error).splitlines()]
    unknown = next((key for key in map(_key_of, overrides) if f"override '{key}'" in first), None)
    reason = first.removesuffix(".")
    if unknown is not None and unknown.startswith(_ADDED):  # the only place where keys may be added
        reason = " ".join([first, *(line for line in more if line.startswith("To append"))])
        unknown = None
    return UserError(
        f"configuration override is wrong: {reason}",
        found=" ".join(overrides) or None,
        expected=None if unknown is None else _nearest(unknown, content),
        remedy="nndet_psma config prints every key with its default; write -o key=value",
    )


def _nearest(key: str, content: Mapping[str, Any]) -> str | None:
    """The known key that is spelled most alike."""
    known = list(_flat_keys("", content))
    found = difflib.get_close_matches(key, known, n=1) or difflib.get_close_matches(
        key.rpartition(".")[2], [name.rpartition(".")[2] for name in known], n=1
    )
    return next((name for name in known if found and name.endswith(found[0])), None)


def _flat_keys(prefix: str, content: Mapping[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else key
        yield name
        if isinstance(value, Mapping):
            yield from _flat_keys(name, value)


def _key_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _check_host(config: AnyConfig, owner: AnySystem) -> None:
    """The host is the one that the system runs in."""
    from nndet_psma.systems.system import SYSTEMS

    if config.host == owner.host:
        return
    hosts = {name: SYSTEMS[name].host for name in SYSTEMS}
    if config.host not in hosts.values():
        known = list(dict.fromkeys(sorted(hosts.values())))
        raise UserError(f"unknown host '{config.host}'", expected=f"one of {', '.join(known)}, nndet")
    fitting = [f"train={name}" for name, host in hosts.items() if host == config.host]
    raise UserError(
        f"{config.module} trains in host '{owner.host}' only",
        found=f"host '{config.host}'",
        remedy=f"Choose the system with -o {' or '.join(fitting)}, which sets its host",
    )


def _quoted(override: str) -> str:
    """Quotes round a value that holds "=" itself (sweep.criterion=sensitivity@fp=4), which Hydra refuses bare."""
    key, _, value = override.partition("=")
    bare = value[:1] not in ("'", '"', "[", "{", "$") and "(" not in value
    return f'{key}="{value}"' if "=" in value and bare else override


def _import_modules(modules: Iterable[str]) -> None:
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f"additional_imports: {name} cannot be imported",
                found=str(error),
                remedy="Install the package, or correct its name",
            ) from None


def build_parser() -> argparse.ArgumentParser:
    """Arguments of ``nndet_psma config``."""
    from nndet_psma.cli.arguments import add_overwrites

    parser = argparse.ArgumentParser(
        prog="nndet_psma config",
        description="Print every key of the configuration with its value and its meaning. A preset and other values "
        "are chosen as for the other commands: -o train=PRESET plan_cfg.num_folds=3",
    )
    parser.add_argument("--presets", action="store_true", help="list the presets and their systems instead")
    add_overwrites(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the configuration, or the presets."""
    from nndet_psma.cli.config_text import config_text

    if args.presets:
        for preset, system in presets().items():
            print(f"{preset:<24} {system}")
        return 0
    print(config_text(compose_config("TASK", args.overwrites)), end="")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    from nndet_psma.cli.run import run_command

    return run_command(build_parser(), run, argv)
