"""Every benchmark that is known: one file per family, found by its ``TASKS``.

Boundary: imports the files when a list or a task is wanted; a file outside the package is a task too.
"""

import importlib
import importlib.util
import pkgutil
from functools import cache
from pathlib import Path

from handlens.errors import SettingError, did_you_mean
from handlens.eval.task import Task


@cache
def known_tasks() -> dict[str, Task]:
    """Return name -> task of every file in this folder, in alphabetical order of the names."""
    found: dict[str, Task] = {}
    for module in pkgutil.iter_modules(__path__):
        for task in importlib.import_module(f"{__name__}.{module.name}").TASKS:
            if task.name in found:
                raise ValueError(f"two tasks are named {task.name}")
            found[task.name] = task
    return dict(sorted(found.items()))


def find_tasks(names: str) -> list[Task]:
    """Return the tasks named in a text with commas; a name that ends with ``.py`` is a file with ``TASKS``.

    Raises:
        SettingError: a name is unknown, or a file cannot be used.
    """
    chosen: dict[str, Task] = {}
    for name in (part.strip() for part in names.split(",")):
        if name.endswith(".py"):
            chosen |= {task.name: task for task in _tasks_in(Path(name))}
        elif name:
            known = known_tasks()
            if name not in known:
                raise SettingError(f"unknown task '{name}'{did_you_mean(name, known)} (see: handlens eval --list)")
            chosen[name] = known[name]
    if not chosen:
        raise SettingError("no task is named; give names with commas between them (see: handlens eval --list)")
    return list(chosen.values())


def _tasks_in(file: Path) -> list[Task]:
    if not file.is_file():
        raise SettingError(f"the task file {file} does not exist; needed is a Python file with TASKS = (Task(...),)")
    spec = importlib.util.spec_from_file_location(f"handlens_task_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as cause:
        raise SettingError(
            f"the task file {file} cannot be read ({type(cause).__name__}: {cause}); correct it"
        ) from None
    tasks = list(getattr(module, "TASKS", ()))
    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise SettingError(f"the task file {file} has no TASKS = (Task(...),); see docs/add-a-benchmark.md")
    return tasks
