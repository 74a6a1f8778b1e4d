"""The Hydra configuration of a command: defaults, group choice, ``-o`` overrides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from nndet_psma.core.errors import UserError

if TYPE_CHECKING:
    from nndet_psma.artifacts.plan import Plan
    from nndet_psma.dataset.task.paths import TaskPaths
    from nndet_psma.systems.nodeseg.plan import NodeSegPlan

EMBEDDED, NNUNET = "embedded", "nnunet"
HOSTS = (EMBEDDED, NNUNET)
_NNUNET_MODULE = "nnUNetTrainerNodeSeg"  # of trainers.nodeseg, which imports torch


def compose_config(task: str, overrides: Sequence[str], system: str | None = None) -> Any:
    """Composed configuration (an OmegaConf ``DictConfig``) for a task.

    ``system`` is the preset of ``conf/train`` that is taken when no override names one. ``-o`` takes Hydra's override
    grammar as in nnDetection: ``key=value``, ``train=PRESET``, ``+key=value``, ``~key``.

    Raises:
        UserError: an override is malformed, names an unknown key or group, or an import fails.
    """
    from hydra import compose, initialize_config_module
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    named = [] if system is None or _names_system(overrides) else [f"train={system}"]
    given = [f"task={task}", *_groups_first([*named, *map(_quoted, overrides)])]
    try:
        with initialize_config_module("nndet_psma.conf", version_base="1.3"):
            config = compose("config", overrides=given)
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = " ".join(lines[:1] + [line for line in lines[1:] if line.startswith("To append")])
        raise UserError(
            f"configuration override is wrong: {reason}",
            found=" ".join(overrides) or None,
            expected=f"train={' or '.join(presets())}" if "'train/" in reason else None,
            remedy="Keys and defaults stand in the files below nndet_psma/conf; write -o key=value",
        ) from None
    _check_host(config)
    _import_modules(list(config.additional_imports))
    return config


def presets() -> list[str]:
    """Names that ``-o train=`` may have, in alphabetical order."""
    folder = files("nndet_psma.conf") / "train"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def config_for_task(paths: TaskPaths, overrides: Sequence[str], tell: Callable[[str], None]) -> Any:
    """The configuration of a task; when no override names a system, the data set does, and ``tell`` hears why."""
    from nndet_psma.dataset.task.description import read_description
    from nndet_psma.systems.choice import default_system

    if _names_system(overrides):
        return compose_config(paths.name, overrides)
    choice = default_system(read_description(paths.root))
    tell(f"system {choice.name}: {choice.reason} (another with -o train=NAME)")
    return compose_config(paths.name, overrides, choice.name)


def config_for_model(task: str, plan: Plan | NodeSegPlan, overrides: Sequence[str]) -> Any:
    """The configuration of commands that are given a model: the defaults of the system that made it."""
    from nndet_psma.systems.choice import SEGMENTATION, system_of
    from nndet_psma.systems.nodeseg.plan import NodeSegPlan

    system = SEGMENTATION if isinstance(plan, NodeSegPlan) else system_of(plan)
    return compose_config(task, overrides, system)


def _check_host(config: Any) -> None:
    """The host is known and is the one that the system runs in."""
    if config.host not in HOSTS:
        raise UserError(f"unknown host '{config.host}'", expected=f"one of {', '.join(HOSTS)}, nndet")
    wanted = NNUNET if config.module == _NNUNET_MODULE else EMBEDDED
    if config.host == wanted:
        return
    if wanted == EMBEDDED:
        raise UserError(
            f"host '{config.host}' cannot train {config.module}",
            expected=f"module {_NNUNET_MODULE}",
            remedy="Choose the system with -o train=nodeseg, which sets its host",
        )
    raise UserError(f"{config.module} trains in host '{wanted}' only", found=f"host '{config.host}'")


def plain(config: Any) -> Any:
    """Part of a configuration as plain dictionaries and lists."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True)


def _names_system(overrides: Sequence[str]) -> bool:
    return any(override.startswith("train=") for override in overrides)


def _quoted(override: str) -> str:
    """Quotes round a value that holds "=" itself (sweep.criterion=sensitivity@fp=4), which Hydra refuses bare."""
    key, _, value = override.partition("=")
    bare = value[:1] not in ("'", '"', "[", "{", "$") and "(" not in value
    return f'{key}="{value}"' if "=" in value and bare else override


def _groups_first(overrides: Iterable[str]) -> list[str]:
    """Overrides with group choices first, as Hydra wants them."""
    return sorted(overrides, key=lambda text: not text.startswith("train="))


def _import_modules(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(f"additional_imports: {name} cannot be imported", found=str(error)) from None
