"""What the event loop answers at once is what the long way answers, to the byte, and never an old state."""

import asyncio
import logging
import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from ipaddress import ip_network
from itertools import count
from typing import Any

import pytest
from uvicorn.server import ServerState

from tests.web.test_destroy import ask, signed
from tests.web.wire import Reader, Wire, get, store, without_id
from tests.world import OTHER_PNG, PNG, START, QuickWorld, World
from uponce.adapters.database.sqlite import readers
from uponce.adapters.files import OpenFile
from uponce.app.services import Metrics
from uponce.web import express
from uponce.web.app import TrustedProxies
from uponce.web.routes import create_app

MOST = express._MOST_BYTES
SIZES = (1, 20_000, MOST, MOST + 1, 4 * MOST)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """On a disk: of a file system in memory the kernel does not say whether a read would wait."""
    world = QuickWorld(tmp_path_factory.mktemp("disk"))
    yield world
    world.close()


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Every stored byte is in memory, and no look-up counts as slow, as on a machine that has nothing else to do."""
    monkeypatch.setattr(readers, "_SLOW_SECONDS", 60)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, blocks, offset, flags=0: preadv(descriptor, blocks, offset))
    return Wire(world, monkeypatch)


class Counted(Metrics):
    def __init__(self) -> None:
        self.noted: list[tuple[str, str, int]] = []

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.noted.append((route, method, status))


AT_ONCE = {
    "plain": get("/demo/image/upload/v1767225600/cat.png"),
    "head": get("/demo/image/upload/v1767225600/cat.png", method="HEAD"),
    "the last request": get("/demo/image/upload/v1767225600/cat.png", "Connection: close"),
    "HTTP/1.0": get("/demo/image/upload/v1767225600/cat.png", version="1.0"),
    "no version": get("/demo/image/upload/cat.png"),
    "another version": get("/demo/image/upload/v1/cat.png"),
    "no extension": get("/demo/image/upload/cat"),
    "escaped": get("/demo/image/upload/c%61t.png"),
    "a query": get("/demo/image/upload/cat.png?x=y"),
    "a download": get("/demo/raw/upload/script.html"),
    "a cookie": get("/demo/image/upload/cat.png", "Cookie: a=b"),
    "through a proxy": get("/demo/image/upload/cat.png", "X-Forwarded-For: 198.51.100.1", "X-Forwarded-Proto: https"),
    **{f"{size} bytes": get(f"/demo/raw/upload/{size}") for size in SIZES if size <= MOST},
    **{f"head of {size} bytes": get(f"/demo/raw/upload/{size}", method="HEAD") for size in SIZES if size <= MOST},
}
NO_HOST = get("/demo/image/upload/cat.png").replace(b"Host: media.example\r\n", b"")
LONG_WAY = {
    "origin": get("/demo/image/upload/cat.png", "Origin: https://a.example"),
    "range": get("/demo/image/upload/cat.png", "Range: bytes=1-3"),
    "no such range": get("/demo/image/upload/cat.png", "Range: bytes=100000-"),
    "a list of tags": get("/demo/image/upload/cat.png", 'If-None-Match: "a"', 'If-None-Match: "b"'),
    "any tag": get("/demo/image/upload/cat.png", "If-None-Match: *"),
    "modified since": get("/demo/image/upload/cat.png", "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT"),
    "no host": NO_HOST,
    "two hosts": get("/demo/image/upload/cat.png", "Host: b"),
    "a body": get("/demo/image/upload/cat.png", "Content-Length: 1") + b"x",
    "another format": get("/demo/image/upload/cat.jpg"),
    "a transformation": get("/demo/image/upload/w_10/cat.png"),
    "nothing there": get("/demo/image/upload/dog.png"),
    "no cloud": get("/image/upload/cat.png"),
    "private": get("/demo/image/private/secret.png"),
    "a wrong signature": get("/demo/image/upload/s--AAAAAAAA--/cat.png"),
    "an API address": get("/v1_1/image/upload/upload"),
    "a page": get("/robots.txt"),
    **{f"{size} bytes": get(f"/demo/raw/upload/{size}") for size in SIZES if size > MOST},
}


def furnish(world: World) -> None:
    store(world, public_id="cat")
    store(world, public_id="secret", type="private")
    store(world, b"<script>", kind="raw", filename="script.html", public_id="script.html")
    store(world, public_id="planted")
    world.sql("UPDATE assets SET cloud = 'v1_1', public_id = 'upload' WHERE public_id = 'planted'")
    for size in SIZES:
        store(world, random.Random(size).randbytes(size), kind="raw", filename="a", public_id=str(size))


@pytest.mark.parametrize("cold", [False, True])
def test_both_ways_answer_note_and_log_the_same_to_the_byte(
    wire: Wire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    furnish(wire.world)
    wire.world.swap(metrics=(metrics := Counted()))
    proxies = TrustedProxies([ip_network("192.0.2.0/24")])
    wire.world.app = create_app(wire.world.services, lambda _: nullcontext(), None, None, proxies)
    if cold:
        monkeypatch.setattr(os, "preadv", _not_in_memory)

    def answered(request: bytes) -> tuple[bytes, Any, Any]:
        answer = without_id(wire.say(request))
        facts = [{**record.__dict__["facts"], "ms": 0} for record in caplog.records if hasattr(record, "facts")]
        noted = list(metrics.noted)
        caplog.clear()
        metrics.noted.clear()
        return answer, noted, facts

    with caplog.at_level(logging.DEBUG, "uponce"):
        for name, request in {**AT_ONCE, **LONG_WAY}.items():
            wire.tasks, wire.long_way = 0, False
            first, again = answered(request), answered(request)
            tasks, wire.long_way = wire.tasks, True
            assert first == again == answered(request), name
            assert first[1], name
            assert tasks == (2 if name in LONG_WAY or (cold and not request.startswith(b"HEAD")) else 0), name


def test_a_request_without_a_host_is_refused(wire: Wire) -> None:
    """By HTTP/1.1, as servers in front of this one do it. HTTP/1.0 knew no Host."""
    store(wire.world, public_id="cat")
    assert wire.say(NO_HOST).startswith(b"HTTP/1.1 400 ")
    assert wire.say(NO_HOST.replace(b"HTTP/1.1", b"HTTP/1.0")).startswith(b"HTTP/1.1 200 ")


def _not_in_memory(*_: object) -> int:
    raise BlockingIOError


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    furnish(wire.world)
    requests = [
        get("/demo/raw/upload/1"),
        get("/demo/image/upload/dog.png"),
        get("/demo/raw/upload/20000"),
        get("/demo/image/upload/cat.png", "Range: bytes=0-0"),
        get("/demo/image/upload/cat.png", method="HEAD"),
        get("/demo/image/upload/cat.png", "Connection: close"),
    ]
    answers = wire.say(*requests)
    assert wire.tasks == 2
    found = re.findall(rb"HTTP/1.1 (\d{3}) .*?content-length: (\d+)", answers, re.DOTALL)
    assert [(int(status), int(length)) for status, length in found if status != b"404"] == [
        (200, 1),
        (200, 20_000),
        (206, 1),
        (200, len(PNG)),
        (200, len(PNG)),
    ]
    assert [status for status, _ in found][1] == b"404"
    assert answers.endswith(PNG)


@pytest.mark.parametrize("place", ["the catalog", "the file"])
def test_a_defect_is_answered_by_the_long_way(wire: Wire, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    path = store(wire.world, public_id="cat")
    if place == "the catalog":
        wire.world.sql("""UPDATE assets SET facts = '{"kind": "hologram"}'""")
    else:
        monkeypatch.setattr(OpenFile, "read_now", _broken_once())
    wanted = b"HTTP/1.1 500 " if place == "the catalog" else b"HTTP/1.1 200 "
    assert wire.say(get(path)).startswith(wanted)
    assert wire.tasks == 1


def _broken_once() -> Callable[..., int]:
    """Return a `read_now` with a defect for the first call alone: the long way needs one too."""
    read_now, calls = OpenFile.read_now, count()

    def read(file: OpenFile, offset: int, into: memoryview) -> int:
        if next(calls) == 0:
            raise ZeroDivisionError
        return read_now(file, offset, into)

    return read


# What was found stands until the database changes, and not longer.


@pytest.fixture
def elsewhere(world: World) -> Iterator[World]:
    """Another server on the same folder."""
    other = QuickWorld(world.path.parent)
    yield other
    other.close()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_the_first_get_after_a_commit_shows_it(wire: Wire, elsewhere: World, where: str) -> None:
    writer, path = (wire.world if where == "here" else elsewhere), "/demo/image/upload/cat.png"
    for number in range(5):
        file = (PNG, OTHER_PNG)[number % 2]
        wire.world.clock.time = elsewhere.clock.time = START + number  # so no version is ahead of it
        store(writer, file, public_id="cat")
        for _ in range(3):
            assert wire.say(get(path)).endswith(file)
    assert ask(writer, signed(writer)).json == {"result": "ok"}
    assert wire.say(get(path)).startswith(b"HTTP/1.1 404 ")
    store(writer, PNG, public_id="cat")
    assert wire.say(get(path)).endswith(PNG)
    assert wire.tasks == 1


def test_a_version_ahead_of_the_clock_waits_for_the_clock(wire: Wire) -> None:
    """Until then each answer says another second as Last-Modified."""
    path, clock = [store(wire.world, public_id="cat") for _ in range(3)][-1], wire.world.clock
    for second in range(4):
        clock.time = START + second
        assert b"last-modified: Thu, 01 Jan 2026 00:00:%02d GMT" % min(second, 2) in wire.say(get(path))
    assert wire.tasks == 2


def test_other_commits_change_nothing(wire: Wire, elsewhere: World) -> None:
    path = store(wire.world)
    first = wire.say(get(path))
    for number in range(3):
        store(elsewhere, OTHER_PNG, nonce=f"elsewhere-{number}")
        assert without_id(wire.say(get(path))) == without_id(first)
    assert wire.tasks == 0


def test_a_database_that_is_gone_or_another_one_is_not_served_from_memory(wire: Wire) -> None:
    path, file = store(wire.world), wire.world.path
    wire.world.sql(f"VACUUM INTO '{file.with_name('other.db')}'")
    assert wire.say(get(path)).endswith(PNG)
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        file.with_name(name).rename(file.with_name(f"old-{name}"))
    assert wire.say(get(path)).startswith(b"HTTP/1.1 503 ")
    file.with_name("other.db").rename(file)
    wire.world.sql("DELETE FROM assets")
    assert wire.say(get(path)).startswith(b"HTTP/1.1 404 ")
    assert wire.world.upload(wire.world.sign()).status == 503  # the writer finds the new file
    store(wire.world, OTHER_PNG, public_id="new")
    wire.tasks = 0
    assert wire.say(get("/demo/image/upload/new.png")).endswith(OTHER_PNG)
    assert wire.tasks == 0


def test_the_requests_of_one_turn_share_a_look_at_the_database(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    path, looks, version = store(wire.world, public_id="cat"), count(), readers.Glances.version
    monkeypatch.setattr(readers.Glances, "version", lambda glances: (next(looks), version(glances))[1])

    async def ask_together(*ends: Reader) -> None:
        protocols = [wire.connect(end, ServerState()) for end in ends]
        for protocol in protocols:
            protocol.data_received(get(path))
        await asyncio.sleep(0)
        assert all(end.received().endswith(PNG) for end in ends)
        for protocol in protocols:
            protocol.connection_lost(None)

    for _ in range(2):
        asyncio.run(ask_together(Reader(), Reader(), Reader()))
    assert next(looks) == 2


def test_only_so_many_urls_are_remembered(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(express, "_MOST_KNOWN", 3)
    store(wire.world, public_id="cat")
    for number in range(9):
        assert wire.say(get(f"/demo/image/upload/v{number}/cat.png")).endswith(PNG)
    answering: Any = wire.world.app.express
    assert len(answering._known) == 3


# A reader that takes nothing.


def test_a_block_that_a_reader_has_not_taken_stays_as_it_is(wire: Wire) -> None:
    """The next answer is written into another block."""
    furnish(wire.world)
    slow = Reader(stuck=True)
    with pytest.raises(TimeoutError):
        wire.say(get(f"/demo/raw/upload/{MOST}"), get("/demo/raw/upload/20000"), reader=slow, seconds=0.1)
    for size in SIZES:
        assert wire.say(get(f"/demo/raw/upload/{size}")).endswith(random.Random(size).randbytes(size))
    assert slow.received().partition(b"\r\n\r\n")[2] == random.Random(MOST).randbytes(MOST)


@pytest.mark.parametrize("size", SIZES)
def test_a_reader_that_takes_nothing_holds_little(wire: Wire, size: int) -> None:
    furnish(wire.world)
    slow = Reader(stuck=True)
    with suppress(TimeoutError):
        wire.say(*[get(f"/demo/raw/upload/{size}")] * 5, reader=slow, seconds=0.1)
    assert slow.get_write_buffer_size() <= 105 * 1024


# A server in front, or the store itself, sends some of the bytes.


@pytest.mark.parametrize(("place", "tasks"), [(None, 0), ("/blobs/x", 2)])
def test_what_a_server_in_front_sends_is_left_to_it(wire: Wire, place: str | None, tasks: int) -> None:
    path = store(wire.world)
    wire.world.swap(location_of=lambda _: place)
    for _ in range(2):
        answer = wire.say(get(path))
        assert answer.endswith(PNG) == (place is None)
        assert (b"x-accel-redirect: /blobs/x" in answer) == (place is not None)
    assert wire.tasks == tasks
