"""Series on a bucket: their requests come to any server, and only what the database names counts."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest

from tests.app.failing import Failing
from tests.app.shared import Pair, pair
from tests.asgi import Answer
from tests.chunks import CHUNK, Client, noise, orders, stored
from tests.tus import Client as TusClient
from tests.tus import assert_state, play
from tests.world import World, assert_refused, run
from uponce.adapters.store.bucket import Bucket
from uponce.adapters.store.parts import ObjectParts
from uponce.app.services import Services
from uponce.app.uploading import completion
from uponce.app.uploading import series as use_case
from uponce.app.uploading.series import Append
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, StorageUnavailable
from uponce.core.policy import Limits
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span

DATA, UNRECORDED = noise(3 * CHUNK + 7), bytes(CHUNK)
FIRST, SECOND, THIRD, LAST = [(0, 999), (1000, 1999), (2000, 2999), (3000, 3006)]
EARLY = [FIRST, SECOND, THIRD]
LIMITS = Limits(min_chunk_bytes=CHUNK, record_bytes=1000, takeover_seconds=1)
DOWN, UNKNOWN = DatabaseUnavailable("down"), OutcomeUnknown("unknown")


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path, LIMITS) as both:
        yield both


def send(client: Client, world: World, *spans: tuple[int, int], **more: Any) -> Answer:
    """These chunks to one server; the last answer."""

    async def play() -> list[Answer]:
        client.world = world
        return [await client.chunk(*span, **more) for span in spans]

    return run(play())[-1]


async def chunk(client: Client, world: World, span: tuple[int, int], **more: Any) -> Answer:
    """To that server, beside others."""
    there = Client(world, client.data, fields=client.fields, upload_id=client.upload_id)
    return await there.chunk(*span, **more)


def almost(both: Pair) -> Client:
    """All but the last chunk has arrived, on both servers."""
    client = Client(both.one, DATA)
    for number, span in enumerate(EARLY):
        assert send(client, both.dealt(number), span).status == 200
    return client


def at(client: TusClient, world: World) -> TusClient:
    there = TusClient(world, client.data, fields=client.fields)
    there.url = client.url
    return there


# Any server.


@pytest.mark.parametrize("order", range(3))
def test_chunks_come_to_any_server(both: Pair, order: int) -> None:
    client = Client(both.one, DATA)
    for number, span in enumerate(orders(len(DATA))[order]):
        answer = send(client, both.dealt(number), span)
    assert stored(both.one, answer) == stored(both.two, answer) == DATA
    assert answer.json["etag"] == hashlib.md5(DATA).hexdigest()
    assert both.is_clean()
    for world in both.both:
        assert_refused(send(client, world, LAST), 400, "signature_used")
    assert both.is_clean()


def test_an_empty_chunk_at_the_end_comes_to_any_server(both: Pair) -> None:
    client = Client(both.one, DATA[: 2 * CHUNK])
    send(client, both.one, FIRST, SECOND, total=-1)
    answer = send(client, both.two, (2 * CHUNK, 2 * CHUNK - 1))
    assert stored(both.one, answer) == client.data
    assert both.is_clean()


def test_chunks_come_to_both_servers_at_once(both: Pair) -> None:
    client = Client(both.one, noise(20 * CHUNK))

    async def play() -> list[Answer]:
        return await asyncio.gather(
            *(chunk(client, both.dealt(number), span) for number, span in enumerate(client.spans))
        )

    (done,) = [answer for answer in run(play()) if answer.json.get("done")]
    assert stored(both.one, done) == client.data
    assert both.is_clean()


def test_patches_come_to_any_server(both: Pair) -> None:
    """And any of them says how far the upload is, and what it has become."""
    client = TusClient(both.one, DATA)
    play(client.create)
    for number, (start, end) in enumerate([(0, 1500), (1500, 1501), (1501, 3000), (3000, 3007)]):
        here, there = at(client, both.dealt(number + 1)), at(client, both.dealt(number))
        answer, state = play(lambda here=here, s=start, e=end: here.patch(s, e), there.head)  # type: ignore[misc]
        assert_state(answer, 204, end)
        assert_state(state, 200, end)
    (told,) = play(at(client, both.two).get)
    assert stored(both.two, told) == DATA
    assert both.is_clean()


def test_an_upload_in_too_many_parts_is_refused_before_its_bytes(tmp_path: Path) -> None:
    with pair(tmp_path, replace(LIMITS, parts_per_series=3)) as both:
        client = TusClient(both.one, DATA)
        play(client.create)
        for offset in range(3):
            (answer,) = play(lambda start=offset: client.patch(start, start + 1))  # type: ignore[misc]
            assert_state(answer, 204, offset + 1)
        (refused,) = play(lambda: at(client, both.two).patch(3))
        assert_refused(refused, 400, "too_many_parts")
        assert "in 3 parts, and 3 are allowed" in refused.message
        assert len(both.objects()) == 3
        (ended,) = play(client.delete)
        assert ended.status == 204
        assert both.is_clean()


def test_an_upload_may_end_in_its_last_part(tmp_path: Path) -> None:
    with pair(tmp_path, replace(LIMITS, parts_per_series=4)) as both:
        client = almost(both)
        healthy = both.one.services
        both.one.swap(database=Failing(both.one.database, before={"commit_series": DOWN}))
        assert send(client, both.one, LAST).status == 503
        both.one.use(healthy)
        assert stored(both.one, send(client, both.one, LAST)) == DATA
        assert both.is_clean()


def test_a_server_that_lost_its_disk_loses_nothing(both: Pair, tmp_path: Path) -> None:
    client = Client(both.one, DATA)
    send(client, both.one, *EARLY)
    assert both.spooled() == []
    assert stored(both.two, send(client, both.two, LAST)) == DATA


def test_a_chunk_again_on_the_other_server(both: Pair) -> None:
    """The reply to the first one was lost."""
    client = almost(both)
    for number, span in enumerate(EARLY):
        assert send(client, both.dealt(number + 1), span).json["bytes"] == 3000
    assert_refused(send(client, both.dealt(1), FIRST, data=bytes(1000)), 400, "chunk_conflict")
    assert len(both.objects()) == 3
    assert stored(both.one, send(client, both.one, LAST)) == DATA


# What is recorded, and what is only in the bucket.


async def by_listing(services: Services, series_id: str, span: Span) -> AsyncIterator[StoredPart]:
    """Return what is in the bucket. Where nothing is recorded of it, that is the wrong bytes."""
    series, shared = await services.database.find_series(series_id), services.blobs.parts
    assert series is not None
    assert isinstance(shared, ObjectParts)
    found = [(name, shared._bucket.read(name, 0, size)) for name, size, _ in in_bucket(shared, series.blob_key)]
    for start in range(0, len(DATA), CHUNK):
        recorded = [each for each in found if each[1] == DATA[start : start + CHUNK]]
        unrecorded = [each for each in found if each[1] == UNRECORDED and start == SECOND[0]]
        name, data = (unrecorded or recorded)[0]
        yield StoredPart(Span(start, start + len(data)), name.rpartition("/")[2], hashlib.sha256(data).hexdigest())


def in_bucket(shared: ObjectParts, key: str) -> list[tuple[str, int, float]]:
    return list(shared._bucket.listing(f"parts/{key}"))


def store_beside_unrecorded_bytes(both: Pair) -> bytes:
    """One server puts other bytes and dies before it can record them; the right ones come to the other server.

    Returns what is stored.
    """
    client, healthy = Client(both.one, DATA), both.one.services
    send(client, both.two, FIRST)
    both.one.swap(database=Failing(both.one.database, before={"record_span": DOWN}))
    for _ in range(5):
        assert send(client, both.one, SECOND, data=UNRECORDED).status == 503
    both.one.use(healthy)
    assert len(both.objects()) == 6
    send(client, both.two, SECOND, THIRD)
    return stored(both.one, send(client, both.one, LAST))


def test_unrecorded_bytes_are_never_used(both: Pair) -> None:
    assert store_beside_unrecorded_bytes(both) == DATA
    assert both.is_clean()


def test_the_check_goes_red_when_parts_are_found_by_listing(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real = use_case.stored_parts

    def stored_parts(services: Services, series_id: str, span: Span) -> AsyncIterator[StoredPart]:
        return by_listing(services, series_id, span) if span.size == len(DATA) else real(services, series_id, span)

    for module in (use_case, completion):
        monkeypatch.setattr(module, "stored_parts", stored_parts)
    assert store_beside_unrecorded_bytes(both) == DATA[:1000] + UNRECORDED + DATA[2000:]


def check_nothing_is_recorded_that_is_not_there(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket refuses a part, and the server dies of it."""
    client = almost(both)
    with monkeypatch.context() as broken:
        broken.setattr(Bucket, "upload", failing_upload)
        assert send(client, both.one, LAST).status == 503
    assert stored(both.two, send(client, both.two, LAST)) == DATA


