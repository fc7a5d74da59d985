"""A progress bar with rate and time left, on stderr, only where a person watches.

Boundary: rich, imported when a bar is shown.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

Advance = Callable[..., None]
"""``advance(done, of, note="")``: work done and wanted, and a few words of news."""


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Advance]:
    """Give a function that moves the bar; it does nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of, note="", name=title: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]}} {unit}/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None, rate="-", note="")

        def advance(done: int, of: int, note: str = "", name: str = title) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.3g}" if speed else "-"
            if bar.tasks[0].description != name:
                bar.reset(task, description=name)
            bar.update(task, completed=done, total=of, rate=rate, note=note)

        yield advance
