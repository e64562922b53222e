"""Uploads in several requests that are begun and left, or slow: they make room, and those that move on stay."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.app.failing import Held
from tests.app.uploads import live_attempts
from tests.asgi import Answer
from tests.chunks import CHUNK, NO_ROWS, form, noise, rows, stored
from tests.chunks import Client as Chunks
from tests.tus import Client as Tus
from tests.tus import stored as stored_at
from tests.world import QuickWorld, World, assert_refused
from uponce.app.sweep import Swept, sweep
from uponce.app.uploading import series as module
from uponce.core.policy import Limits

LIMITS = Limits(
    min_chunk_bytes=CHUNK, max_series_per_key=3, max_series=5, least_rate=10, rate_seconds=10, takeover_seconds=60
)
DATA = noise(2 * CHUNK)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=LIMITS)
    yield world
    world.close()


def begun(world: World, fields: Mapping[str, str] | None = None) -> Tus:
    client = Tus(world, DATA, fields=fields)
    assert asyncio.run(client.create()).status == 201
    return client


def patch(client: Tus, *span: int) -> Answer:
    return asyncio.run(client.patch(*span))


def swept(world: World, grace: float) -> Swept:
    return asyncio.run(sweep(world.services, grace_seconds=grace, audit_seconds=10**6))


def test_a_series_with_a_byte_does_not_keep_the_holder_out(world: World) -> None:
    """A thief begins with a copy of the signature, sends one byte and leaves."""
    thief = begun(world)
    assert patch(thief, 0, 1).status == 204
    holder = begun(world, thief.fields)
    assert_refused(patch(thief, 1), 404, "series_gone")
    assert patch(holder, 0).status == 204
    assert rows(world) == NO_ROWS
    assert world.traces().spooled == frozenset()
    assert world.traces().assets == 1


async def dripping(data: bytes, under_way: asyncio.Event) -> AsyncIterator[bytes]:
    yield data
    under_way.set()
    await asyncio.Event().wait()


def test_a_slow_request_protects_its_series_for_seconds_only(world: World) -> None:
    thief = begun(world)

    async def play() -> tuple[Answer, Answer]:
        under_way = asyncio.Event()
        drip = asyncio.create_task(thief.patch(0, data=dripping(b"x", under_way)))
        await under_way.wait()
        early = await Tus(world, DATA, fields=thief.fields).create()
        world.clock.time += LIMITS.rate_seconds + 1
        holder = Tus(world, DATA, fields=thief.fields)
        late = await holder.create()
        drip.cancel()
        assert (await holder.patch(0)).status == 204
        return early, late

    early, late = asyncio.run(play())
    assert_refused(early, 400, "signature_in_use")
    assert late.status == 201


def test_a_series_that_keeps_the_least_rate_stays(world: World) -> None:
    """What has arrived counts for later: 1,000 bytes keep its place for 100 seconds."""
    client = begun(world)
    assert patch(client, 0, 1000).status == 204
    world.clock.time += 100
    assert_refused(asyncio.run(Tus(world, DATA, fields=client.fields).create()), 400, "signature_in_use")
    world.clock.time += 1
    assert asyncio.run(Tus(world, DATA, fields=client.fields).create()).status == 201


def test_a_series_whose_time_is_over_keeps_no_signature(tmp_path: Path) -> None:
    """A sweep may come minutes later."""
    world = QuickWorld(tmp_path, limits=replace(LIMITS, series_seconds=60))
    client = begun(world)
    assert patch(client, 0, 1000).status == 204
    world.clock.time += 60
    assert_refused(asyncio.run(Tus(world, DATA, fields=client.fields).create()), 400, "signature_in_use")
    world.clock.time += 1
    assert asyncio.run(Tus(world, DATA, fields=client.fields).create()).status == 201
    world.close()


def test_bytes_that_are_still_arriving_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is recorded when it is whole; until then it must not look as if nothing came."""
    monkeypatch.setattr(module, "_NOTE_SECONDS", 0)
    client = Chunks(world, DATA)

    async def halves(chunks: list[bytes], go_on: asyncio.Event, under_way: asyncio.Event) -> AsyncIterator[bytes]:
        yield chunks[0][:600]
        yield chunks[0][600:]
        under_way.set()
        await go_on.wait()
        for chunk in chunks[1:]:
            yield chunk

    async def play() -> tuple[Answer, Answer]:
        go_on, under_way = asyncio.Event(), asyncio.Event()
        whole = first_form(client)
        slow = asyncio.create_task(client.chunk(0, 999, chunks=halves(whole, go_on, under_way)))
        await under_way.wait()
        world.clock.time += LIMITS.rate_seconds + 5
        other = await Chunks(world, DATA, fields=client.fields, upload_id="other").chunk(0, 999)
        go_on.set()
        return other, await slow

    other, slow = asyncio.run(play())
    assert_refused(other, 400, "signature_in_use")
    assert slow.json["bytes"] == 1000
    assert stored(world, asyncio.run(client.chunk(1000, 1999))) == DATA


