"""Searches of spaces too large to try every setting: from coarse to fine, or sampled by Optuna."""

from __future__ import annotations

from importlib import import_module
from itertools import product
from typing import Any

from nndet_psma.core.errors import UserError
from nndet_psma.core.progress import progress_bar
from nndet_psma.postproc.sweep.search_space import Point, SearchSpace

_ROUNDS = 20  # a bound for the bar only; rounds end when nothing improves


def coarse_to_fine(space: SearchSpace) -> Point:
    """Search block by block, first on a coarse lattice, then ever finer round the best point.

    A block holds the thresholds of one step. In the first round a block is tried at every fourth value of each of its
    axes, all combinations; later rounds try the neighbours at half the distance, until single steps bring nothing. It
    finds a setting that no change of one step improves, not surely the best of all.

    Returns:
        The best point; of equals the one tried first.
    """
    best = space.start
    space.value(best)
    longest = max((len(values) for values in space.axes.values()), default=1)
    stride = 4 if longest > 4 else 2 if longest > 2 else 1
    with progress_bar("search", _ROUNDS) as advance:
        done, everywhere = 0, True
        while True:
            before = best
            for block in space.blocks():
                best = _best_in_block(space, best, block, stride, everywhere)
            done += 1
            advance(min(done, _ROUNDS - 1), f"{len(space.rows)} settings")
            if best == before and not everywhere:
                if stride == 1:
                    return best
                stride //= 2
            everywhere = False


def _best_in_block(
    space: SearchSpace, start: Point, block: list[int], stride: int, everywhere: bool
) -> Point:
    lengths = [len(values) for values in space.axes.values()]
    choices = []
    for axis in block:
        here = start[axis]
        wide = [*range(0, lengths[axis], stride), lengths[axis] - 1]
        places = wide if everywhere else [here - stride, here + stride]
        others = {place for place in places if place != here and 0 <= place < lengths[axis]}
        choices.append([here, *sorted(others)])
    best = start
    for chosen in product(*choices):
        point = list(start)
        for axis, place in zip(block, chosen, strict=True):
            point[axis] = place
        if space.value(tuple(point)) > space.value(best):
            best = tuple(point)
    return best


def sampled(space: SearchSpace, *, trials: int, seed: int) -> Point:
    """Search with Optuna's tree-structured Parzen estimator, starting from the base settings.

    Raises:
        UserError: Optuna is not installed.
    """
    optuna = _import_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(dict(zip(space.axes, space.start, strict=True)))

    with progress_bar("trials", trials) as advance:

        def objective(trial: Any) -> float:
            places = [trial.suggest_int(name, 0, len(values) - 1) for name, values in space.axes.items()]
            advance(trial.number + 1)
            return space.value(tuple(places))

        study.optimize(objective, n_trials=trials)
    return space.best()


def _import_optuna() -> Any:
    try:
        return import_module("optuna")
    except ImportError:
        raise UserError(
            "sweep.search=optuna needs the package optuna",
            remedy="Install it (pip install optuna), or use sweep.search=coarse",
        ) from None
