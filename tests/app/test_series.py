"""A series is one attempt: what it spends and when, what failures, restarts, races and sweeps make of it."""

import asyncio
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.app.failing import Failing
from tests.asgi import Answer
from tests.chunks import CHUNK, NO_ROWS, Client, form, noise, rows, stored
from tests.world import QuickWorld, World, assert_refused
from uponce.app.authorise import UploadRequest, authorise
from uponce.app.sweep import Swept, sweep
from uponce.app.uploading import series as use_case
from uponce.app.uploading.completion import finish
from uponce.app.uploading.series import append, begin_series, terminate
from uponce.core.errors import (
    DatabaseUnavailable,
    InvalidMedia,
    OutcomeUnknown,
    SeriesGone,
    ServerBusy,
    StorageFull,
    StorageUnavailable,
)
from uponce.core.policy import Limits
from uponce.core.series import Chunk
from uponce.core.spans import Span
from uponce.core.values import Caller

LIMITS = Limits(min_chunk_bytes=CHUNK, max_series_per_key=3, max_series=4, least_rate=1)
DATA = noise(3 * CHUNK + 7)
FIRST, SECOND, THIRD, LAST = [(0, 999), (1000, 1999), (2000, 2999), (3000, 3006)]
EARLY = [FIRST, SECOND, THIRD]
CALLER = Caller("192.0.2.9", "request-1")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=LIMITS)
    yield world
    world.close()


@pytest.fixture
def client(world: World) -> Client:
    """All but the last chunk has arrived."""
    client = Client(world, DATA)
    send(client, *EARLY)
    return client


def send(client: Client, *spans: tuple[int, int], **more: Any) -> Answer:
    """These chunks one after the other; the last answer."""

    async def play() -> list[Answer]:
        return [await client.chunk(*span, **more) for span in spans]

    return asyncio.run(play())[-1]


def swept(world: World, grace: float = 0) -> Swept:
    return asyncio.run(sweep(world.services, grace_seconds=grace, audit_seconds=10**6))


# What is spent.


def test_every_chunk_of_a_finished_series_is_a_replay(world: World, client: Client) -> None:
    assert stored(world, send(client, LAST)) == DATA
    with_other_name = Client(world, DATA, fields=client.fields, upload_id="other")
    before = world.traces()
    for late in (client, with_other_name):
        for span in (FIRST, SECOND, LAST):
            assert_refused(send(late, span), 400, "signature_used")
    after = world.traces()
    assert (after.assets, after.grants, after.spooled) == (before.assets, before.grants, frozenset())
    assert after.audit == before.audit + 6
    assert rows(world) == NO_ROWS


def test_a_plain_upload_with_the_same_signature_wins_while_the_series_is_unfinished(
    world: World, client: Client
) -> None:
    assert world.upload(client.fields).status == 200
    assert_refused(send(client, LAST), 400, "signature_used")
    assert (world.traces().assets, world.traces().grants) == (1, 1)


def test_all_signatures_are_spent_or_none(world: World) -> None:
    """Two are used elsewhere before the last chunk arrives. The refusal names the first one, the audit has both."""
    client = Client(world, DATA)
    signed = []
    for span in EARLY:
        world.clock.time += 1
        signed.append(world.sign())
        send(client, span, fields=signed[-1])
    for used in signed[1:]:
        assert world.upload(used).status == 200
    world.clock.time += 1
    signed.append(world.sign())
    refused = send(client, LAST, fields=signed[-1])
    assert_refused(refused, 400, "signature_used")
    of_used = "SELECT count(DISTINCT grant_key) FROM audit WHERE event = 'refused' AND code = 'signature_used'"
    assert world.sql(of_used) == 2
    assert refused.message.endswith("It is the signature of 2026-01-01 00:00:02 +0000, one of 4 of this upload.")
    assert rows(world) == NO_ROWS
    assert world.traces().spooled == frozenset()
    for unspent in (signed[0], signed[-1]):
        assert world.upload(unspent).status == 200


def test_a_revoked_signature_ends_the_series(world: World, client: Client) -> None:
    asyncio.run(revoke(world, client.fields))
    assert_refused(send(client, LAST), 400, "signature_revoked")
    assert world.traces().assets == 0


async def revoke(world: World, fields: Mapping[str, str]) -> None:
    verified = await authorise(world.services, UploadRequest("demo", None, (), None, CALLER), dict(fields))
    await world.database.revoke_grant(verified.grant, CALLER)


def test_a_signature_of_a_live_series_starts_no_other(world: World, client: Client) -> None:
    other = Client(world, DATA, fields=client.fields, upload_id="other")
    with world.untouched():
        refused = send(other, FIRST)
    assert_refused(refused, 400, "signature_in_use")
    assert refused.headers["retry-after"]
    assert stored(world, send(client, LAST)) == DATA


