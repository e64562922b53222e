"""Workers that are lost while a server runs, or that the system does not let start."""

import errno
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.supervisors import multiprocess

from uponce import workers


@dataclass
class Worker:
    pid: int
    can_start: bool = True
    is_terminated: bool = False
    uploads: Any = None
    exitcode: int = 1
    child_conn: Any = field(default_factory=lambda: SimpleNamespace(close=lambda: None))

    def start(self) -> None:
        if not self.can_start:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def terminate(self) -> None:
        self.is_terminated = True

    def wait_until_ready(self, timeout: float, should_exit: threading.Event) -> bool:
        return not should_exit.is_set()

    def kill(self) -> None:
        self.uploads = None

    def join(self, timeout: float | None = None) -> None:
        if self.uploads is not None:
            self.uploads()

    @property
    def process(self) -> Any:
        return SimpleNamespace(is_alive=lambda: self.uploads is not None, join=self.join)


class Supervisor(workers._Workers):
    """All its workers die at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.sockets, self.served = uvicorn.Config("none"), list[socket.socket](), True
        self.signal_queue, self.processes_num = list[int](), 2
        self.should_exit = workers._Ending(self.signal_queue)
        self._end_seconds = 10.0 + workers._END_SECONDS
        self.started, self.now, self.can_start, self._seen = 0, 1000.0, True, {}
        self.processes: list[Any] = [self.make(), self.make()]
        for module in (workers, multiprocess):
            monkeypatch.setattr(module, "Process", self.make)
        monkeypatch.setattr(workers, "monotonic", lambda: self.now)

    def make(self, *_: object) -> Worker:
        self.started += 1
        return Worker(self.started, self.can_start)


def test_workers_that_die_at_once_are_started_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever their exit code is: a defect would otherwise keep a core busy."""
    supervisor = Supervisor(monkeypatch)
    for now, started in ((1000, 4), (1000.5, 4), (1001.9, 4), (1002, 6)):
        supervisor.now = now
        supervisor.keep_subprocess_alive()
        assert supervisor.started == started


class Silent(multiprocess.Process):
    """A worker that never comes to answer a ping."""

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        time.sleep(600)


def test_a_worker_that_ends_before_it_answers_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the supervisor waits as if the worker hung, and handles no signal."""
    supervisor = Supervisor(monkeypatch)
    monkeypatch.setattr(workers, "_START_SECONDS", 0)
    monkeypatch.setattr(workers, "_PONG_SECONDS", 600)
    worker = Silent(supervisor.config, [])
    worker.start()
    supervisor.processes = [worker]
    threading.Timer(0.5, worker.process.kill).start()
    supervisor.keep_subprocess_alive()
    assert supervisor.processes[0] is not worker


def test_a_worker_has_a_minute_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the successor of a lost worker: memory is short just then. No signal waits for its first answer."""
    supervisor = Supervisor(monkeypatch)
    monkeypatch.setattr(workers, "_PONG_SECONDS", 0.1)
    worker = Silent(supervisor.config, [])
    worker.start()
    supervisor.processes = [worker]
    for now, stays in ((1000, True), (1059, True), (1060, False)):
        supervisor.now = now
        supervisor.keep_subprocess_alive()
        assert (supervisor.processes[0] is worker) is stays, now


def test_a_server_that_ends_starts_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    supervisor.should_exit.set()
    supervisor.keep_subprocess_alive()
    assert supervisor.started == 2


