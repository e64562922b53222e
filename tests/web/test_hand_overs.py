"""What a small upload crosses between its first byte and its answer: threads, and files of the source."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import urllib3
import uvicorn

import uponce
from tests import samples
from tests.world import QuickWorld, World
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.sniff import read_ordinary
from uponce.core.policy import Limits
from uponce.web import protocol

SOURCE = str(Path(uponce.__file__).parent)
MOST_FILES = 20
PICTURE = samples.jpeg(1, 2300, 1725)
STREAMED = Limits(small_body_bytes=1)
MOST_SECONDS = 60

Call = tuple[int, str]  # thread, file


@pytest.fixture(autouse=True)
def no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body is too slow to be gathered, as on a machine that has nothing else to do."""
    monkeypatch.setattr(protocol, "_GATHER_SECONDS", MOST_SECONDS)


class Trace:
    """The calls of uponce's functions, in all threads that start after it, while `recording`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.recording = False

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        if self.recording and event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            self.calls.append((threading.get_ident(), frame.f_code.co_filename))

    def of(self, work: Callable[[], None]) -> list[Call]:
        self.calls, self.recording = [], True
        work()
        time.sleep(0.02)
        self.recording = False
        return self.calls


def hand_overs(calls: list[Call]) -> int:
    """How often the work goes on in another thread."""
    threads = [thread for thread, _ in calls]
    return sum(before != after for before, after in pairwise(threads))


@contextmanager
def served(world: World) -> Iterator[int]:
    """The port of a server in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        world.app,
        http="uponce.web.protocol:HardenedProtocol",
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=MOST_SECONDS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(MOST_SECONDS)


def traced(root: Path, limits: Limits, uploads: int = 8) -> list[list[Call]]:
    """The calls of each of some uploads over one connection, after a first one that warms up."""
    trace = Trace()
    threading.setprofile(trace.note)
    try:
        world = QuickWorld(root, limits=limits)
        world.swap(inspector=DecoderPool(limits, []), read_ordinary=read_ordinary)
        with served(world) as port, urllib3.PoolManager(1) as client:

            def upload() -> None:
                fields: dict[str, str | tuple[str, bytes]] = {**world.sign(), "file": ("cat.jpg", PICTURE)}
                answer = client.request("POST", f"http://127.0.0.1:{port}/v1_1/demo/image/upload", fields=fields)
                assert answer.status == 200, answer.data

            upload()
            found = [trace.of(upload) for _ in range(uploads)]
        world.close()
    finally:
        threading.setprofile(None)
    return found


def test_a_small_upload_goes_to_one_thread_and_back(tmp_path: Path) -> None:
    """The least of several uploads counts: the event loop may do other work beside the thread that commits."""
    uploads = traced(tmp_path, Limits())
    assert min(map(hand_overs, uploads)) == 2
    assert all(len({thread for thread, _ in calls}) == 2 for calls in uploads)


def test_a_streamed_upload_takes_more_hand_overs(tmp_path: Path) -> None:
    """The control: the count sees the threads that a streamed upload uses."""
    assert min(map(hand_overs, traced(tmp_path, STREAMED))) > 2


def test_a_small_upload_crosses_few_files(tmp_path: Path) -> None:
    """Raise the bound only for a step that an upload did not have before."""
    assert min(len({file for _, file in calls}) for calls in traced(tmp_path, Limits())) <= MOST_FILES
