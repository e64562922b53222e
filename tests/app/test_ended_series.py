"""A disk that cannot delete the bytes of an ended series refuses no request: the sweeper deletes the bytes later."""

import asyncio
from dataclasses import replace

import pytest

from tests.app.failing import Failing
from tests.app.test_slow_series import DATA, LIMITS, begun, patch, swept, world
from tests.chunks import NO_ROWS, rows
from tests.chunks import Client as Chunks
from tests.world import World
from uponce.core.errors import StorageUnavailable

__all__ = ["world"]


def keep_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(world.blobs, before={"delete": StorageUnavailable("immutable")})
    monkeypatch.setattr(world.blobs, "delete", failing.delete)


@pytest.mark.parametrize("makes_room", ["of its signature", "of its key", "held"])
def test_a_disk_that_keeps_the_bytes_of_an_ended_series_refuses_no_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch, makes_room: str
) -> None:
    old = begun(world)
    if makes_room != "held":
        assert patch(old, 0, 1).status == 204
        world.clock.time += LIMITS.rate_seconds + 1
    if makes_room == "of its key":
        world.swap(limits=replace(LIMITS, max_series_per_key=1))
    keep_all(world, monkeypatch)
    begun(world, None if makes_room == "of its key" else old.fields)
    assert (rows(world)["series"], len(world.traces().spooled)) == (1, 2)
    monkeypatch.undo()
    assert swept(world, grace=0).unfinished == 1


def test_a_disk_that_keeps_the_bytes_does_not_keep_a_client_from_giving_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = begun(world)
    keep_all(world, monkeypatch)
    assert asyncio.run(client.delete()).status == 204
    assert rows(world) == NO_ROWS


def test_a_disk_that_keeps_an_empty_file_refuses_no_second_first_chunk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two chunks begin one series at a time. One of them made a file that nothing needs."""
    client, find = Chunks(world, DATA), world.database.find_named_series
    assert asyncio.run(client.chunk(0, 999)).status == 200

    async def too_early(*_: object) -> None:
        monkeypatch.setattr(world.database, "find_named_series", find)

    monkeypatch.setattr(world.database, "find_named_series", too_early)
    keep_all(world, monkeypatch)
    assert asyncio.run(client.chunk(1000, 1999)).json["bytes"] == 2000