def test_a_worker_that_the_system_does_not_let_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, processes or files for a moment: the supervisor must go on, or nothing could end the others."""
    supervisor = Supervisor(monkeypatch)
    lost = list(supervisor.processes)
    supervisor.can_start = False
    supervisor.keep_subprocess_alive()
    assert supervisor.processes == lost
    supervisor.can_start, supervisor.now = True, 1002
    supervisor.keep_subprocess_alive()
    assert not {worker.pid for worker in lost} & {worker.pid for worker in supervisor.processes}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTIN])
def test_a_signal_that_can_start_no_worker_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    supervisor = Supervisor(monkeypatch)
    before = list(supervisor.processes)
    supervisor.can_start = False
    supervisor.signal_queue = [number, signal.SIGTERM]
    supervisor.handle_signals()
    assert (supervisor.processes, supervisor.processes_num) == (before, 2)
    supervisor.handle_signals()
    assert supervisor.should_exit.is_set()


def test_a_signal_to_end_ends_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends may have an upload for half a minute. The other workers must begin to end in that time."""
    supervisor = Supervisor(monkeypatch)
    first, second = supervisor.processes
    first.uploads = lambda: supervisor.signal_queue.append(signal.SIGTERM)
    supervisor.signal_queue.append(signal.SIGHUP)
    supervisor.handle_signals()
    assert (supervisor.started, first.is_terminated, second.is_terminated) == (3, True, False)
    assert first in supervisor.processes, "the server ends before this worker"
    supervisor.signal_queue.append(signal.SIGHUP)
    supervisor.handle_signals()
    assert (supervisor.started, supervisor.should_exit.wait(0)) == (3, True)


def test_a_signal_to_end_ends_the_wait_for_a_new_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    before = list(supervisor.processes)
    monkeypatch.setattr(Worker, "start", lambda _: supervisor.signal_queue.append(signal.SIGINT))
    supervisor.signal_queue.append(signal.SIGHUP)
    supervisor.handle_signals()
    assert (supervisor.started, supervisor.processes) == (3, before)


def test_a_restart_replaces_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    before = list(supervisor.processes)
    supervisor.signal_queue.append(signal.SIGHUP)
    supervisor.handle_signals()
    assert [worker.pid for worker in supervisor.processes] == [3, 4]
    assert all(worker.is_terminated for worker in before)


def test_a_signal_to_end_ends_the_wait_for_a_worker_that_is_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    first, second = supervisor.processes
    second.uploads = lambda: supervisor.signal_queue.append(signal.SIGTERM)
    supervisor.signal_queue.append(signal.SIGTTOU)
    supervisor.handle_signals()
    assert (supervisor.should_exit.is_set(), first.is_terminated, second.is_terminated) == (True, False, True)
    assert second in supervisor.processes, "the server ends before this worker"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTTOU])
def test_a_worker_that_never_ends_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    """Else no lost worker is started again, and no signal is handled but one to end the server."""
    supervisor = Supervisor(monkeypatch)
    first, second = supervisor.processes
    hanging = first if number == signal.SIGHUP else second
    looks = [1000.0, 1069.0, 1071.0, 1071.0]  # UPONCE_DRAIN_SECONDS, 10 here, come before the uploads end

    def hang() -> None:
        supervisor.now = looks.pop(0)

    hanging.uploads = hang
    supervisor.signal_queue.append(number)
    supervisor.handle_signals()
    assert hanging not in supervisor.processes
    assert (looks, hanging.uploads) == ([1071.0], None)
    assert f"worker {hanging.pid} did not end in 70 seconds, and is killed" in caplog.text


def test_a_server_ends_although_a_worker_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    first = supervisor.processes[0]
    first.uploads = lambda: None
    supervisor.terminate_all()
    supervisor.join_all()
    assert first.uploads is None


def test_a_worker_that_drains_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load balancer may need minutes to send it nothing more."""
    made: list[workers._Workers] = []

    def note(supervisor: workers._Workers) -> None:
        made.append(supervisor)

    monkeypatch.setattr(workers._Workers, "run", note)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.socket() as listener:
        workers.serve(listener, 2, 600)
    assert [supervisor._end_seconds for supervisor in made] == [660]


def test_the_last_worker_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    first = supervisor.processes[0]
    supervisor.signal_queue += [signal.SIGTTOU, signal.SIGTTOU]
    supervisor.handle_signals()
    assert (supervisor.processes, supervisor.processes_num, first.is_terminated) == ([first], 1, False)


def test_a_server_that_cannot_start_all_workers_ends_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(monkeypatch)
    before = list(supervisor.processes)
    supervisor.can_start = False
    monkeypatch.setattr(workers, "_Workers", lambda *_, **__: supervisor)
    with socket.socket() as listener:
        assert not workers._serve_by_workers(supervisor.config, listener, 0)
    assert all(worker.is_terminated for worker in before)
