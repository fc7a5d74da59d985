"""The offline page: a folder that a browser keeps and runs by itself, made of the served model when first asked for.

Boundary: hands out files; ``export/web.py`` makes them. No picture and no question reaches this server.
"""

import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlens.errors import HandlensError
from handlens.serve.settings import Refusal

if TYPE_CHECKING:
    from fastapi import FastAPI

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    # Only a page that stands alone may use threads.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
}


class OfflineFolder:
    """Makes the folder once, in a temporary place that is gone with the server."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self._lock = threading.Lock()
        self._kept: tempfile.TemporaryDirectory[str] | None = None
        self._files: dict[str, Path] = {}

    def files(self) -> dict[str, Path]:
        """Return the files by the path under which the page asks for them.

        Raises:
            HandlensError: the model does not run in a browser, or the extra is not installed.
        """
        with self._lock:
            if not self._files:
                self._kept = self._kept or tempfile.TemporaryDirectory(prefix="handlens-offline-")
                try:
                    folder = pack(self.model, Path(self._kept.name) / "page")
                except BaseException:
                    self.close()
                    raise
                files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
                self._files = files | {"": files["index.html"]}
            return self._files

    def close(self) -> None:
        """Remove the folder."""
        if self._kept is not None:
            self._kept.cleanup()
            self._kept = None


def pack(model: Path, out: Path) -> Path:
    """Write the page of a bundle into a folder.

    Raises:
        NeedsExtra: what writes graphs is not installed.
        HandlensError: the model does not run in a browser.
    """
    from handlens.errors import NeedsExtra

    try:
        from handlens.export.web import export_web
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"the offline page ({cause.name} is missing)", "serve") from None
    return export_web(model, out)


def add_offline_routes(app: "FastAPI", offline: OfflineFolder) -> None:
    """Serve the folder under ``/offline/``."""
    import asyncio

    from fastapi.responses import FileResponse, RedirectResponse

    async def file(name: str) -> FileResponse:
        try:
            files = await asyncio.to_thread(offline.files)
        except HandlensError as cause:
            raise Refusal(404, f"no offline page: {cause}") from None
        if name not in files:
            raise Refusal(404, f"the offline page has no file {name!r}")
        found = files[name]
        kind = KINDS.get(found.suffix, "application/octet-stream")
        return FileResponse(found, media_type=kind, headers=HEADERS)

    async def without_slash() -> Any:
        return RedirectResponse("/offline/")

    app.add_api_route("/offline", without_slash, include_in_schema=False, methods=["GET", "HEAD"])
    app.add_api_route(
        "/offline/{name:path}", file, include_in_schema=False, methods=["GET", "HEAD"], response_model=None
    )
