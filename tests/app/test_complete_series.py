"""A series whose bytes are all there, and whose completion failed, makes room for new ones."""

import asyncio
from dataclasses import replace

import pytest

from tests.app.failing import Failing, Held
from tests.app.test_series import DOWN
from tests.app.test_slow_series import DATA, LIMITS, begun, patch, world
from tests.asgi import Answer
from tests.chunks import NO_ROWS, rows
from tests.tus import Client as Tus
from tests.world import World, assert_refused

__all__ = ["world"]


def left_complete(world: World, count: int) -> list[Tus]:
    """Uploads whose bytes are all there, and whose completion failed."""
    clients, healthy = [begun(world) for _ in range(count)], world.services
    world.swap(database=Failing(world.database, before={"commit_series": DOWN}))
    for client in clients:
        client.world = world
        assert_refused(patch(client, 0), 503, "database_unavailable")
    world.use(healthy)
    return clients


def test_complete_series_that_no_request_completes_keep_no_place_of_a_key(world: World) -> None:
    """Their completion failed, so they would keep new uploads out for a day. Young ones stay."""
    left = left_complete(world, 3)
    world.clock.time += LIMITS.rate_seconds + LIMITS.idle_seconds
    assert_refused(asyncio.run(Tus(world, DATA).create()), 429, "too_many_series")
    world.clock.time += 1
    assert patch(begun(world), 0).status == 204
    assert sorted(asyncio.run(client.head()).status for client in left) == [200, 200, 404]
    traces = world.traces()
    assert (rows(world), traces.spooled, traces.assets, len(traces.blobs)) == (NO_ROWS, frozenset(), 3, 3)


def test_one_series_makes_room_also_while_its_bytes_cannot_be_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_complete(world, 3)
    world.clock.time += LIMITS.rate_seconds + LIMITS.idle_seconds + 1
    monkeypatch.setattr(world.blobs.parts, "drop", Failing(world.blobs.parts, before={"drop": DOWN}).drop)
    begun(world)
    assert rows(world)["series"] == 3


def test_a_database_that_cannot_end_a_series_refuses_the_new_one_with_its_own_error(world: World) -> None:
    """Otherwise each complete series would be tried, and the client would get `too_many_series`."""
    left_complete(world, 3)
    world.clock.time += LIMITS.rate_seconds + LIMITS.idle_seconds + 1
    world.swap(database=Failing(world.database, before={"end_series": DOWN}))
    assert_refused(asyncio.run(Tus(world, DATA).create()), 503, "database_unavailable")
    assert rows(world)["series"] == 3


def test_a_series_that_completes_makes_no_room(world: World) -> None:
    """Of the complete series, one that no request completes ends. If there is no such one, the new one is refused."""
    world.swap(limits=replace(LIMITS, max_series_per_key=2))
    client, other = left_complete(world, 2)

    async def play() -> tuple[Answer, Answer, list[Answer]]:
        held = Held(world.services.inspector, "inspect")
        world.swap(inspector=held)
        world.clock.time += 3000
        completing = [asyncio.create_task(client.head())]
        await held.reached.wait()
        new = Tus(world, DATA)
        early = await new.create()
        held.reached.clear()
        completing.append(asyncio.create_task(new.patch(0)))
        await held.reached.wait()
        late = await Tus(world, DATA).create()
        held.release.set()
        return early, late, [*await asyncio.gather(*completing), await other.head()]

    early, late, answers = asyncio.run(play())
    assert early.status == 201
    assert_refused(late, 429, "too_many_series")
    assert [answer.status for answer in answers] == [200, 204, 404]
    assert world.traces().assets == 2