def test_an_upload_has_one_note_under_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each locks the row of the upload. While the database takes long for one, the others add up."""
    monkeypatch.setattr(module, "_NOTE_SECONDS", 0)
    client, sizes, noting, release = Chunks(world, DATA), list[int](), asyncio.Event(), asyncio.Event()
    real = world.database.note_arrival

    async def note(series_id: str, size: int) -> None:
        sizes.append(size)
        noting.set()
        if len(sizes) == 1:
            await release.wait()
        await real(series_id, size)

    monkeypatch.setattr(world.database, "note_arrival", note)

    async def second(go_on: asyncio.Event, under_way: asyncio.Event) -> AsyncIterator[bytes]:
        head, file, end = form(client.fields, DATA[1000:])
        yield head + file[:-300]
        under_way.set()
        await go_on.wait()
        yield file[-300:] + end

    async def play() -> tuple[list[int], Answer, Answer]:
        go_on, under_way = asyncio.Event(), asyncio.Event()
        noted = asyncio.create_task(client.chunk(0, 999))
        await noting.wait()
        unnoted = asyncio.create_task(client.chunk(1000, 1999, chunks=second(go_on, under_way)))
        await under_way.wait()
        early = [*sizes]
        release.set()
        first = await noted
        go_on.set()
        return early, first, await unnoted

    early, first, last = asyncio.run(play())
    assert (len(early), first.json["bytes"]) == (1, 1000)
    assert stored(world, last) == DATA
    assert sum(sizes) == len(DATA)


def test_chunks_of_one_upload_that_arrive_together_have_a_bound(world: World) -> None:
    """One address has all places but one. The slowest ends, and its client sends it again."""
    world.swap(limits=replace(LIMITS, arriving_per_series=4))
    data = noise(5 * CHUNK)
    client = Chunks(world, data)

    async def drip(span: tuple[int, int]) -> asyncio.Task[Answer]:
        under_way = asyncio.Event()
        head, file, _ = form(client.fields, data[span[0] : span[1] + 1])
        task = asyncio.create_task(client.chunk(*span, chunks=dripping(head + file[:400], under_way)))
        await under_way.wait()
        return task

    async def play() -> tuple[Answer, list[Answer]]:
        dripped = [await drip(span) for span in client.spans[:4]]
        refused = await dripped[0]
        assert not any(task.done() for task in dripped[1:])
        answers = [await client.chunk(*span) for span in client.spans]
        for task in dripped[1:]:
            await task
        return refused, answers

    refused, answers = asyncio.run(play())
    assert_refused(refused, 503, "server_busy")
    assert refused.headers["retry-after"] == "5"
    assert "the slowest of 3 from one address" in refused.message
    assert "UPONCE_ARRIVING_PER_SERIES is 4" in refused.message
    assert stored(world, answers[-1]) == data
    assert live_attempts(world) == 0


def first_form(client: Chunks) -> list[bytes]:
    """The first chunk's form: fields and half of the file, the rest of it, the end."""
    head, file, end = form(client.fields, DATA[:1000])
    return [head + file[:600], file[600:], end]


def test_empty_series_keep_no_place_of_a_key(world: World) -> None:
    """The honest begin in parts although a stranger began as many as a key may have, and sends nothing."""
    strangers = []
    for _ in range(3):
        strangers.append(begun(world))
        world.clock.time += 1  # of equally slow series the oldest ends
    honest = begun(world)
    assert patch(honest, 0).status == 204
    chunks = Chunks(world, DATA)
    assert asyncio.run(chunks.chunk(0, 999)).status == 200
    assert stored(world, asyncio.run(chunks.chunk(1000, 1999))) == DATA
    assert_refused(patch(strangers[0], 0), 404, "series_gone")
    assert patch(strangers[2], 0).status == 204
    assert rows(world)["series"] == len(world.traces().spooled)


