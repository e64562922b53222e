"""Two servers at once on one series: the one that the database takes wins, and the other one spoils nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.failing import Held
from tests.app.shared import Pair, pair
from tests.app.test_shared_series import DATA, FIRST, LAST, LIMITS, SECOND, almost, at, chunk
from tests.asgi import Answer
from tests.chunks import Client, form, stored
from tests.tus import Client as TusClient
from tests.tus import assert_refused as assert_tus_refused
from tests.tus import assert_state, play
from tests.world import assert_refused, run
from uponce.adapters.store.parts import ObjectAssembly, ObjectParts


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path, LIMITS) as both:
        yield both


def check_two_that_complete_it_at_once(both: Pair) -> None:
    """Both have published when the first one commits; the other one's bytes go, and only those."""
    client = almost(both)

    async def play() -> list[Answer]:
        held = [Held(world.database, "commit_series") for world in both.both]
        for world, database in zip(both.both, held, strict=True):
            world.swap(database=database)
        racing = [asyncio.create_task(chunk(client, world, LAST)) for world in both.both]
        for database in held:
            await asyncio.wait_for(database.reached.wait(), 60)
        held[0].release.set()
        first = await racing[0]
        held[1].release.set()
        return [first, await racing[1]]

    winner, loser = run(play())
    assert_refused(loser, 400, "signature_used")
    assert stored(both.one, winner) == DATA
    assert (len(both.published()), both.one.sql("SELECT count(*) FROM assets")) == (1, 1)
    assert both.is_clean()


def test_two_that_complete_it_at_once(both: Pair) -> None:
    check_two_that_complete_it_at_once(both)


