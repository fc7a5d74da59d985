"""Workers as processes of this machine: a crash of a decoder or of an engine ends one of them and nothing else.

Boundary: starts, listens to and ends processes; what they do stands in ``worker.py``.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import wait

from handlens.batch.journal import Row
from handlens.batch.pool import WorkerEnded
from handlens.batch.task import Request, Task
from handlens.batch.worker import work
from handlens.errors import ModelError


class ProcessWorker:
    """One process with a model."""

    def __init__(self, request: Request) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, request), daemon=True)
        self.process.start()
        theirs.close()
        self.is_ready = False

    def ask(self, task: Task) -> None:
        """Begin a task."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died meanwhile: receive() will say so
            self.pipe.send(task)

    def receive(self) -> tuple[Row, bool] | None:
        """Return a row and whether another try may help; None when the model is open."""
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            raise WorkerEnded(self._how_it_ended()) from None
        if self.is_ready:
            return message
        if message is not None:
            raise ModelError(message)
        self.is_ready = True
        return None

    def end(self) -> None:
        """Kill it: it holds nothing but the model."""
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join(timeout=10)

    def _how_it_ended(self) -> str:
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"ended its process ({name}{': out of memory?' if name == 'SIGKILL' else ''})"
        return f"ended its process (exit code {code})"


class Processes:
    """Starts processes and listens to all of them at once."""

    def start(self, request: Request) -> ProcessWorker:
        """Return a new worker."""
        return ProcessWorker(request)

    def wait(self, workers: Sequence[ProcessWorker], seconds: float) -> Sequence[ProcessWorker]:
        """Return those that said something or ended."""
        ready = wait([worker.pipe for worker in workers], timeout=seconds)
        return [worker for worker in workers if worker.pipe in ready]
