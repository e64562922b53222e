"""Workers that are lost while a server runs."""

import socket
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from uponce.cli import serve


@dataclass
class Worker:
    pid: int
    exitcode: int = 1

    def is_alive(self, timeout: float) -> bool:
        return False

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def join(self) -> None: ...


class Supervisor(serve._Workers):
    """All its workers die at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.sockets, self.served = uvicorn.Config("none"), list[socket.socket](), True
        self.should_exit = threading.Event()
        self.started, self.now = 0, 1000.0
        self.processes: list[Any] = [self.make(), self.make()]
        monkeypatch.setattr(serve, "Process", self.make)
        monkeypatch.setattr(serve, "monotonic", lambda: self.now)

    def make(self, *_: object) -> Worker:
        self.started += 1
        return Worker(self.started)


def test_workers_that_die_at_once_are_started_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their exit code is: a defect or a changed file of settings would otherwise keep a core busy."""
    supervisor = Supervisor(monkeypatch)
    for now, started in ((1000, 4), (1000.5, 4), (1001.9, 4), (1002, 6)):
        supervisor.now = now
        supervisor.keep_subprocess_alive()
        assert supervisor.started == started


def test_a_server_that_ends_starts_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    supervisor.should_exit.set()
    supervisor.keep_subprocess_alive()
    assert supervisor.started == 2
