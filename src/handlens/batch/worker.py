"""Ask one model about one picture after the other; whatever a picture does, a row comes back.

Boundary: a task in, a row out; whoever gives the tasks decides what is tried again.
"""

import contextlib
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlens.batch.journal import Row
from handlens.batch.rows import make_row
from handlens.batch.task import Request, Task

if TYPE_CHECKING:
    from handlens.asking import Model
    from handlens.core.images import Picture


def work(pipe: Connection, request: Request) -> None:
    """Answer tasks until the other end closes; the first message is None, or why no model could be opened."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    from handlens.errors import HandlensError
    from handlens.measure.network import seal

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            model = open_model(request)
            seal()
        except HandlensError as cause:
            pipe.send(str(cause))
            return
        pipe.send(None)
        while True:
            pipe.send(answer_task(model, request, pipe.recv()))


def open_model(request: Request) -> "Model":
    """Return the model, held in memory for many questions."""
    import handlens
    from handlens.asking import Model
    from handlens.engine.answerer import open_bundle
    from handlens.models.store import find_model

    folder = None if request.threads is None else find_model(request.model)
    if folder is None or not (folder / "manifest.json").is_file():
        return handlens.load(request.model, keep=True, cache=request.cache, profile=request.profile)
    return Model(open_bundle(
        folder, keep=True, cache=request.cache, profile=request.profile, threads=request.threads,
    ))  # fmt: skip


def answer_task(model: "Model", request: Request, task: Task) -> tuple[Row, bool]:
    """Return the row of one picture, and whether another try may help; nothing that goes wrong is raised."""
    from handlens.errors import HandlensError, ImageError

    may_pass = False
    try:
        known = _answer(model, request, _open(task, request))
    except ImageError as cause:
        known = {"status": "damaged", "error": _one_line(cause)}
    except HandlensError as cause:
        known = {"status": "failed", "error": _one_line(cause)}
    except Exception as cause:  # one picture must not end ten thousand
        may_pass = True
        known = {"status": "failed", "error": f"unexpected {type(cause).__name__}: {_one_line(cause)}"}
    return make_row(task, model=model.info.name, question=request.question, **known), may_pass


def _answer(model: "Model", request: Request, picture: "Picture") -> dict[str, Any]:
    from handlens.core.sampling import Sampling

    seen = model.look(picture, max_slices=request.max_slices)
    answer = model.ask(seen, request.question, sampling=Sampling(max_tokens=request.max_tokens))
    slices = seen.plans[0].num_slices
    return {
        "answer": answer.text, "ended": answer.ended, "width_px": picture.image.width,
        "height_px": picture.image.height, "slices": slices, "visual_tokens": slices * model.info.num_queries,
        "tokens": len(answer.tokens),
    }  # fmt: skip


def _open(task: Task, request: Request) -> "Picture":
    from handlens.core.pages import open_any, open_pages

    item = task.item
    if item.page is not None:
        return open_pages(item.path, [item.page], request.dpi, max_pixels=request.max_pixels)[0]
    return open_any(Path(item.path), dpi=request.dpi, max_pixels=request.max_pixels)


def _one_line(cause: Exception) -> str:
    return " ".join(str(cause).split())