def test_a_signature_with_more_uses_may_be_in_as_many_series(world: World) -> None:
    fields = world.sign({"max_uses": 2}, key=world.server)
    clients = [Client(world, DATA, fields=fields, upload_id=str(number)) for number in range(3)]
    for client in clients[:2]:
        send(client, *EARLY)
    assert_refused(send(clients[2], FIRST), 400, "signature_in_use")
    for client in clients[:2]:
        assert stored(world, send(client, LAST)) == DATA
    assert_refused(send(clients[2], FIRST), 400, "signature_used")


def test_limits_on_unfinished_series(world: World) -> None:
    """Three for each key, four in all."""

    def begin(number: int, **more: Any) -> Answer:
        return send(Client(world, DATA, fields=world.sign(**more), upload_id=str(number)), FIRST)

    assert [begin(n).code for n in range(4)] == ["ok", "ok", "ok", "too_many_series"]
    assert [begin(n, key=world.server).code for n in range(4, 6)] == ["ok", "too_many_series"]
    assert rows(world)["series"] == 4
    assert len(world.traces().spooled) == 4


# Failures.


@pytest.mark.parametrize("params", [{"sha256": "0" * 64}, {"allowed_formats": "png"}, {"max_bytes": len(DATA) - 1}])
def test_a_series_that_is_refused_spends_nothing_and_leaves_nothing(world: World, params: dict[str, Any]) -> None:
    client = Client(world, DATA, fields=world.sign({"tags": "same", **params}))
    if "max_bytes" in params:
        with world.untouched():
            assert_refused(send(client, FIRST), 400, "file_too_large")
        return
    send(client, *EARLY)
    assert send(client, LAST).status == 400
    assert rows(world) == NO_ROWS
    traces = world.traces()
    assert (traces.spooled, traces.blobs, traces.grants) == (frozenset(), frozenset(), 0)


def test_a_refused_file_leaves_its_signature_good(world: World, client: Client) -> None:
    healthy = world.services
    world.swap(inspector=Failing(world.services.inspector, before={"inspect": InvalidMedia("crashed")}))
    assert_refused(send(client, LAST), 400, "invalid_media")
    world.use(healthy)
    assert stored(world, send(client, *EARLY, LAST)) == DATA


class FailingParts:
    """A blob store whose assemblies fail."""

    def __init__(self, real: Any, **failures: Any) -> None:
        self._real = real
        self._failures = failures

    @property
    def parts(self) -> Any:
        return FailingParts(self._real.parts, **self._failures)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def assembly(self, key: str) -> Any:
        return Failing(await self._real.assembly(key), **self._failures)


BUSY, DOWN, FULL = ServerBusy("busy"), DatabaseUnavailable("down"), StorageFull("full")
GONE = StorageUnavailable("gone")
OUTAGES: dict[str, dict[str, Any]] = {
    "no decoder": {"inspector": {"before": {"inspect": BUSY}}},
    "no commit": {"database": {"before": {"commit_series": DOWN}}},
    "disk full at the end": {"assembly": {"before": {"seal": FULL}}},
    "published, then the folder failed": {"assembly": {"after": {"publish": GONE}}},
    "no record of the last chunk": {"database": {"before": {"record_span": DOWN}}},
}


@pytest.mark.parametrize("name", OUTAGES)
def test_after_an_outage_the_last_chunk_sent_again_completes_the_series(
    world: World, client: Client, name: str
) -> None:
    healthy, outage = world.services, OUTAGES[name]
    world.swap(
        database=Failing(world.database, **outage.get("database", {})),
        inspector=Failing(world.services.inspector, **outage.get("inspector", {})),
        blobs=FailingParts(world.blobs, **outage.get("assembly", {})),
    )
    assert send(client, LAST).status in (503, 507)
    assert (world.traces().assets, world.traces().grants) == (0, 0)
    world.use(healthy)
    assert swept(world) == Swept(0, 0, 0, 0, 0)
    answer = send(client, LAST)
    assert stored(world, answer) == DATA
    assert answer.json["etag"] == hashlib.md5(DATA).hexdigest()
    assert world.traces().spooled == frozenset()


def test_a_commit_whose_reply_is_lost_is_read_back(world: World, client: Client) -> None:
    world.swap(database=Failing(world.database, after={"commit_series": OutcomeUnknown("unknown")}))
    assert stored(world, send(client, LAST)) == DATA


def test_a_commit_that_may_have_happened_deletes_nothing(world: World, client: Client) -> None:
    healthy = world.services
    world.swap(database=Failing(world.database, before={"commit_series": OutcomeUnknown("unknown")}))
    assert send(client, LAST).code == "outcome_unknown"
    assert len(world.traces().blobs) == 1
    world.use(healthy)
    assert stored(world, send(client, LAST)) == DATA


def test_a_restarted_server_goes_on(world: World, client: Client, tmp_path: Path) -> None:
    world.close()
    again = QuickWorld(tmp_path, limits=LIMITS)
    try:
        client.world = again
        answer = send(client, LAST)
        assert stored(again, answer) == DATA
        assert answer.json["etag"] == hashlib.md5(DATA).hexdigest()
    finally:
        again.close()


