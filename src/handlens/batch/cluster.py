"""Workers as actors of a Ray cluster.

Boundary: starts, listens to and ends actors. Files are read where a worker runs, so every node has to see the folder
under the same path.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from handlens.batch.journal import Row
from handlens.batch.pool import Crew, WorkerEnded
from handlens.batch.task import Request, Task
from handlens.batch.worker import answer_task, open_model
from handlens.errors import HandlensError, ModelError, SettingError, did_you_mean

if TYPE_CHECKING:
    from handlens.asking import Model

ENGINES = ("local", "ray")
START_SECONDS = "300"
"""Ray's own 30 s are too short for a busy machine."""


@contextlib.contextmanager
def crew_of(engine: str, num_workers: int) -> Iterator[Crew]:
    """Give workers of an engine: ``local`` processes, or ``ray`` on the cluster of RAY_ADDRESS or of this machine.

    Raises:
        SettingError: an unknown engine.
        NeedsExtra: ray is missing.
    """
    if engine == "local":
        from handlens.batch.processes import Processes

        yield Processes()
    elif engine == "ray":
        from handlens.data.spread import spread_over

        os.environ.setdefault("RAY_raylet_start_wait_time_s", START_SECONDS)
        with spread_over("ray", num_workers):  # starts the cluster, or joins it, and leaves it
            yield Actors()
    else:
        raise SettingError(f"unknown engine '{engine}'{did_you_mean(engine, ENGINES)}")


class Asker:
    """What an actor holds: the model, opened before the first task."""

    model: "Model"

    def __init__(self, request: Request) -> None:
        self.request = request

    def open(self) -> str:
        """Open the model; return why it cannot be opened, or nothing."""
        try:
            self.model = open_model(self.request)
        except HandlensError as cause:
            return str(cause)
        return ""

    def answer(self, task: Task) -> tuple[Row, bool]:
        """Return a row and whether another try may help."""
        return answer_task(self.model, self.request, task)


class ActorWorker:
    """One actor."""

    def __init__(self, ray: Any, request: Request) -> None:
        self.ray = ray
        self.actor = ray.remote(num_cpus=1, max_restarts=0)(Asker).remote(request)
        self.is_ready = False
        self.opened = self.answered = self.actor.open.remote()

    def ask(self, task: Task) -> None:
        """Begin a task."""
        self.answered = self.actor.answer.remote(task)

    @property
    def next(self) -> Any:
        """What it says next."""
        return self.answered if self.is_ready else self.opened

    def receive(self) -> tuple[Row, bool] | None:
        """Return a row and whether another try may help; None when the model is open."""
        try:
            said = self.ray.get(self.next)
        except self.ray.exceptions.RayActorError as cause:
            raise WorkerEnded(f"ended its actor ({str(cause).splitlines()[0]})") from None
        if self.is_ready:
            return said
        if said:
            raise ModelError(said)
        self.is_ready = True
        return None

    def end(self) -> None:
        """End the actor."""
        with contextlib.suppress(Exception):  # the cluster may be gone
            self.ray.kill(self.actor)


class Actors:
    """Starts actors and listens to all of them at once."""

    def __init__(self) -> None:
        import ray

        self.ray = ray

    def start(self, request: Request) -> ActorWorker:
        """Return a new worker."""
        return ActorWorker(self.ray, request)

    def wait(self, workers: Sequence[ActorWorker], seconds: float) -> Sequence[ActorWorker]:
        """Return those that said something or ended."""
        ready, _ = self.ray.wait([worker.next for worker in workers], timeout=seconds)
        return [worker for worker in workers if worker.next in ready]
