"""fsck beside uploads, overwrites and deletions: no state that only exists during such work is a finding."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.app.planted import keys, put_assets, put_blobs
from tests.app.test_fsck import Around, Checked, check, run
from tests.app.uploads import attempt, form, outcome
from tests.world import OTHER_PNG, World
from uponce.app.fsck import PLACES
from uponce.app.ports import Committed, StoredBlob
from uponce.core.values import Digest

WORLD = World


def test_what_happens_between_reading_rows_and_listing_blobs_is_no_finding(world: World) -> None:
    """Each asset is overwritten right after its row was read: its blob is gone, one without a row has come."""
    for number in range(30):
        assert attempt(world, world.sign({"public_id": f"cat-{number}"})) == "ok"
    seen: set[str] = set()

    async def digests(shard: str) -> Mapping[str, Digest]:
        rows = await world.database.digests(shard)
        if shard not in seen:
            for blob_key in rows:
                asset = await world.database.find_commit(blob_key)
                assert asset is not None
                fields = world.sign({"public_id": asset.name.public_id})
                assert await outcome(world, form(fields, OTHER_PNG)) == "ok"
        seen.add(shard)
        return rows

    busy = replace(world.services, database=Around(world.database, digests=digests))
    checked = run(world, services=busy, grace=0)
    assert (len(seen), checked.findings) == (len(PLACES) - 1, [])
    assert checked.examined.assets >= 30


@pytest.mark.usefixtures("few_places")
def test_an_old_blob_that_is_being_deleted_is_no_orphan(world: World) -> None:
    """Between the commit that replaces an asset and the deletion of its old bytes."""
    old = put_blobs(world, keys("replaced", 10))
    listed: set[str] = set()

    async def published(shard: str) -> AsyncIterator[StoredBlob]:
        async for blob in world.blobs.published(shard):
            yield blob
        if shard not in listed:
            for key in old:
                if key.startswith(shard):
                    await world.blobs.delete(key)
        listed.add(shard)

    world.swap(blobs=Around(world.blobs, published=published))
    assert run(world).findings == []


@pytest.mark.usefixtures("few_places")
def test_a_row_whose_bytes_are_replaced_after_the_second_look_is_not_reported(world: World) -> None:
    plant = put_assets(world, keys("late", 1))

    async def find_commit(_: str) -> None:
        return None

    assert run(world).found == {"hollow": plant}
    world.swap(database=Around(world.database, find_commit=find_commit))
    assert run(world).findings == []


@pytest.mark.usefixtures("few_places")
def test_uploads_overwrites_and_checks_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a grace time of nothing, so that every upload under way is a suspect until its end.

    After each first look other assets are overwritten: what it has suspected must not be replaced during the second.
    """
    done, confirmed = [0] * 4, 0

    async def commit(*args: Any) -> Committed:
        await asyncio.sleep(0.01)  # after its bytes are published: most uploads under way are here
        return await world.database.commit(*args)

    async def load(lane: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            fields = world.sign({"public_id": f"cat-{confirmed}-{done[lane] % 5}"})
            assert await outcome(world, form(fields)) == "ok"
            done[lane] += 1

    async def play() -> list[Checked]:
        stop = asyncio.Event()
        loads = [asyncio.create_task(load(lane, stop)) for lane in range(len(done))]

        async def settled(_: float) -> None:
            """Return when each upload has ended that was under way, however long that takes."""
            nonlocal confirmed
            confirmed += 1
            goals = [uploads + 2 for uploads in done]
            while any(uploads < goal for uploads, goal in zip(done, goals, strict=True)):
                assert not any(task.done() for task in loads)
                await asyncio.sleep(0.001)

        monkeypatch.setattr("uponce.app.fsck.asyncio", SimpleNamespace(sleep=settled, gather=asyncio.gather))
        checks = []
        for number in range(3):
            await settled(0)
            checks.append(await check(world, deep=number == 2, grace=0))
        stop.set()
        await asyncio.gather(*loads)
        return checks

    world.swap(database=Around(world.database, commit=commit))
    checks = asyncio.run(play())
    assert sum(done) > 20
    assert confirmed > 3, "no upload was under way"
    assert [checked.findings for checked in checks] == [[], [], []]
    assert run(world, deep=True, grace=0).findings == []
