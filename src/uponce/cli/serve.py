"""Run the server: set up on a first start, listen, print the address."""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import NoReturn

import typer
import uvicorn
from msgspec.structs import replace
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

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

log = logging.getLogger("uponce")

_GRACEFUL_SECONDS = 30
_OPEN_FILES = 65_536  # each connection is a file; many systems allow 1,024 until a program asks for more
_KEEP_ALIVE_SECONDS = 30
_NEXT_START_SECONDS = 2
_START_SECONDS = 60  # a worker may need so long on a busy machine. With uvicorn's 5, SIGHUP then changes nothing
_PONG_SECONDS = 20  # a worker that does not answer so long hangs. It is killed, and its uploads fail
_LOOK_SECONDS = 0.5
_ENDING = (signal.SIGTERM, signal.SIGINT)


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
    for number in _ENDING:
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
    config = uvicorn.Config(
        "uponce.asgi:create_app",
        factory=True,
        http="uponce.web.protocol:HardenedProtocol",
        ws="none",
        loop="uvloop",
        lifespan="on",
        workers=settings.workers,
        log_config=None,  # the records go to ours
        access_log=False,
        server_header=False,
        proxy_headers=False,  # UPONCE_TRUSTED_PROXIES decides, not uvicorn
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
    )
    with announced(settings), metrics_of_workers(settings):
        served = _serve_by_workers(config, listener) if settings.workers > 1 else _serve(config, listener)
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


class _Server(uvicorn.Server):
    """Returns after a clean shutdown. uvicorn raises the signal again, and so ends with exit code 143."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _serve(config: uvicorn.Config, listener: socket.socket) -> bool:
    server = _Server(config)
    try:
        server.run(sockets=[listener])
    except SystemExit as ended:  # uvicorn's exit code for a failed start is not one of uponce
        if ended.code != STARTUP_FAILURE:
            raise
        return False
    return server.started


class _Ending(threading.Event):
    """The event that ends the server. It is set from the moment a signal to end waits in the queue.

    The handler of a signal cannot set it: it may interrupt the supervisor while that holds the lock of the event.
    """

    def __init__(self, signals: Sequence[int]) -> None:
        super().__init__()
        self._signals = signals

    def is_set(self) -> bool:
        return super().is_set() or any(number in _ENDING for number in self._signals)


class _Workers(Multiprocess):
    """Starts a lost worker again until it serves. uvicorn would stop the healthy workers too.

    Until all workers have served once, a worker that cannot start ends the server: the settings are at fault. After
    that, a worker may fail again and again, so some seconds pass between two tries.
    """

    served = False
    _next_start = 0.0

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.should_exit = _Ending(self.signal_queue)
        self._seen: dict[int | None, float] = {}  # when each worker was seen first

    def terminate_all(self) -> None:
        """End the workers. Close the listening sockets, so that the port refuses connections once the workers do."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def keep_subprocess_alive(self) -> None:
        self._let_ends_show()
        if not self.served:
            super().keep_subprocess_alive()
            self._let_ends_show()
            self.served = all(worker.process.is_alive() and worker.is_ready(_PONG_SECONDS) for worker in self.processes)
            if self.served:
                log.info("all %d workers serve", len(self.processes))
            return
        if self.should_exit.is_set() or monotonic() < self._next_start:
            return
        self._seen = {worker.pid: self._seen.get(worker.pid, monotonic()) for worker in self.processes}
        for index, worker in enumerate(self.processes):
            if self._works(worker):
                continue
            worker.kill()  # if it hangs
            worker.join()
            log.warning("worker %d ended with exit code %d, and a new one starts", worker.pid, worker.exitcode)
            self._next_start = monotonic() + _NEXT_START_SECONDS
            try:
                successor = Process(self.config, self.sockets)
                successor.start()
            except OSError as error:
                log.error("the worker did not start: %s. The next try is in %d seconds", error, _NEXT_START_SECONDS)
                return
            self.processes[index] = successor

    def _works(self, worker: Process) -> bool:
        """Return whether the worker answers. A new worker need not: while it starts, signals must not wait for it."""
        if not worker.process.is_alive():
            return False
        return monotonic() < self._seen[worker.pid] + _START_SECONDS or worker.ping(_PONG_SECONDS)

    def restart_all(self) -> None:
        """Replace each worker by one that serves, until a signal to end the server arrives."""
        for index, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            successor = Process(self.config, self.sockets)
            successor.start()
            if not successor.wait_until_ready(_START_SECONDS, self.should_exit):
                successor.kill()
                successor.join()
                if not self.should_exit.is_set():
                    log.error("worker %d was not ready in time. The old workers stay", successor.pid)
                return
            self.processes[index] = successor
            self._end(worker)

    def handle_ttou(self) -> None:
        """End one worker. The last one stays."""
        if len(self.processes) > 1:
            self.processes_num -= 1
            self._end(self.processes.pop())

    def _end(self, worker: Process) -> None:
        """End one worker. Return when the worker has ended, or at a signal to end the server.

        uvicorn waits for the uploads of the worker. The other workers would learn of the end after these uploads.
        """
        worker.terminate()
        while worker.process.is_alive():
            if self.should_exit.is_set():
                self.processes.append(worker)  # the server waits for it too
                return
            worker.process.join(_LOOK_SECONDS)

    def _let_ends_show(self) -> None:
        """Close our copies of the workers' ends of the pipes: a worker that ends then answers a ping at once."""
        for worker in self.processes:
            worker.child_conn.close()

    def handle_signals(self) -> None:
        """Do what each signal asks for: SIGHUP starts all workers again, SIGTTIN one more. SIGTTOU ends one."""
        try:
            super().handle_signals()
        except OSError as error:
            log.error("a worker did not start: %s. The other workers stay. Send the signal again later", error)
            self.processes_num = len(self.processes)


def _serve_by_workers(config: uvicorn.Config, listener: socket.socket) -> bool:
    supervisor = _Workers(config, sockets=[listener])
    try:
        supervisor.run()
    except OSError:
        log.exception("the system does not let all workers start")
        supervisor.terminate_all()  # multiprocessing would wait for them at the end of this process
        supervisor.join_all()
        return False
    return supervisor.served or all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


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
