"""What is tried again, how often, and what is given up; with workers that do as they are told."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from handlens.batch.items import Item
from handlens.batch.pool import WorkerEnded, answer_all
from handlens.batch.rows import make_row
from handlens.batch.task import Patience, Request, Task
from handlens.errors import ModelError

REQUEST = Request(model="m", question="q")


class Scripted:
    """A worker whose pictures say by name what they do to it: dies, hangs, throws, or answers."""

    def __init__(self, crew: "ScriptedCrew") -> None:
        self.crew, self.is_ready, self.task, self.ended = crew, False, None, False

    def ask(self, task: Task) -> None:
        assert self.task is None
        assert not self.ended
        self.task = task

    def receive(self):
        if not self.is_ready:
            if self.crew.cannot_open:
                raise WorkerEnded("fell over")
            self.is_ready = True
            return None
        task, self.task = self.task, None
        name = task.item.name
        if name.startswith("dies") or (name.startswith("once") and task.attempt == 1):
            raise WorkerEnded("died")
        if name.startswith("throws"):
            return make_row(task, model="m", question="q", status="failed", error="thrown"), True
        return make_row(task, model="m", question="q", answer=name), False

    def end(self) -> None:
        self.ended = True


class ScriptedCrew:
    def __init__(self, *, cannot_open: bool = False) -> None:
        self.workers: list[Scripted] = []
        self.cannot_open = cannot_open

    def start(self, request: Request) -> Scripted:
        self.workers.append(Scripted(self))
        return self.workers[-1]

    def wait(self, workers: Sequence[Scripted], seconds: float) -> Sequence[Scripted]:
        return [worker for worker in workers if not (worker.is_ready and worker.task.item.name.startswith("hangs"))]


def tasks(*names: str) -> list[Task]:
    return [Task(item=Item(path=Path(name), name=name), sha256="") for name in names]


@pytest.mark.parametrize("num_workers", [1, 3, 50])
def test_every_task_has_one_row_whatever_happens(num_workers: int):
    crew = ScriptedCrew()
    names = [f"{kind} {number}" for number in range(7) for kind in ("well", "dies", "once", "throws", "hangs")]
    patience = Patience(retries=2, limit_seconds=0.0)
    rows = [row for row in answer_all(tasks(*names), REQUEST, crew, num_workers=num_workers, patience=patience) if row]
    assert sorted(row["file"] for row in rows) == sorted(names)
    found = {row["file"].split()[0]: (row["status"], row["attempts"], row["error"]) for row in rows}
    assert found == {
        "well": ("ok", 1, None),
        "once": ("ok", 2, None),
        "throws": ("failed", 3, "thrown"),
        "dies": ("failed", 3, found["dies"][2]),
        "hangs": ("failed", 3, found["hangs"][2]),
    }
    assert found["dies"][2].endswith("died; tried 3 times")
    assert found["hangs"][2].endswith("no answer within 0 s; tried 3 times")
    assert all(worker.ended for worker in crew.workers)


def test_no_more_workers_than_tasks_and_none_without_a_task():
    for names, expected in (((), 0), (("a",), 1), (("a", "b"), 2)):
        crew = ScriptedCrew()
        list(answer_all(tasks(*names), REQUEST, crew, num_workers=4))
        assert len(crew.workers) == expected


def test_a_model_that_cannot_be_opened_ends_the_run_and_all_workers():
    crew = ScriptedCrew(cannot_open=True)
    with pytest.raises(ModelError, match="ended while it opened m: fell over"):
        list(answer_all(tasks("a", "b"), REQUEST, crew, num_workers=2))
    assert all(worker.ended for worker in crew.workers)


def test_leaving_early_ends_all_workers():
    crew = ScriptedCrew()
    rows = answer_all(tasks("a", "b", "c"), REQUEST, crew, num_workers=2)
    while next(rows) is None:
        pass
    rows.close()
    assert [worker.ended for worker in crew.workers] == [True, True]


def test_an_actor_says_why_its_model_does_not_open():
    from handlens.batch.cluster import Asker

    assert Asker(Request(model="nanu", question="q")).open().startswith("unknown model 'nanu'; ")
