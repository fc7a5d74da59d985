"""``handlens serve``: a model behind an OpenAI-compatible API, and a page to ask it."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from handlens.core.images import MAX_PIXELS


@click.command()
@click.argument("model", default="nano")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="HANDLENS_API_KEY", default="", help="Ask clients for this key.")
@click.option("--allow-urls", "allow_remote", is_flag=True, help="Fetch pictures from public http(s) addresses.")
@click.option("--max-waiting", type=click.IntRange(min=1), default=32, show_default=True, help="Then 429.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Longest answer.")
@click.option("--max-seconds", type=click.IntRange(min=1), default=120, show_default=True, help="For one request.")
@click.option("--max-megabytes", type=click.IntRange(min=1), default=32, show_default=True, help="Largest request.")
@click.option(
    "--max-pixels", type=click.IntRange(min=1, max=MAX_PIXELS), default=40_000_000, show_default=True,
    help="Largest picture.",
)  # fmt: skip
@click.option("--workers-url", "workers", multiple=True, help="Pass requests on to this server; repeatable.")
@click.option(
    "--save-offline", "saved", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
    help="Write the offline page as files for any web server, and end.",
)  # fmt: skip
def serve(
    model: str, host: str, port: int, workers: tuple[str, ...], max_megabytes: int, saved: Path | None, **limits: Any
) -> None:
    """Serve a model over HTTP, with a page to ask it.

    \b
    handlens serve nano --port 8000
    handlens serve nano.bundle --host 0.0.0.0 --api-key SECRET
    handlens serve --port 8000 --workers-url http://127.0.0.1:8001 --workers-url http://127.0.0.1:8002

    The API is OpenAI's: base URL http://127.0.0.1:8000/v1, and the page is http://127.0.0.1:8000. The page
    http://127.0.0.1:8000/offline/ runs nano in the browser itself and works without a network from then on.
    Needs the extra 'serve'.
    """  # noqa: D301
    from handlens.errors import NeedsExtra
    from handlens.serve.settings import ServerSettings

    if saved is not None:
        _save_offline(model, saved)
        return

    is_open = host not in ("127.0.0.1", "localhost", "::1")
    settings = ServerSettings(
        max_body_bytes=max_megabytes * 2**20, allow_any_host=is_open or bool(limits["api_key"]), **limits
    )
    try:
        import uvicorn
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"the server ({cause.name} is missing)", "serve") from None
    if workers:
        from handlens.serve.gateway import build_gateway

        app = build_gateway(workers, settings)
    else:
        app = _model_app(model, settings)
    if is_open and not settings.api_key:
        click.echo(f"everyone who reaches {host}:{port} can ask; --api-key closes it", err=True)
    listener = _listen(host, port)
    address = f"http://{'localhost' if host == '0.0.0.0' else host}:{listener.getsockname()[1]}"
    click.echo(f"ready: {address} (page), {address}/v1 (API); Ctrl-C ends it", err=True)
    sys.stderr.flush()
    # A signal lets running answers end; what is not over after 20 s is cut.
    level = "info" if os.environ.get("HANDLENS_DEBUG") == "1" else "warning"
    config = uvicorn.Config(
        app, log_level=level, timeout_graceful_shutdown=20, server_header=False, access_log=False, ws="none"
    )
    uvicorn.Server(config).run(sockets=[listener])


def _save_offline(model: str, folder: Path) -> None:
    from handlens.models.store import find_model
    from handlens.serve.offline import pack

    pack(find_model(model), folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    click.echo(
        f"{size / 1e6:.1f} MB; put the folder behind https, open it once, and it works without a network", err=True
    )
    click.echo(folder)


def _model_app(model: str, settings: Any) -> Any:
    """Return the application of one model, after a first look so that the first client does not wait."""
    from PIL import Image

    import handlens
    from handlens.core.images import Picture
    from handlens.models.store import find_model
    from handlens.serve.app import build_app
    from handlens.serve.offline import OfflineFolder

    answerer = handlens.load(model, keep=True)
    answerer.see([Picture(Image.new("RGB", (64, 64)), "warm-up")])
    if answerer.info.notice:
        click.echo(f"{answerer.info.name}: {answerer.info.notice}", err=True)
    return build_app(answerer, settings, offline=OfflineFolder(find_model(model)))


def _listen(host: str, port: int) -> Any:
    """Return a bound socket.

    Raises:
        SettingError: the address cannot be had.
    """
    import socket

    from handlens.errors import SettingError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # from here on clients wait for the first answer and are not refused
    except (OSError, OverflowError) as cause:
        listener.close()
        reason = getattr(cause, "strerror", None) or cause
        raise SettingError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
    return listener
