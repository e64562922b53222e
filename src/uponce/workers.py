"""The processes that serve: one, or several workers under a supervisor that starts a lost one again."""

import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

log = logging.getLogger("uponce")

ENDING = (signal.SIGTERM, signal.SIGINT)

_GRACEFUL_SECONDS = 30
_END_SECONDS = _GRACEFUL_SECONDS + 30  # after its last upload a worker closes its files and connections
_KEEP_ALIVE_SECONDS = 30
_NEXT_START_SECONDS = 2
_START_SECONDS = 60  # a worker may need so long on a busy machine. With uvicorn's 5, SIGHUP then changes nothing
_PONG_SECONDS = 20  # a worker that does not answer so long hangs. It is killed, and its uploads fail
_LOOK_SECONDS = 0.5


def serve(listener: socket.socket, workers: int, drain_seconds: float) -> bool:
    """Serve until a signal ends the server. Return whether it began to serve.

    Each process reads its settings from the environment.
    """
    config = uvicorn.Config(
        "uponce.asgi:create_app",
        factory=True,
        http="uponce.web.protocol:HardenedProtocol",
        ws="none",
        loop="uvloop",
        lifespan="on",
        workers=workers,
        log_config=None,  # the records go to ours
        access_log=False,
        server_header=False,
        proxy_headers=False,  # UPONCE_TRUSTED_PROXIES decides, not uvicorn
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_worker_healthcheck=_START_SECONDS,
    )
    return _serve_by_workers(config, listener, drain_seconds) if workers > 1 else _serve(config, listener)


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
        return super().is_set() or any(number in ENDING for number in self._signals)


class _Workers(Multiprocess):
    """Starts a lost worker again until it serves. uvicorn would stop the healthy workers too.

    Until all workers have served once, a worker that cannot start ends the server: the settings are at fault. After
    that, a worker may fail again and again, so some seconds pass between two tries.
    """

    served = False
    _next_start = 0.0

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], drain_seconds: float) -> None:
        super().__init__(config, sockets)
        self._end_seconds = drain_seconds + _END_SECONDS
        self.should_exit = _Ending(self.signal_queue)
        self._seen: dict[int | None, float] = {}  # when each worker was seen first

    def terminate_all(self) -> None:
        """End the workers. Close the listening sockets, so that the port refuses connections once the workers do."""
        super().terminate_all()
        for listener in self.sockets:
            listener.close()

    def join_all(self) -> None:
        """Return when all workers have ended. Those that hang are killed."""
        latest = monotonic() + self._end_seconds
        for worker in self.processes:
            worker.process.join(max(0, latest - monotonic()))
            if worker.process.is_alive():
                self._kill_late(worker)

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
        """End one worker, or kill it if it hangs. Return when it has ended, or at a signal to end the server.

        uvicorn waits for the uploads of the worker. The other workers would learn of the end after these uploads.
        """
        worker.terminate()
        latest = monotonic() + self._end_seconds
        while worker.process.is_alive():
            if self.should_exit.is_set():
                self.processes.append(worker)  # the server waits for it too
                return
            if monotonic() > latest:
                self._kill_late(worker)
                return
            worker.process.join(_LOOK_SECONDS)

    def _kill_late(self, worker: Process) -> None:
        log.warning("worker %d did not end in %d seconds, and is killed", worker.pid, self._end_seconds)
        worker.kill()
        worker.process.join(_LOOK_SECONDS)  # a disk that hangs keeps it longer

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


def _serve_by_workers(config: uvicorn.Config, listener: socket.socket, drain_seconds: float) -> bool:
    supervisor = _Workers(config, [listener], drain_seconds)
    try:
        supervisor.run()
    except OSError:
        log.exception("the system does not let all workers start")
        supervisor.terminate_all()  # multiprocessing would wait for them at the end of this process
        supervisor.join_all()
        return False
    return supervisor.served or all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)
