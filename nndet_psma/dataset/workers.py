"""One function over many cases, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nndet_psma.core.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], num_processes: int = 1
) -> list[Result]:
    """Results of ``function`` in the order of ``items``; errors of a worker are raised here.

    Args:
        function: importable by name (workers are started fresh), one argument.
        items: arguments.
        num_processes: 1 runs here, without workers.

    Raises:
        UserError: a worker was killed, as happens when memory runs out.
    """
    if num_processes <= 1 or len(items) <= 1:
        return [function(item) for item in items]
    # image libraries hold threads, which a forked process would inherit half-alive: start workers fresh
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(num_processes, len(items)), mp_context=context) as pool:
            return list(pool.map(function, items))
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, most likely because memory ran out",
            found=f"{num_processes} processes",
            remedy="Start again with fewer processes; finished cases are kept",
        ) from None
