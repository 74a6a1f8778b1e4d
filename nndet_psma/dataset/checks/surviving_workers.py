"""Run a check over many cases so that a process that dies costs one case, not all."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nndet_psma.core.errors import UserError
from nndet_psma.core.workers import map_cases

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_surviving(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_processes: int,
    died: Callable[[Item], Result],
) -> list[Result]:
    """Results of ``function`` in the order of ``items``; ``died`` stands in where a worker was killed.

    A pool does not say which item killed it. So when one breaks, every item is run again in a process of its own.

    Args:
        function: importable by name, one argument, raises nothing.
        items: arguments.
        num_processes: 1 runs here: then nothing stands in for a killed process.
        died: result for an item whose process was killed.
    """
    try:
        return map_cases(function, items, num_processes, title="check")
    except UserError:
        return [_alone(function, item, died) for item in items]


def _alone(function: Callable[[Item], Result], item: Item, died: Callable[[Item], Result]) -> Result:
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, item).result()
    except BrokenProcessPool:
        return died(item)