def test_bytes_are_durable_before_they_are_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut would leave a record of bytes that are not there."""
    order = []
    real_sync, real_record = os.fdatasync, world.database.record_span

    def sync(number: int) -> None:
        real_sync(number)
        order.append("sync")

    async def record_span(*arguments: Any) -> Any:
        order.append("record")
        return await real_record(*arguments)

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr(world.database, "record_span", record_span)
    send(Client(world, DATA), FIRST)
    assert order == ["sync", "record"]


# Several at once.


@pytest.mark.parametrize("racers", [2, 5])
def test_of_equal_last_chunks_one_completes_the_series(world: World, client: Client, racers: int) -> None:
    async def play() -> list[Answer]:
        return await asyncio.gather(*(client.chunk(*LAST) for _ in range(racers)))

    answers = asyncio.run(play())
    (winner,) = [answer for answer in answers if answer.status == 200]
    assert stored(world, winner) == DATA
    losers = {answer.code for answer in answers if answer is not winner}
    assert losers <= {"signature_used", "chunk_superseded", "chunk_in_progress"}
    assert (world.traces().assets, world.traces().grants) == (1, 1)


def test_two_that_find_the_series_complete(world: World, client: Client) -> None:
    """The second waits for the first, and gets `signature_used`."""
    healthy = world.services
    world.swap(inspector=Failing(world.services.inspector, before={"inspect": BUSY}))
    send(client, LAST)
    world.use(healthy)

    async def play() -> list[Answer]:
        return [*await asyncio.gather(client.chunk(*FIRST), client.chunk(*SECOND))]

    assert sorted(answer.code for answer in asyncio.run(play())) == ["ok", "signature_used"]


def test_a_newer_request_for_the_same_bytes_takes_over(world: World, client: Client) -> None:
    """The older one is silent, as when its connection died without a sign; one for other bytes is left alone."""

    async def play() -> tuple[Answer, Answer, Answer]:
        under_way = asyncio.Event()
        head, tail = form(client.fields, DATA[3000:])[0], form(client.fields, DATA[3000:])[1:]

        async def slowly() -> Any:
            yield head + tail[0][:-3]
            under_way.set()
            await asyncio.Event().wait()

        slow = asyncio.create_task(client.chunk(*LAST, chunks=slowly()))
        await under_way.wait()
        elsewhere = await client.chunk(*FIRST)
        assert not slow.done()
        return elsewhere, await client.chunk(*LAST), await slow

    elsewhere, overlapping, slow = asyncio.run(play())
    assert elsewhere.json["bytes"] == 3000
    assert_refused(slow, 400, "chunk_superseded")
    assert stored(world, overlapping) == DATA


@pytest.mark.parametrize("broken", [False, True])
def test_who_comes_too_late_cannot_write_to_what_was_published(
    world: World, client: Client, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked the series up before others completed it, and opens the file after; the broken one looks no more."""

    async def play() -> None:
        stale = await world.database.find_named_series("demo", world.browser.api_key, client.upload_id)
        assert stale is not None
        final = await client.chunk(*LAST)
        assert final.status == 200
        if broken:
            monkeypatch.setattr(use_case, "get_series", answering(stale))
        for span in (Span(3000, 3007), Span(5000, 6000)):
            with pytest.raises(SeriesGone):
                await append(world.services, stale, Chunk(span, None))
        (blob,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
        assert blob.read_bytes() == DATA

    with pytest.raises(pytest.fail.Exception) if broken else nullcontext():
        asyncio.run(play())


def answering(value: Any) -> Any:
    async def answer(*_: object) -> Any:
        return value

    return answer


# Without Cloudinary's protocol.


def test_create_append_terminate(world: World) -> None:
    """As in a protocol that gives each upload an address, and appends part by part."""

    async def play() -> None:
        services, fields = world.services, world.sign()
        verified = await authorise(services, UploadRequest("demo", None, (), None, CALLER), dict(fields))
        series = await begin_series(services, verified, fields, CALLER, requested=None, filename="film.bin")
        part = await append(services, series, Chunk(Span(0, len(DATA)), len(DATA)))
        await part.write(DATA[:1500])
        series = await part.keep()
        assert (series.received, series.complete) == (1500, False)
        await part.write(DATA[1500:])
        await part.discard()
        part = await append(services, series, Chunk(Span(series.received, len(DATA)), len(DATA)))
        await part.write(DATA[1500:])
        series = await part.keep()
        await part.discard()
        assert series.complete
        await terminate(services, series)
        with pytest.raises(SeriesGone):
            await terminate(services, series)
        with pytest.raises(SeriesGone):
            await append(services, series, Chunk(Span(0, 1), None))
        with pytest.raises(SeriesGone):
            await finish(services, series, verified.signer, CALLER)

    with world.untouched():
        asyncio.run(play())
    assert rows(world) == NO_ROWS
