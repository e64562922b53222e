"""Run the server: set up on a first start, listen, print where."""

import asyncio
import os
import socket
from urllib.parse import quote

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from uponce.app.check import check_clock, check_frozen, check_storage
from uponce.app.manage_keys import set_up
from uponce.config import Settings, as_environment, load
from uponce.core.errors import SettingRefused
from uponce.core.values import ApiKey, KeyScope, KeyUses
from uponce.wiring import Backend, metrics_of_workers, opened

BACKLOG = 2048
_GRACEFUL_SECONDS = 30
_KEEP_ALIVE_SECONDS = 30


def run(*, data: str | None, host: str | None, port: int | None, workers: int | None) -> None:
    settings = load(data=data, host=host, port=port, workers=workers)
    listener = _listen(settings)
    base = base_url(settings, listener.getsockname()[1])
    with opened(settings, create=True) as backend:
        keys, clock_problem = asyncio.run(_first_start(backend))
        if clock_problem is not None:
            typer.secho(f"uponce: {clock_problem}", fg="yellow", err=True)
        for key in keys:
            typer.echo(f"# {_purpose(key)}")
            typer.echo(f"CLOUDINARY_URL={cloudinary_url(key, base)}")
    typer.echo(f"listening on {base}")
    os.environ.update(as_environment(settings))
    config = uvicorn.Config(
        "uponce.asgi:create_app",
        factory=True,
        http="uponce.web.protocol:HardenedProtocol",
        ws="none",
        loop="uvloop",
        lifespan="on",
        workers=settings.workers,
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # UPONCE_TRUSTED_PROXIES decides, not uvicorn
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )
    if settings.workers > 1:
        with metrics_of_workers(settings):
            Multiprocess(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise typer.Exit(1)


async def _first_start(backend: Backend) -> tuple[tuple[ApiKey, ...], str | None]:
    """The keys that a first start makes, and what is wrong with the clock."""
    await check_frozen(backend.services)
    await check_storage(backend.services)
    keys = await set_up(backend.services, backend.settings.cloud, backend.settings.window)
    return keys, await check_clock(backend.services)


def _listen(settings: Settings) -> socket.socket:
    """Listens already while the server is starting: whoever connects early is served a moment later."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingRefused(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another UPONCE_PORT."
        ) from error
    listener.listen(BACKLOG)
    listener.set_inheritable(True)
    return listener


def base_url(settings: Settings, port: int) -> str:
    """What clients on this machine, or behind UPONCE_PUBLIC_URL, call the server."""
    if settings.public_url is not None:
        return settings.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 compared, not bound
    return f"http://{host if ':' not in host or host.startswith('[') else f'[{host}]'}:{port}"


def cloudinary_url(key: ApiKey, base: str) -> str:
    """What the Node and Python SDKs read from the environment."""
    return f"cloudinary://{key.api_key}:{quote(key.secrets[0])}@{key.cloud}?upload_prefix={base}"


def _purpose(key: ApiKey) -> str:
    uses = "each signature works once" if key.uses is KeyUses.ONCE else "signatures work any number of times"
    scope = "for everything the API offers" if key.scope is KeyScope.ALL else "for uploads"
    return f"key {key.name!r}: {uses}, {scope}"