def failing_upload(*_: object) -> None:
    raise StorageUnavailable("The bucket is ill.")


def test_nothing_is_recorded_that_is_not_there(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    check_nothing_is_recorded_that_is_not_there(both, monkeypatch)


def test_the_check_goes_red_when_a_part_is_recorded_before_it_is_put(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, real = ObjectParts.put, Append.keep

    async def keep(self: Append) -> Series:
        """Break the first server only."""
        monkeypatch.setattr(Append, "keep", real)
        held: list[tuple[Any, ...]] = []

        def later(parts: ObjectParts, key: str, span: Span, descriptor: int, base: int) -> StoredPart:
            held.append((parts, key, span, descriptor, base))
            return StoredPart(span, "0" * 32, hashlib.sha256(DATA[span.start : span.end]).hexdigest())

        monkeypatch.setattr(ObjectParts, "put", later)
        span = Span(self._chunk.span.start, self._chunk.span.start + self.size)
        parts = await self._part.sync(await self._recorded(span))
        self.series = await self._services.database.record_span(self.series.id, span, self._chunk.total, parts)
        monkeypatch.setattr(ObjectParts, "put", put)
        parts = await self._part.sync()
        return self.series

    monkeypatch.setattr(Append, "keep", keep)
    with pytest.raises(AssertionError, match="storage_unavailable"):
        check_nothing_is_recorded_that_is_not_there(both, monkeypatch)


def test_a_part_that_was_lost_or_has_rotted_completes_nothing(both: Pair) -> None:
    """And spends nothing."""
    client = almost(both)
    bucket = both.parts._bucket
    name, *_ = in_bucket(both.parts, both.objects()[0].key)[0]
    good = bucket.read(name, 0, 1000)
    for bad in (bytes(1000), good[:-1], None):
        bucket.delete(name)
        if bad is not None:
            obstore.put(bucket._store, name, bad)
        assert_refused(send(client, both.two, LAST), 503, "storage_unavailable")
    obstore.put(bucket._store, name, good)
    assert stored(both.two, send(client, both.two, LAST)) == DATA
    assert len(both.published()) == 1