def test_where_all_move_on_a_new_series_is_refused(world: World) -> None:
    clients = [begun(world) for _ in range(3)]
    for client in clients:
        assert patch(client, 0, 1000).status == 204
    refused = asyncio.run(Tus(world, DATA).create())
    assert_refused(refused, 429, "too_many_series")
    assert refused.headers["retry-after"]
    assert [patch(client, 1000).status for client in clients] == [204] * 3


def test_a_series_that_completes_is_not_dropped_for_being_slow(world: World) -> None:
    client = begun(world)
    assert patch(client, 0, 1999).status == 204

    async def play() -> tuple[Answer, Answer]:
        held = Held(world.services.inspector, "inspect")
        world.swap(inspector=held)
        world.clock.time += 3000
        client.world = world
        last = asyncio.create_task(client.patch(1999))
        await held.reached.wait()
        other = await Tus(world, DATA, fields=client.fields).create()
        held.release.set()
        return other, await last

    other, last = asyncio.run(play())
    assert_refused(other, 400, "signature_in_use")
    assert last.status == 204
    assert world.traces().assets == 1


def test_a_slow_series_that_completes_just_before_its_end_keeps_its_bytes(world: World) -> None:
    """Its last bytes come while a new series with its signature is about to end it."""
    slow = begun(world)
    assert patch(slow, 0, 1).status == 204
    world.clock.time += LIMITS.rate_seconds + 1

    async def play() -> tuple[Answer, Answer]:
        held = Held(world.database, "end_series")
        world.swap(database=held)
        new = asyncio.create_task(Tus(world, DATA, fields=slow.fields).create())
        await held.reached.wait()
        last = await slow.patch(1)
        held.release.set()
        return last, await new

    last, new = asyncio.run(asyncio.wait_for(play(), 60))
    assert last.status == 204
    assert_refused(new, 400, "signature_used")
    assert stored_at(world, last.headers["upload-asset"]) == DATA


def creations(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each creation of a series that the database is asked for, how many it does just then."""
    seen: list[int] = []
    under_way = 0
    create = world.database.create_series

    async def noted(*args: Any, **more: Any) -> Any:
        nonlocal under_way
        under_way += 1
        seen.append(under_way)
        try:
            return await create(*args, **more)
        finally:
            under_way -= 1

    monkeypatch.setattr(world.database, "create_series", noted)
    return seen


def test_copies_of_a_signature_ask_the_database_once_each_and_in_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for locks with a connection of the pool, so a flood of them would keep all others waiting."""
    client = begun(world)
    assert patch(client, 0, 1000).status == 204
    seen = creations(world, monkeypatch)

    async def flood() -> list[Answer]:
        return await asyncio.gather(*(Tus(world, DATA, fields=client.fields).create() for _ in range(20)))

    assert [answer.code for answer in asyncio.run(flood())] == ["signature_in_use"] * 20
    assert seen == [1] * 20
    assert not world.services.attempts._turns


def test_a_slow_series_that_another_request_ends_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    thief = begun(world)
    end = world.database.end_series

    async def second(*args: Any, **more: Any) -> bool:
        await end(*args, **more)
        return False

    monkeypatch.setattr(world.database, "end_series", second)
    holder = begun(world, thief.fields)
    assert patch(holder, 0).status == 204


def test_a_series_without_bytes_is_swept_within_minutes(world: World) -> None:
    empty, moving = begun(world), begun(world)
    assert patch(moving, 0, 1).status == 204
    world.clock.time += LIMITS.empty_series_seconds + 1

    assert swept(world, grace=10**6).series == 1
    assert_refused(patch(empty, 0), 404, "series_gone")
    assert patch(moving, 1).status == 204


def test_few_requests_wait_for_the_same_part(world: World) -> None:
    """Each asks many times a second, so that hundreds of them would keep a server busy at no cost."""
    world.swap(limits=replace(LIMITS, waiting_per_series=3, takeover_seconds=30))
    client = begun(world)

    async def play() -> list[int]:
        held = Held(world.services.inspector, "inspect")
        world.swap(inspector=held)
        client.world = world
        first = asyncio.create_task(client.patch(0))
        await held.reached.wait()
        others = [asyncio.create_task(client.head()) for _ in range(8)]
        while sum(other.done() for other in others) < 5:
            await asyncio.sleep(0.01)
        held.release.set()
        return sorted([(await first).status, *(answer.status for answer in await asyncio.gather(*others))])

    answers = asyncio.run(asyncio.wait_for(play(), 60))
    assert answers == [200] * 3 + [204] + [423] * 5
    assert not world.services.attempts._waiting