def test_the_check_goes_red_when_both_publish_under_one_key(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ObjectParts.assembly

    async def assembly(self: ObjectParts, key: str) -> ObjectAssembly:
        made = await real(self, key)
        made.key = made._spooled.key = key
        made._spooled._file.path = self.blobs.folder / key
        return made

    monkeypatch.setattr(ObjectParts, "assembly", assembly)
    with pytest.raises(AssertionError, match="The stored bytes cannot be read"):
        check_two_that_complete_it_at_once(both)


def test_who_finds_the_parts_gone_hears_why(both: Pair) -> None:
    """Another server completes it, and deletes them, before this one reads them."""
    client = almost(both)

    async def play() -> tuple[Answer, Answer]:
        reading = Held(both.two.blobs.parts, "assembly")
        both.two.swap(blobs=Sharing(both.two.blobs, reading))
        late = asyncio.create_task(chunk(client, both.two, LAST))
        await asyncio.wait_for(reading.reached.wait(), 60)
        winner = await chunk(client, both.one, LAST)
        reading.release.set()
        return winner, await late

    winner, late = asyncio.run(play())
    assert stored(both.one, winner) == DATA
    assert_refused(late, 400, "signature_used")


class Sharing:
    """A blob store with other shared pieces."""

    def __init__(self, real: Any, shared: Any) -> None:
        self._real = real
        self.parts = shared

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


async def silent_before_the_end(client: Client, data: bytes, under_way: asyncio.Event, go_on: asyncio.Event) -> Any:
    """All but the end of a form, as when its connection dies without a sign, or comes back."""
    whole = b"".join(form(client.fields, data))
    yield whole[:-3]
    under_way.set()
    await go_on.wait()
    yield whole[-3:]


@pytest.mark.parametrize("same", [True, False])
def test_a_retry_elsewhere_does_not_wait_for_a_dead_connection(both: Pair, same: bool) -> None:
    """When that one comes to life again, its bytes are there already; or other ones are."""
    client = almost(both)

    async def play() -> tuple[Answer, Answer, Answer]:
        under_way, go_on = asyncio.Event(), asyncio.Event()
        data = DATA[:1000] if same else bytes(1000)
        other = replace_client(client, "another")
        body = silent_before_the_end(other, data, under_way, go_on)
        slow = asyncio.create_task(chunk(other, both.one, FIRST, chunks=body))
        await under_way.wait()
        retried = await asyncio.wait_for(chunk(other, both.two, FIRST, data=DATA[:1000]), 60)
        go_on.set()
        return retried, await slow, await chunk(other, both.two, SECOND)

    retried, slow, second = asyncio.run(play())
    assert (retried.status, retried.json["bytes"]) == (200, 1000)
    if same:
        assert slow.json["bytes"] == 1000
    else:
        assert_refused(slow, 400, "chunk_conflict")
    assert second.json["bytes"] == 2000


def replace_client(client: Client, upload_id: str) -> Client:
    return Client(client.world, client.data, upload_id=upload_id)


@pytest.mark.parametrize("same", [True, False])
def test_patches_of_one_place_on_two_servers(both: Pair, same: bool) -> None:
    """The first connection is dead; its client asks elsewhere how far it got, and goes on there."""
    client = TusClient(both.one, DATA)
    play(client.create)

    async def play_() -> tuple[Answer, Answer, Answer, Answer]:
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def dead() -> Any:
            yield (DATA if same else bytes(len(DATA)))[:900]
            under_way.set()
            await go_on.wait()
            yield (DATA if same else bytes(len(DATA)))[900:]

        slow = asyncio.create_task(at(client, both.one).patch(0, data=dead()))
        await under_way.wait()
        there = at(client, both.two)
        state = await asyncio.wait_for(there.head(), 60)
        retried = await asyncio.wait_for(there.patch(0, 2000), 60)
        go_on.set()
        return state, retried, await slow, await there.head()

    state, retried, slow, after = asyncio.run(play_())
    assert_state(state, 200, 0)
    assert_state(retried, 204, 2000)
    if same:
        assert_state(slow, 204, len(DATA))
        assert stored(both.one, asyncio.run(at(client, both.one).get())) == DATA
    else:
        assert_tus_refused(slow, 409, "offset_conflict")
        assert_state(after, 200, 2000)


def test_a_first_chunk_that_fails_elsewhere_ends_no_upload(both: Pair) -> None:
    """The series that it began ends with it, and a chunk that has joined that series begins it again."""
    client = Client(both.one, DATA)

    async def play() -> tuple[Answer, Answer]:
        held = Held(both.two.database, "record_span")
        both.two.swap(database=held)
        under_way, never = asyncio.Event(), asyncio.Event()
        body = silent_before_the_end(client, DATA[:1000], under_way, never)
        failing = asyncio.create_task(chunk(client, both.one, FIRST, chunks=body))
        await under_way.wait()
        joined = asyncio.create_task(chunk(client, both.two, FIRST))
        await asyncio.wait_for(held.reached.wait(), 60)
        failing.cancel()
        await asyncio.gather(failing, return_exceptions=True)
        assert both.one.sql("SELECT count(*) FROM series") == 0
        held.release.set()
        return await joined, await chunk(client, both.one, SECOND)

    first, second = asyncio.run(play())
    assert [first.json["bytes"], second.json["bytes"]] == [1000, 2000]
    both.sweep()
    assert len(both.objects()) == 2


def test_a_first_chunk_that_fails_ends_no_upload_in_which_another_has_arrived(both: Pair) -> None:
    """It arrives elsewhere, just before the series is ended."""
    client = Client(both.one, DATA)

    async def play() -> tuple[Answer, Answer]:
        held = Held(both.one.database, "end_series")
        both.one.swap(database=held)
        failing = asyncio.create_task(chunk(client, both.one, FIRST, torn=True, data=DATA[:500]))
        await asyncio.wait_for(held.reached.wait(), 60)
        arrived = await chunk(client, both.two, SECOND)
        held.release.set()
        return await failing, arrived

    torn, arrived = asyncio.run(play())
    assert (torn.status, arrived.json["bytes"]) == (400, 1000)
    assert [part.size for part in both.objects()] == [1000]
    assert both.one.sql("SELECT json_array_length(spans) FROM series") == 1


def test_a_series_that_another_server_completes_is_not_dropped(both: Pair) -> None:
    """No lock of that server shows here. Its client begins again with the same signature."""
    client = almost(both)

    async def play() -> tuple[Answer, Answer]:
        held = Held(both.two.database, "commit_series")
        both.two.swap(database=held)
        last = asyncio.create_task(chunk(client, both.two, LAST))
        await asyncio.wait_for(held.reached.wait(), 60)
        other = Client(both.one, DATA, fields=client.fields, upload_id="another.name")
        refused = await other.chunk(*FIRST)
        held.release.set()
        return refused, await last

    refused, last = run(play())
    assert_refused(refused, 400, "signature_in_use")
    assert stored(both.one, last) == DATA
    assert both.is_clean()
