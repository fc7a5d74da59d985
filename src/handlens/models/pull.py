"""Fetch a model from the Hugging Face hub: resumed, compared by hash, whole or not at all.

Boundary: the network, through ``huggingface_hub``. No code and no pickle is fetched.
"""

import functools
import hashlib
import importlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from handlens.engine.bundle import sha256_of
from handlens.errors import ModelError
from handlens.measure.telemetry import switch_off
from handlens.models.store import UNFINISHED, folder_of

RECORD = "handlens-pull.json"
"""Where the model came from, with the hash of every file."""
WANTED = ("*.safetensors", "*.json", "*.model", "*.gguf", "*.onnx", "*.txt", "*.jinja", "README.md", "LICENSE*")
REFUSED = ("*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")

PART = ".part"
"""Ending of a file that is still being fetched."""
CHUNK_BYTES = 1 << 16
PARTIAL_CONTENT = 206
MOST_FAILS = 5
"""Tries in a row that bring nothing."""
WAIT_SECONDS = 1.0

Advance = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a repository."""

    name: str
    num_bytes: int
    sha256: str | None
    """Of large files."""
    git_hash: str | None
    """Of small files: sha1 of ``blob <size>`` and the content."""


def pull_model(
    name: str, *, revision: str | None = None, only: Sequence[str] = (), advance: Advance | None = None
) -> Path:
    """Fetch a repository into the store; what was fetched before is kept and checked.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; None takes the latest.
        only: patterns of files, for example ``*Q4_K_M.gguf``; empty takes all that a model needs.
        advance: told bytes done, bytes wanted and the file.

    Raises:
        ModelError: no network, no such repository, no right to read it, or a file that arrives damaged.
    """
    if name.count("/") != 1:
        raise ModelError(f"'{name}' is no name on Hugging Face; give owner/name, for example openbmb/MiniCPM-V-2_6")
    folder = folder_of(name)
    if folder.is_dir() and not only:
        check_pulled(folder)
        return folder
    unfinished = folder.with_name(folder.name + UNFINISHED)
    commit, licence, files = _ask_hub(name, revision)
    chosen = [file for file in files if _is_wanted(file.name, only)]
    if not chosen:
        raise ModelError(f"{name} has no file that a model needs" + (f" among {', '.join(only)}" if only else ""))
    total, done = sum(file.num_bytes for file in chosen), 0
    _check_space(folder.parent, total)
    for file in chosen:
        _fetch(name, commit, file, unfinished, functools.partial(_tell, advance, done, total, file.name))
        done += file.num_bytes
    record = {
        "repository": name,
        "revision": commit,
        "licence": licence,
        "files": {file.name: {"bytes": file.num_bytes, "sha256": sha256_of(unfinished / file.name)} for file in chosen},
    }
    (unfinished / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder


def _tell(advance: Advance | None, done: int, total: int, name: str, count: int) -> None:
    """Move the bar."""
    if advance:
        advance(done + count, total, name)


def check_pulled(folder: Path) -> None:
    """Compare every file with the hash that it had when it was fetched.

    Raises:
        ModelError: a file is missing or changed.
    """
    try:
        files = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return
    for name, facts in files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != facts["sha256"]:
            raise ModelError(f"{folder / name} is missing or changed; `handlens models rm` the model and pull it again")


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    if any(fnmatch(name, pattern) for pattern in REFUSED) or ".." in Path(name).parts:
        return False
    return any(fnmatch(name, pattern) for pattern in (only or WANTED))


def _ask_hub(name: str, revision: str | None) -> tuple[str, str, list[RemoteFile]]:
    """Return commit, licence and files of a repository."""
    switch_off()
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it tells of every new try; we say one line when the last one failed
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
    except Exception as cause:  # the library and its transport raise many kinds
        raise _explained(name, cause) from None
    licence = str(getattr(info.card_data, "license", None) or "unknown")
    files = [
        RemoteFile(
            name=sibling.rfilename,
            num_bytes=int(sibling.size or 0),
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            git_hash=sibling.blob_id,
        )
        for sibling in info.siblings or ()
    ]
    return str(info.sha), licence, files


def _fetch(name: str, commit: str, file: RemoteFile, folder: Path, count: Callable[[int], Any]) -> None:
    """Fetch one file, going on where an earlier try stopped, and compare its hash."""
    target = folder / file.name
    if target.is_file() and _is_whole(target, file):
        count(file.num_bytes)
        return
    part = target.with_name(target.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download(name, commit, file, part, count)
    except OSError as cause:
        if cause.errno is None:  # of the transport
            raise _explained(name, cause) from None
        raise ModelError(f"cannot write {part}: {cause.strerror}; make room or set HANDLENS_CACHE") from None
    except Exception as cause:  # the library and its transport raise many kinds
        raise _explained(name, cause) from None
    if not _is_whole(part, file):
        part.unlink(missing_ok=True)
        raise ModelError(f"{file.name} of {name} arrived damaged: its hash differs; pull it again")
    part.replace(target)


def _download(name: str, commit: str, file: RemoteFile, part: Path, count: Callable[[int], Any]) -> None:
    """Append to ``part`` until it has all bytes; a line that breaks is tried again while it still brings something.

    The library itself begins a file anew in every process, so its own downloads cannot be taken up.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    session = get_session()
    broken = importlib.import_module(type(session).__module__.partition(".")[0]).TransportError
    url = hf_hub_url(name, file.name, revision=commit)
    fails = 0
    while (begin := part.stat().st_size if part.is_file() else 0) < file.num_bytes or not part.is_file():
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={begin}-"} if begin else {}
        try:
            with session.stream("GET", url, headers=headers, follow_redirects=True) as response:
                hf_raise_for_status(response)
                is_rest = response.status_code == PARTIAL_CONTENT
                with part.open("ab" if is_rest else "wb") as stream:
                    for chunk in response.iter_bytes(CHUNK_BYTES):
                        stream.write(chunk)
                        count(stream.tell())
        except broken:
            has_moved = part.is_file() and part.stat().st_size > begin
            fails = 0 if has_moved else fails + 1
            if fails == MOST_FAILS:
                raise
            time.sleep(WAIT_SECONDS)
            continue
        if part.stat().st_size <= begin and file.num_bytes:
            return  # nothing more comes; the hash says what is wrong


def _is_whole(target: Path, file: RemoteFile) -> bool:
    if target.stat().st_size != file.num_bytes:
        return False
    if file.sha256:
        return sha256_of(target) == file.sha256
    if not file.git_hash:
        return True
    content = target.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.git_hash


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"the model has {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free; "
            "make room or set HANDLENS_CACHE"
        )


def _explained(name: str, cause: Exception) -> ModelError:
    """Return one line for a failure of the hub or of the network."""
    kind = type(cause).__name__
    if kind == "GatedRepoError":
        return ModelError(f"{name} asks readers to accept a licence; do so on huggingface.co, then `hf auth login`")
    if kind == "RevisionNotFoundError":
        return ModelError(f"{name} has no such revision; give a branch, tag or commit that exists")
    if kind in ("RepositoryNotFoundError", "HFValidationError"):
        return ModelError(f"Hugging Face has no model {name}, or it is private; check the name, or `hf auth login`")
    if kind in ("HfHubHTTPError", "EntryNotFoundError"):
        return ModelError(f"Hugging Face refused {name}: {' '.join(str(cause).split())[:200]}; try again later")
    return ModelError(
        f"cannot reach Hugging Face for {name} ({kind}); what was fetched is kept: run it again with a network, or "
        "copy the folder from another machine and give its path"
    )
