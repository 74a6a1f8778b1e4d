"""Repairs that let the unmodified nnDetection v0.1 run on packages released after it.

nnDetection was written for PyTorch 1 and Python 3.8. Each repair restores one thing that a later release of another
package took away, in this process only and from outside: no file of nnDetection is changed. All but the last must be
made before ``nndet`` is imported. They were enough for prep, train, sweep, consolidate, predict and eval of commit
97a58f3.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import FrameType, ModuleType
from typing import Any

TRUSTED_LOADERS = ("nndet", "scripts", "pytorch_lightning")
"""Packages whose own ``torch.load`` calls may read whole objects, as they were written to."""

MLFLOW_VARIABLE = "MLFLOW_ALLOW_FILE_STORE"

_OLD_STYLE, _NEW_STYLE = "seaborn-", "seaborn-v0_8-"
_MARK = "reads_objects_for_nndetection"
_ANALYSIS, _PLOT_MARK = "nndet.utils.analysis", "skips_empty_plots"


@dataclass(frozen=True)
class Repair:
    """One thing that nnDetection misses.

    Attributes:
        name: short, for messages.
        place: where nnDetection, or what it runs on, needs it.
        broken_by: the release that took it away.
        needed: whether it is missing now; False where nothing would use it.
        apply: gives it back.
    """

    name: str
    place: str
    broken_by: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


def apply_repairs(repairs: Iterable[Repair] | None = None) -> list[str]:
    """Make the repairs that are needed, in order, and return their names; a second call finds nothing to do."""
    applied = []
    for repair in REPAIRS if repairs is None else repairs:
        if repair.needed():
            repair.apply()
            applied.append(repair.name)
    return applied


def _lacks_torch_six() -> bool:
    if "torch._six" in sys.modules:  # one made here has no spec to be found by
        return False
    return find_spec("torch") is not None and find_spec("torch._six") is None


def _provide_torch_six() -> None:
    import collections.abc

    six = ModuleType("torch._six", "What torch 1 kept here for Python 2.")
    content = {
        "string_classes": (str, bytes),
        "int_classes": int,
        "container_abcs": collections.abc,
        "inf": float("inf"),
        "nan": float("nan"),
    }
    vars(six).update(content)
    sys.modules["torch._six"] = six


def _lacks_seaborn_styles() -> bool:
    if find_spec("matplotlib") is None:
        return False
    from matplotlib import style

    return f"{_OLD_STYLE}deep" not in style.library


def _alias_seaborn_styles() -> None:
    from matplotlib import style

    for name in [name for name in style.library if name.startswith(_NEW_STYLE)]:
        style.library.setdefault(_OLD_STYLE + name.removeprefix(_NEW_STYLE), style.library[name])


def _lacks_inf() -> bool:
    import numpy as np

    return not hasattr(np, "Inf")


def _restore_inf() -> None:
    import numpy as np

    np.Inf = np.inf  # type: ignore[attr-defined]


def _formats_by_name() -> bool:
    base = _lightning_enum()
    return base is not None and any(f"{member}" != member.value for cls in _family(base) for member in cls)


def _format_by_value() -> None:
    base = _lightning_enum()
    for cls in [] if base is None else _family(base):
        # each class of the family has a method of its own, set when it was made
        cls.__format__ = _format_value


def _format_value(member: Any, spec: str) -> str:
    return format(str(member.value), spec)


def _lightning_enum() -> Any:
    if find_spec("pytorch_lightning") is None:
        return None
    import_module("pytorch_lightning.trainer.states")  # the enums must exist to be mended
    return import_module("pytorch_lightning.utilities.enums").LightningEnum


def _family(base: Any) -> list[Any]:
    return [base, *(member for cls in base.__subclasses__() for member in _family(cls))]


def _refuses_file_store() -> bool:
    return _major("mlflow") >= 3 and MLFLOW_VARIABLE not in os.environ


def _allow_file_store() -> None:
    os.environ[MLFLOW_VARIABLE] = "true"


def _major(distribution: str) -> int:
    """First number of an installed distribution's version, 0 without it."""
    try:
        return int(version(distribution).split(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0


def _loads_weights_only() -> bool:
    import torch

    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (2, 6) and not hasattr(torch.load, _MARK)


def _load_objects_for_nndetection() -> None:
    import torch

    torch.load = reading_objects_for(TRUSTED_LOADERS, torch.load)


def reading_objects_for(packages: tuple[str, ...], load: Callable[..., Any]) -> Callable[..., Any]:
    """``load`` (torch's) whose ``weights_only`` is off by default for callers inside ``packages``, and only for them.

    What such a file describes is executed when it is read: nnDetection's checkpoints and sweep states are to be
    trusted as programs are.
    """

    @wraps(load)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if _package_of(sys._getframe(1)) in packages and kwargs.get("weights_only") is None:
            kwargs["weights_only"] = False
        return load(*args, **kwargs)

    setattr(wrapper, _MARK, True)
    return wrapper


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _plots_nothing() -> bool:
    if find_spec("nndet") is None or find_spec("seaborn") is None:
        return False
    return not hasattr(import_module(_ANALYSIS).plot_joint_iou_score, _PLOT_MARK)


def _skip_empty_plot() -> None:
    """nnDetection leaves the picture out when no case has boxes; the same for cases whose boxes all score too low."""
    analysis: Any = import_module(_ANALYSIS)
    plot = analysis.plot_joint_iou_score

    @wraps(plot)
    def wrapper(ious: Any, scores: Any) -> Any:
        return plot(ious, scores) if any(len(of_case) for of_case in ious) else None

    setattr(wrapper, _PLOT_MARK, True)
    analysis.plot_joint_iou_score = wrapper


REPAIRS: tuple[Repair, ...] = (
    Repair(
        "torch._six",
        "nndet/utils/tensor.py imports string_classes from it",
        "torch 2.0",
        _lacks_torch_six,
        _provide_torch_six,
    ),
    Repair(
        "seaborn styles",
        "nndet/utils/analysis.py uses the style seaborn-deep",
        "matplotlib 3.8",
        _lacks_seaborn_styles,
        _alias_seaborn_styles,
    ),
    Repair(
        "numpy.Inf",
        "pytorch_lightning/callbacks/model_checkpoint.py",
        "numpy 2.0",
        _lacks_inf,
        _restore_inf,
    ),
    Repair(
        "LightningEnum format",
        "pytorch_lightning/core/datamodule.py builds attribute names from its enums",
        "Python 3.11",
        _formats_by_name,
        _format_by_value,
    ),
    Repair(
        "mlflow file store",
        "scripts/train.py logs to ./mlruns",
        "mlflow 3",
        _refuses_file_store,
        _allow_file_store,
    ),
    Repair(
        "torch.load",
        "nndet/inference/loading.py and ensemblers, and Lightning's resume, read whole objects",
        "torch 2.6",
        _loads_weights_only,
        _load_objects_for_nndetection,
    ),
    Repair(
        "empty analysis plot",
        "nndet/utils/analysis.py draws IoU against score of no box at all: weak models, few cases",
        "seaborn, which needs a point",
        _plots_nothing,
        _skip_empty_plot,
    ),
)
"""In the order in which they must be made: Lightning only comes after those of torch and numpy, nndet after all."""

BEFORE_NNDET = REPAIRS[:-1]
"""Those that import nothing of nnDetection."""
