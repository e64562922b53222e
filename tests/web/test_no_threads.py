"""A system that allows no more threads: a request that needs one gets a 503 with Retry-After, and leaves nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import Answer
from tests.scrape import BEARER
from tests.upstreams import StubUpstream
from tests.web.test_metrics import Watched
from tests.world import QuickWorld, World, assert_accepted, assert_refused
from uponce.app.uploading import pipeline
from uponce.core.policy import Limits
from uponce.core.values import Digest

LARGE = bytes(2 * 1024 * 1024)


@pytest.fixture
def without_threads() -> Iterator[pytest.MonkeyPatch]:
    """No thread of an event loop starts until `undo`."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("asyncio"):
            raise RuntimeError("can't start new thread")
        real(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield patch


def assert_busy(answer: Answer) -> None:
    assert_refused(answer, 503, "server_busy")
    assert int(answer.headers["retry-after"]) > 0


def test_a_body_that_a_thread_would_hash_spends_nothing(
    tmp_path: Path, without_threads: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, hashed, real = QuickWorld(tmp_path, limits=Limits(small_body_bytes=2 * len(LARGE))), [], pipeline._digest_of

    def noted(data: bytes | memoryview) -> Digest:
        hashed.append(len(data))
        return real(data)

    monkeypatch.setattr(pipeline, "_digest_of", noted)
    world.whole_bodies, fields = True, world.sign()
    with world.untouched():
        assert_busy(world.upload(fields, LARGE, kind="raw"))
    without_threads.undo()
    assert_accepted(world.upload(fields, LARGE, kind="raw"))
    world.close()
    assert hashed == [len(LARGE)]


def test_a_file_that_is_passed_on_spends_nothing(
    relay: World, stub: StubUpstream, without_threads: pytest.MonkeyPatch
) -> None:
    fields = relay.sign()
    with relay.untouched():
        assert_busy(relay.upload(fields, LARGE, kind="raw"))
    assert not stub.store
    without_threads.undo()
    assert_accepted(relay.upload(fields, LARGE, kind="raw"))


def test_the_metrics_are_read_again_later(tmp_path: Path, without_threads: pytest.MonkeyPatch) -> None:
    world: Any = Watched(tmp_path)
    assert_busy(world.get("/metrics", **BEARER))
    without_threads.undo()
    assert world.scrape()
    world.close()
