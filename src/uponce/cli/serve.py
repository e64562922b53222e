"""Run the server: set up on a first start, listen, print the address."""

import asyncio
import logging
import os
import signal
from types import FrameType
from typing import NoReturn

import typer
from msgspec.structs import replace

from uponce.adapters.logs import configure
from uponce.adapters.system import allow_files, keep_heap
from uponce.app.check import check_clock, check_frozen, check_storage
from uponce.app.manage_clouds import preset_upstream
from uponce.app.manage_keys import import_keys, playground_keys, set_up
from uponce.app.owner import claim_storage
from uponce.app.services import Services
from uponce.cli.address import announced, cloudinary_url, listen, outside_url, unreachable
from uponce.cli.disks import fleeting
from uponce.cli.options import Data
from uponce.config import Settings, as_environment, load, preset_keys
from uponce.config.rules import EVERY_ADDRESS, http_url
from uponce.core.upstream import parse_upstream, url_of
from uponce.core.values import ApiKey, KeyScope, KeyUses
from uponce.wiring import metrics_of_workers, opened
from uponce.workers import ENDING, serve

log = logging.getLogger("uponce")

_OPEN_FILES = 65_536  # each connection is a file; many systems allow 1,024 until a program asks for more


def run(
    data: Data = None,
    host: str | None = typer.Option(
        None, help="Address to listen on; 0.0.0.0 for all. [UPONCE_HOST, 127.0.0.1]", show_default=False
    ),
    port: int | None = typer.Option(
        None, help="Port to listen on; 0 picks a free port. [UPONCE_PORT, 8000]", show_default=False
    ),
    workers: int | None = typer.Option(
        None, help="Number of server processes. [UPONCE_WORKERS, 1]", show_default=False
    ),
    playground: bool = typer.Option(
        False, "--playground", help="Serve the page /playground to browsers on this machine. [UPONCE_PLAYGROUND=local]"
    ),
) -> None:
    """Run the server.

    The first start on an empty data folder makes two API keys and prints a CLOUDINARY_URL for each. Keys in UPONCE_KEYS
    or UPONCE_KEYS_FILE replace those two, and then no secret is printed. SIGTERM and SIGINT end the server with exit
    code 0, once the uploads in progress have ended or 40 seconds have passed. UPONCE_DRAIN_SECONDS comes before that.
    """
    for number in ENDING:
        signal.signal(number, _end)
    settings = load(data=data, host=host, port=port, workers=workers, playground="local" if playground else None)
    allow_files(_OPEN_FILES)
    keep_heap()  # here: the threads of the preparation end, but their heaps would stay
    listener = listen(settings.host, settings.port)
    where, bound = listener.getsockname()[:2]
    # For every address, its usual spelling: `--host 0` listens there too.
    settings = replace(settings, host=where if where in EVERY_ADDRESS else settings.host, port=bound)
    configure(settings.log_level, settings.log_format, settings.server_name)
    with opened(settings, create=True, upgrade=True) as backend:
        asyncio.run(_prepare(backend.services, settings))
    if (outside := outside_url(settings)) is not None:
        typer.echo(f"every address of this machine; from other machines use {outside}")
    if settings.public_url is not None:
        typer.echo(f"clients use {settings.public_url}")
    _announce_playground(settings)
    typer.echo(f"listening on {http_url(settings.host, settings.port)}")
    os.environ.update(as_environment(settings))
    with announced(settings), metrics_of_workers(settings):
        served = serve(listener, settings.workers, settings.drain_seconds)
    if not served:
        raise typer.Exit(1)


def _announce_playground(settings: Settings) -> None:
    """Print the address of the playground, and warn about what it opens."""
    if settings.playground == "off":
        return
    base, reach = http_url(settings.host, settings.port), "everyone on this machine"
    if settings.playground == "public":
        base, reach = settings.base_url, "every client that reaches this server"
    log.warning("The playground is on: %s can upload to the cloud playground. Turn it off in production.", reach)
    typer.echo(f"playground at {base}/playground")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End the process: before the server has begun, and after it has ended, no upload is in progress."""
    raise SystemExit(0)


async def _prepare(services: Services, settings: Settings) -> None:
    """Check the store, make the missing keys, and print what the operator must know."""
    await check_frozen(services)
    full = await check_storage(services, claim_storage, on_disk=settings.storage_folder is not None)
    preset = preset_keys(settings)
    if preset:
        added, conflicts = await import_keys(services, preset)
        for key in added:
            typer.echo(f"# key {key.api_key} from the settings: {_purpose(key)}")
        for conflict in conflicts:
            log.warning("%s", conflict.of_settings)
    else:
        for key in await set_up(services, settings.cloud, settings.window):
            typer.echo(f"# key {key.name!r}: {_purpose(key)}")
            typer.echo(f"CLOUDINARY_URL={cloudinary_url(key, settings.base_url)}")
    if settings.playground != "off":
        await playground_keys(services)
    await _announce_relays(services, settings)
    for problem in (full, await check_clock(services), unreachable(settings), *fleeting(settings)):
        if problem is not None:
            log.warning("%s", problem)


async def _announce_relays(services: Services, settings: Settings) -> None:
    """Print for each cloud with an upstream where its uploads go. The settings name one of these clouds."""
    if settings.relay is not None:
        await preset_upstream(services, settings.cloud, parse_upstream(settings.relay))
    for cloud, upstream in (await services.database.list_upstreams()).items():
        state = "passed on to" if upstream.secret else "refused until `uponce clouds relay` sets the secret of"
        typer.echo(f"uploads of cloud {cloud} are {state} {url_of(upstream)}")


def _purpose(key: ApiKey) -> str:
    uses = "each signature works once" if key.uses is KeyUses.ONCE else "signatures work any number of times"
    scope = "for everything the API offers" if key.scope is KeyScope.ALL else "for uploads"
    return f"{uses}, {scope}"
