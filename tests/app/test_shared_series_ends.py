"""How series on a bucket end, what is left of them, and which server may delete it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.app.failing import Failing, Held
from tests.app.shared import Pair, pair
from tests.app.test_shared_series import DATA, DOWN, EARLY, FIRST, LAST, LIMITS, SECOND, almost, at, chunk, send
from tests.asgi import Answer
from tests.chunks import Client, stored
from tests.contract.stores import local
from tests.tus import BYTES, VERSION, metadata, play
from tests.tus import Client as TusClient
from tests.world import assert_accepted, assert_refused, run
from uponce.adapters.store.bucket import Bucket
from uponce.app.manage_keys import playground_key
from uponce.app.sweep import Swept, sweep
from uponce.app.tidy_playground import Kept, tidy_playground
from uponce.app.unbroken import finish_unbroken
from uponce.core.errors import OutcomeUnknown, StorageUnavailable

UNKNOWN = OutcomeUnknown("unknown")


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path, LIMITS) as both:
        yield both


def test_giving_it_up_anywhere_deletes_its_parts(both: Pair) -> None:
    client = TusClient(both.one, DATA)
    play(client.create, lambda: client.patch(0, 1000), lambda: client.patch(1000, 2500))
    assert len(both.objects()) == 2
    (ended,) = play(at(client, both.two).delete)
    assert ended.status == 204
    assert both.is_clean()


def test_no_client_waits_for_the_deletion_of_the_parts(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    client, drop = almost(both), both.parts.drop

    async def last() -> Answer:
        may_drop = asyncio.Event()

        async def wait(key: str) -> None:
            await may_drop.wait()
            await drop(key)

        monkeypatch.setattr(both.parts, "drop", wait)
        answer = await asyncio.wait_for(client.chunk(*LAST), 60)
        may_drop.set()
        await finish_unbroken(60)
        return answer

    assert stored(both.two, assert_accepted(asyncio.run(last()))) == DATA
    assert both.is_clean()


@pytest.mark.usefixtures("few_places")
def test_what_a_series_left_behind_is_swept_after_its_grace(both: Pair) -> None:
    """And nothing of those that live, even parts that were not recorded."""
    living, ended = almost(both), Client(both.one, DATA, upload_id="ended")
    send(ended, both.one, *EARLY)
    both.one.swap(database=Failing(both.one.database, before={"record_span": DOWN}))
    send(living, both.one, LAST)
    both.one.use(replace(both.one.services, database=both.one.database))
    assert len(both.objects()) == 7
    both.one.sql("DELETE FROM series WHERE upload_id = 'ended'")
    both.sweep(grace=3600)
    assert (len(both.objects()), both.findings(grace=3600)) == (7, [])
    (found,) = both.findings()
    assert (found.kind.name, found.detail.startswith("3000 bytes")) == ("spooled", True)
    both.sweep()
    assert (len(both.objects()), both.findings()) == (4, [])
    assert stored(both.two, send(living, both.two, LAST)) == DATA
    assert both.objects() == []


def test_a_series_that_is_too_old_ends_with_its_parts(both: Pair) -> None:
    almost(both)
    for world in both.both:
        world.clock.time += 86401
    assert [swept.series for swept in both.sweep(grace=10**6)] == [1, 0]  # not as parts that are old
    assert both.is_clean()


def test_a_series_that_makes_room_ends_with_its_parts(both: Pair) -> None:
    almost(both)
    both.one.swap(limits=replace(LIMITS, max_series_per_key=1))
    both.one.clock.time += 3600
    (begun,) = play(TusClient(both.one, DATA).create)
    assert (begun.status, both.objects()) == (201, [])


def test_the_playground_ends_series_with_their_parts(both: Pair) -> None:
    key = asyncio.run(playground_key(both.one.services))
    headers = {"upload-length": "3000", "upload-metadata": metadata(both.one.sign(key=key))}
    begun = both.one.request("POST", "/tus/playground/", headers=VERSION | BYTES | headers, chunks=[DATA[:1000]])
    assert (begun.status, len(both.objects())) == (201, 1)
    run(tidy_playground(both.one.services, Kept(files=9, bytes=5000, seconds=3600, file_bytes=9000)))
    assert both.is_clean()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_bucket_that_keeps_the_parts_refuses_no_new_series(
    both: Pair, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    """Nor does the new one wait for the bucket, which deletes them later."""
    almost(both)
    both.one.swap(limits=replace(LIMITS, max_series_per_key=1))
    both.one.clock.time += 3600
    client, delete, may_delete = TusClient(both.one, DATA), Bucket.delete_below, threading.Event()

    def keep(bucket: Bucket, folder: str) -> None:
        if not hangs:
            raise StorageUnavailable("sick")
        may_delete.wait(60)
        delete(bucket, folder)

    async def begin() -> Answer:
        answer = await asyncio.wait_for(client.create(), 30)
        may_delete.set()
        await finish_unbroken(60)
        return answer

    monkeypatch.setattr(Bucket, "delete_below", keep)
    monkeypatch.setattr(Bucket, "delete", keep)
    assert asyncio.run(begin()).status == 201
    assert len(both.objects()) == (0 if hangs else 3)


@pytest.mark.parametrize("happened", [True, False])
def test_while_nobody_knows_nothing_is_deleted(both: Pair, happened: bool) -> None:
    client, healthy = almost(both), both.two.services
    moment = {"after" if happened else "before": {"commit_series": UNKNOWN}}
    both.two.swap(database=Failing(Failing(both.two.database, **moment), before={"confirm_commit": DOWN}))
    assert_refused(send(client, both.two, LAST), 503, "outcome_unknown")
    assert (len(both.objects()), len(both.published())) == (4, 1)
    both.two.use(healthy)
    again = send(client, both.one, LAST)
    if happened:
        assert_refused(again, 400, "signature_used")
    else:
        assert stored(both.one, again) == DATA
    both.sweep()
    assert len(both.published()) == 1
    assert both.is_clean()


def test_a_commit_that_is_refused_leaves_its_series(both: Pair) -> None:
    """The database went away; what was published for it goes, the parts stay."""
    client, healthy = almost(both), both.one.services
    both.one.swap(database=Failing(both.one.database, before={"commit_series": DOWN}))
    assert send(client, both.one, LAST).status == 503
    assert (len(both.objects()), both.published(), both.spooled()) == (4, set(), [])
    both.one.use(healthy)
    assert stored(both.two, send(client, both.two, LAST)) == DATA


@pytest.mark.parametrize("under_way", [False, True], ids=["failed", "under way elsewhere"])
def test_beside_a_complete_series_its_signature_may_begin_another(both: Pair, under_way: bool) -> None:
    """After some seconds. No lock shows if another server completes it. The first commit wins, as everywhere."""
    client, healthy = almost(both), both.two.services
    other = Client(both.one, DATA, fields=client.fields, upload_id="another.name")

    async def play() -> tuple[Answer, Answer, Answer]:
        held = Held(both.two.database, "commit_series")
        both.two.swap(database=held if under_way else Failing(both.two.database, before={"commit_series": DOWN}))
        last = asyncio.create_task(chunk(client, both.two, LAST))
        await (held.reached.wait() if under_way else asyncio.wait([last]))
        early = await other.chunk(*FIRST)
        for world in both.both:
            world.clock.time += LIMITS.rate_seconds + 1
        assert [(await other.chunk(*span)).status for span in EARLY] == [200] * 3
        held.release.set()
        return early, await last, await other.chunk(*LAST)

    early, first, second = asyncio.run(play())
    assert_refused(early, 400, "signature_in_use")
    if under_way:
        assert stored(both.one, first) == DATA
        assert_refused(second, 400, "signature_used")
    else:
        assert_refused(first, 503, "database_unavailable")
        assert stored(both.one, second) == DATA
        both.two.use(healthy)
        assert_refused(send(client, both.two, LAST), 400, "signature_used")
    assert both.one.sql("SELECT count(*) FROM assets") == 1
    for world in both.both:
        world.clock.time += 86401
    both.sweep()
    assert (len(both.published()), both.is_clean()) == (1, True)


def test_a_complete_series_that_makes_room_while_another_server_completes_it_spends_nothing(both: Pair) -> None:
    """No lock shows that. Its client begins again."""
    client, held = almost(both), Held(both.two.database, "commit_series")
    both.two.swap(database=held)
    both.one.swap(limits=replace(LIMITS, max_series_per_key=1, max_upload_seconds=900))

    async def play() -> tuple[Answer, Answer, Answer]:
        last = asyncio.create_task(chunk(client, both.two, LAST))
        await held.reached.wait()
        new = Client(both.one, DATA, upload_id="another.name")
        for world in both.both:
            world.clock.time += 900
        early = await new.chunk(*FIRST)
        for world in both.both:
            world.clock.time += 1
        late = await new.chunk(*FIRST)
        held.release.set()
        return await last, early, late

    ended, early, other = asyncio.run(play())
    assert (ended.code, early.code, other.status) == ("series_gone", "too_many_series", 200)
    assert (both.one.sql("SELECT count(*) FROM assets"), both.published()) == (0, set())
    assert [send(client, both.one, span).status for span in client.spans] == [200] * len(client.spans)
    assert both.one.sql("SELECT count(*) FROM assets") == 1


def test_a_sweep_between_publish_and_commit_spends_nothing(both: Pair) -> None:
    """The server that completes the series sleeps. The parts are still there, so any server completes it later."""
    client, healthy = almost(both), both.two.services

    async def play() -> tuple[Answer, Swept]:
        held = Held(both.two.database, "commit_series")
        both.two.swap(database=held)
        sleeper = asyncio.create_task(chunk(client, both.two, LAST))
        await held.reached.wait()
        swept = await sweep(both.one.services, grace_seconds=0, audit_seconds=10**6)
        held.release.set()
        return await sleeper, swept

    late, swept = asyncio.run(play())
    assert_refused(late, 503, "attempt_expired")
    assert swept.blobs == 1
    assert [both.one.sql(f"SELECT count(*) FROM {table}") for table in ("assets", "grants", "series")] == [0, 0, 1]
    assert (len(both.objects()), both.published(), both.spooled()) == (4, set(), [])
    both.two.use(healthy)
    assert stored(both.one, send(client, both.one, LAST)) == DATA
    assert both.is_clean()


@contextmanager
def on_a_disk(both: Pair) -> Iterator[None]:
    """Their operator has set another storage, a folder."""
    with pytest.MonkeyPatch.context() as elsewhere, local(both.folder / "elsewhere") as folder:
        for world in both.both:
            elsewhere.setattr(world.blobs, "parts", folder.parts)
        yield


def test_a_server_with_a_bucket_touches_nothing_of_a_disk(both: Pair) -> None:
    client = Client(both.one, DATA)
    with on_a_disk(both):
        send(client, both.one, FIRST)
    assert_refused(send(client, both.one, SECOND), 503, "storage_unavailable")
    assert both.objects() == []
    with on_a_disk(both):
        assert send(client, both.one, SECOND).json["bytes"] == 2000


def test_a_server_without_the_bucket_touches_nothing(both: Pair) -> None:
    client = almost(both)
    with on_a_disk(both):
        assert_refused(send(client, both.one, LAST), 503, "storage_unavailable")
    assert stored(both.one, send(client, both.one, LAST)) == DATA
