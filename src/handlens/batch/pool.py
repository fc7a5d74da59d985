"""Hand tasks to workers and take their rows; what a crash or a stuck picture costs is one try of one picture.

Boundary: tasks in, rows out in the order they are done. Knows no processes: a crew (``processes.py``, ``cluster.py``)
starts, reads and ends workers.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from handlens.batch.journal import Row
from handlens.batch.rows import make_row
from handlens.batch.task import Patience, Request, Task
from handlens.errors import ModelError

START_SECONDS = 600.0
"""A worker that has not opened its model by then is stuck."""


class WorkerEnded(Exception):
    """A worker died; the text says how."""


@runtime_checkable
class Worker(Protocol):
    """Something that answers one task at a time."""

    is_ready: bool
    """True once its model is open."""

    def ask(self, task: Task) -> None:
        """Begin a task; a worker that is not open yet begins it when it is."""
        ...

    def receive(self) -> tuple[Row, bool] | None:
        """Return a row and whether another try may help; None when it only says that its model is open.

        Raises:
            WorkerEnded: it died.
            ModelError: it cannot open the model.
        """
        ...

    def end(self) -> None:
        """End it at once."""
        ...


@runtime_checkable
class Crew(Protocol):
    """Starts workers of one kind and listens to them."""

    def start(self, request: Request) -> Any:
        """Return a new ``Worker``."""
        ...

    def wait(self, workers: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return those that have something to say, after ``seconds`` at most."""
        ...


def answer_all(
    tasks: Iterable[Task], request: Request, crew: Crew, *, num_workers: int = 1, patience: Patience | None = None
) -> Iterator[Row | None]:
    """Yield a row per task as it is done, and None about once a second while nothing is.

    Closing the iterator ends the workers.

    Raises:
        ModelError: a worker cannot open the model.
    """
    patience = patience or Patience()
    pool = _Pool(iter(tasks), request, crew, patience)
    try:
        while pool.hand_out(num_workers):
            yield None
            ready = crew.wait([place.worker for place in pool.busy], seconds=1.0)
            for place in pool.busy:
                if any(place.worker is worker for worker in ready):
                    row = pool.take(place)
                elif time.monotonic() > place.deadline:
                    row = pool.replace(place, f"no answer within {patience.limit_seconds:.0f} s")
                else:
                    continue
                if row is not None:
                    yield row
    finally:
        for place in pool.places:
            place.worker.end()


@dataclasses.dataclass(kw_only=True)
class _Place:
    """A worker and what it is at."""

    worker: Any
    task: Task | None = None
    deadline: float = 0.0


class _Pool:
    """Workers, and the tasks that wait for them."""

    def __init__(self, tasks: Iterator[Task], request: Request, crew: Crew, patience: Patience) -> None:
        self.tasks, self.request, self.crew, self.patience = tasks, request, crew, patience
        self.again: deque[Task] = deque()
        self.places: list[_Place] = []

    @property
    def busy(self) -> list[_Place]:
        return [place for place in self.places if place.task]

    def hand_out(self, num_workers: int) -> bool:
        """Give every idle worker a task, and start workers while there are tasks; False when all is done."""
        for place in self.places:
            if place.task is None and (task := self._next()):
                self._give(place, task)
        while len(self.places) < num_workers and (task := self._next()):
            self.places.append(_Place(worker=self.crew.start(self.request)))
            self._give(self.places[-1], task)
        return bool(self.busy)

    def take(self, place: _Place) -> Row | None:
        """Read what a worker says; None when there is no row yet."""
        try:
            said = place.worker.receive()
        except WorkerEnded as cause:
            return self.replace(place, str(cause))
        if said is None:
            place.deadline = time.monotonic() + self.patience.limit_seconds
            return None
        row, may_pass = said
        task, place.task = place.task, None
        assert task is not None, "a row came from a worker without a task"
        if may_pass and self._try_again(task):
            return None
        return row

    def replace(self, place: _Place, trouble: str) -> Row | None:
        """Start another worker in the place of one that is lost; return a row when its picture is given up."""
        place.worker.end()
        if not place.worker.is_ready:
            raise ModelError(f"a worker ended while it opened {self.request.model}: {trouble}")
        task, place.task = place.task, None
        assert task is not None, "an idle worker is not listened to"
        self.places.remove(place)
        if self._try_again(task):
            return None
        error = f"{task.item.key} {trouble}; tried {task.attempt} times"
        return make_row(task, model=self.request.model, question=self.request.question, status="failed", error=error)

    def _try_again(self, task: Task) -> bool:
        if task.attempt > self.patience.retries:
            return False
        self.again.append(dataclasses.replace(task, attempt=task.attempt + 1))
        return True

    def _next(self) -> Task | None:
        return self.again.popleft() if self.again else next(self.tasks, None)

    def _give(self, place: _Place, task: Task) -> None:
        place.task = task
        place.deadline = time.monotonic() + (self.patience.limit_seconds if place.worker.is_ready else START_SECONDS)
        place.worker.ask(task)
