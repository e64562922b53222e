"""`/metrics` of a real server with two workers: each worker returns the sum, also after workers were killed."""

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from prometheus_client.mmap_dict import MmapedDict

from tests.e2e.commands import code_of
from tests.scrape import BEARER, TOKEN, Scraped
from tests.server import Server

SETTINGS = {"UPONCE_METRICS_TOKEN": TOKEN, "UPONCE_INSTANCE": "server-7", "UPONCE_LOG_LEVEL": "info"}
AT_ONCE = 8
NOWHERE = """
from uponce.adapters import metrics as module
from uponce.cli import main
module.PLACES = ("/proc/nowhere",)
main()
"""


def workers(server: Server) -> dict[int, Path]:
    """The processes that answer, each with the folder in which it counts."""
    found = {}
    for child in psutil.Process(server.pid).children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found[child.pid] = Path(child.environ()["PROMETHEUS_MULTIPROC_DIR"])
    return found


def stored_by_each(folder: Path) -> list[float]:
    """By the files of each worker, not by what the server says."""
    return [
        sum(
            value
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
            if '"outcome": "ok"' in key
        )
        for file in sorted(folder.glob("counter_*.db"))
    ]


def scrape(server: Server) -> Scraped:
    """On a new connection, so that any worker may answer."""
    answer = server.get("/metrics", headers={**BEARER, "connection": "close"})
    assert answer.status == 200, answer.data
    return Scraped(answer.data.decode())


def upload(server: Server, nonce: str) -> None:
    fields = server.signed({"nonce": nonce})
    answer = server.post(fields, nonce.encode(), resource_type="raw", headers={"connection": "close"})
    assert answer.status == 200, answer.data


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def replaced(server: Server, old: set[int]) -> Callable[[], bool]:
    def check() -> bool:
        now = set(workers(server))
        return len(now) == 2 and not old & now and server.get("/readyz", headers={"connection": "close"}).status == 200

    return check


def half_an_upload(server: Server) -> socket.socket:
    sender = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST /v1_1/{server.cloud}/raw/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
    sender.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
    return sender


@pytest.mark.proof
def test_each_worker_tells_the_sum_of_all_also_of_dead_ones(tmp_path: Path) -> None:
    with Server(tmp_path / "data", workers=2, env=SETTINGS) as server:
        server.wait_for_all()
        (folder,) = set(workers(server).values())
        sent, deadline = 0, time.monotonic() + 120
        while min(each := stored_by_each(folder)) == 0 or len(each) < 2:
            # At the same time: one after the other may all come to one worker.
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(partial(upload, server), [f"n{sent + number}" for number in range(AT_ONCE)]))
            sent += AT_ONCE
            assert time.monotonic() < deadline
        for _ in range(10):
            scraped = scrape(server)
            assert scraped.outcomes() == {"ok": sent}
            assert scraped.value("uponce_build_info", server="server-7") == 1
        assert sum(stored_by_each(folder)) == sent > max(stored_by_each(folder))

        first, second = workers(server)
        os.kill(first, signal.SIGKILL)
        until(replaced(server, {first}))
        assert scrape(server).outcomes() == {"ok": sent}

        with half_an_upload(server), half_an_upload(server):
            until(lambda: scrape(server).value("uponce_uploads_in_progress") == 2)
            killed = set(workers(server))
            for worker in killed:
                os.kill(worker, signal.SIGKILL)
            until(lambda: not killed & set(workers(server)))
        until(replaced(server, killed))
        upload(server, "last")
        assert scrape(server).outcomes() == {"ok": sent + 1}
        # One of the new workers may still be starting, and only a worker that starts drops the gauges of dead ones.
        until(lambda: scrape(server).value("uponce_uploads_in_progress") == 0)
        assert second in killed and len(list(folder.glob("counter_*.db"))) == 2
        server.stop()
        assert not folder.exists()


@pytest.mark.proof
def test_after_a_start_it_begins_at_zero(tmp_path: Path) -> None:
    with Server(tmp_path / "data", workers=2, env=SETTINGS) as server:
        upload(server, "before")
        assert scrape(server).outcomes() == {"ok": 1}
        server.stop()
        server.start()
        assert scrape(server).outcomes() == {}
        server.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_finds_no_room_for_them_serves(tmp_path: Path, workers: int) -> None:
    """With several workers there are no metrics then, and the log says why; one counts in its memory."""
    with Server(tmp_path / "data", workers=workers, env=SETTINGS, program=("-c", NOWHERE)) as server:
        assert code_of(server, server.signed()) == ""
        answer = server.get("/metrics", headers=BEARER)
        assert answer.status == (200 if workers == 1 else 404)
        assert ("this process counts no metrics" in server.output) is (workers == 2)


def test_sweeps_of_a_server_are_told(tmp_path: Path) -> None:
    with Server(tmp_path / "data", env={**SETTINGS, "UPONCE_SWEEP_SECONDS": "1"}) as server:
        until(lambda: scrape(server).value("uponce_sweep_last_success_timestamp_seconds") > time.time() - 60)


def test_without_the_setting_there_is_no_such_address(tmp_path: Path) -> None:
    with Server(tmp_path / "data", workers=2) as server:
        assert server.get("/metrics", headers=BEARER).status == 404
        children = psutil.Process(server.pid).children()
        assert children and all("PROMETHEUS_MULTIPROC_DIR" not in child.environ() for child in children)
