"""A fresh server for each test, or one for a whole file where every test leaves it as it was."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upstreams import StubUpstream
from tests.web.relays import LIMITS, EachOnItsLoop, Sized
from tests.world import QuickWorld, World, first_start


@pytest.fixture(scope="session", autouse=True)
def started() -> None:
    """Make what all servers here start with before a test patches anything."""
    first_start()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = QuickWorld(tmp_path_factory.mktemp("shared"))
    yield world
    world.close()


@pytest.fixture
def stub() -> Iterator[StubUpstream]:
    with StubUpstream().in_thread() as stub:
        yield stub


@pytest.fixture
def relay(quick_path: Path, stub: StubUpstream) -> Iterator[World]:
    """A server whose cloud `demo` has the stub as its upstream, with the same clock."""
    world = Sized(quick_path, limits=LIMITS)
    stub.clock = world.clock.now
    world.swap(upstream=EachOnItsLoop())
    asyncio.run(world.database.set_upstream("demo", stub.upstream))
    yield world
    world.close()


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
