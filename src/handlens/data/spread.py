"""The same function over many samples: in this process, in several, or on a Ray cluster; the order stays.

Boundary: items and results travel by pickle. A worker that dies is replaced and its items are done again.
"""

import contextlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from handlens.errors import NeedsExtra, SettingError, did_you_mean
from handlens.measure.telemetry import switch_off

BATCH = 16
"""Items that travel together."""
AHEAD = 4
"""Batches a worker that are on their way at once; more only fills memory."""
STARTS = 4
"""Attempts to start a cluster."""
MAX_DEATHS = 5
"""Deaths of workers without a finished batch between them, after which an item is to blame."""

Apply = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


@contextlib.contextmanager
def spread_over(engine: str = "local", jobs: int = 1) -> Iterator[Apply]:
    """Give a ``map`` that runs on an engine, ``local`` or ``ray``.

    Raises:
        SettingError: an unknown engine.
        NeedsExtra: ray is missing.
    """
    if engine == "local":
        yield map if jobs == 1 else lambda function, items: _in_processes(function, items, jobs)
    elif engine == "ray":
        with _ray(jobs) as ray:
            yield lambda function, items: _on_ray(ray, function, items, jobs)
    else:
        raise SettingError(f"unknown engine '{engine}'{did_you_mean(engine, ['local', 'ray'])}")


def run_batch(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """Return the results of one batch."""
    return [function(item) for item in items]


def _in_processes(function: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Iterator[Any]:
    batches = _batches(items)
    waiting: deque[tuple[list[Any], Future[list[Any]]]] = deque()
    deaths = 0
    pool = ProcessPoolExecutor(jobs, get_context("spawn"))

    def submit(batch: list[Any]) -> Future[list[Any]]:
        try:
            return pool.submit(run_batch, function, batch)
        except BrokenProcessPool as dead:  # a worker has died meanwhile; whoever waits for this batch learns of it
            lost: Future[list[Any]] = Future()
            lost.set_exception(dead)
            return lost

    try:
        while True:
            while len(waiting) < jobs * AHEAD and (batch := next(batches, None)) is not None:
                waiting.append((batch, submit(batch)))
            if not waiting:
                return
            batch, future = waiting[0]
            try:
                results = future.result()
            except BrokenProcessPool:
                deaths += 1
                if deaths > MAX_DEATHS:
                    raise SettingError(
                        f"workers died {deaths} times at one batch; give them more memory or fewer --jobs"
                    ) from None
                pool.shutdown(wait=False)
                pool = ProcessPoolExecutor(jobs, get_context("spawn"))
                waiting = deque((batch, submit(batch)) for batch, _ in waiting)
                continue
            waiting.popleft()
            deaths = 0
            yield from results
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _ray(jobs: int) -> Iterator[Any]:
    switch_off()
    try:
        import ray
    except ImportError:
        raise NeedsExtra("--engine ray", "ray") from None
    started = not ray.is_initialized()
    if started:
        _start(ray, jobs)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def _start(ray: Any, jobs: int) -> None:
    """Join the cluster of RAY_ADDRESS, or start one of this machine; a busy one may pass Ray's limit of 30 s."""
    given = os.environ.get("RAY_ADDRESS")
    # "local", or Ray joins a cluster that somebody else has on this machine, and refuses a number of processors.
    where = {"address": given} if given else {"address": "local", "num_cpus": jobs}
    for attempt in range(STARTS):
        try:
            ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            return
        except Exception as cause:  # ray raises a plain Exception here
            ray.shutdown()
            if attempt == STARTS - 1:
                line = str(cause).splitlines()[0]
                raise SettingError(f"Ray does not start ({line}); try again, or use --engine local") from None


def _on_ray(ray: Any, function: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Iterator[Any]:
    """Run batches as Ray tasks, which are done again when their worker or its node dies."""
    task = ray.remote(max_retries=-1)(run_batch)
    held = ray.put(function)
    batches = _batches(items)
    waiting: deque[Any] = deque(task.remote(held, batch) for batch in itertools.islice(batches, jobs * AHEAD))
    while waiting:
        yield from ray.get(waiting.popleft())
        waiting.extend(task.remote(held, batch) for batch in itertools.islice(batches, 1))


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch
