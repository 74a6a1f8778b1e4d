"""One function over many cases, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_end
from typing import TypeVar

from nndet_psma.core.errors import UserError
from nndet_psma.core.progress import Advance, progress_bar

_THREADS_OF_ITK = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], num_processes: int = 1, *, title: str = "cases"
) -> list[Result]:
    """Results of ``function`` in the order of ``items``; errors of a worker are raised here.

    Workers stay for the next call, so that a command whose stages all use them starts them, and imports image
    libraries in them, once. An error stops the work: what no worker has begun is not begun.

    Args:
        function: importable by name (workers are started fresh), one argument.
        items: arguments.
        num_processes: 1 runs here, without workers.
        title: of the progress shown while the work lasts.

    Raises:
        UserError: a worker was killed, as happens when memory runs out.
    """
    with progress_bar(title, len(items)) as advance:
        if num_processes <= 1 or len(items) <= 1:
            return _told((function(item) for item in items), advance)
        return _told(_of_workers(function, items, num_processes), advance)


def _told(results: Iterable[Result], advance: Advance) -> list[Result]:
    found: list[Result] = []
    for result in results:
        found.append(result)
        advance(len(found))
    return found


def _of_workers(
    function: Callable[[Item], Result], items: Sequence[Item], num_processes: int
) -> Iterator[Result]:
    futures: list[Future[Result]] = []
    try:
        pool = _POOL.of(num_processes)
        futures += [pool.submit(function, item) for item in items]
        for future in futures:
            yield future.result()
    except BrokenProcessPool:
        _POOL.close()
        raise UserError(
            "a worker process was killed, most likely because memory ran out",
            found=f"{num_processes} processes",
            remedy="Start again with fewer processes; finished cases are kept",
        ) from None
    finally:
        waiting = [future for future in futures if not future.cancel()]
        wait_for(waiting)


def usable_cores() -> int:
    """Cores that this process may run on, which a scheduler may have made fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Pool:
    """The worker processes of this process; they end with it."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._size = 0

    def of(self, size: int) -> ProcessPoolExecutor:
        """At most ``size`` workers; as many as there is work for are started."""
        if self._executor is None or self._size != size:
            self.close()
            # image libraries hold threads, which a forked process would inherit half-alive: start workers fresh
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(size, mp_context=context, initializer=_begin)
            self._size = size
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown()
        self._executor = None


_POOL = _Pool()


def _begin() -> None:
    """What every worker does first."""
    # workers share the cores among themselves; ITK would give each of them all
    os.environ.setdefault(_THREADS_OF_ITK, "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker of a killed command must not go on writing while the command is started again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)
