"""How chunks come to a series, when the one that began it failed, or another one ended it."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import tus
from tests.app import uploads
from tests.app.dying import Dead, Life, make_mortal
from tests.app.failing import Failing, Held
from tests.app.uploads import outcome
from tests.asgi import Answer
from tests.chunks import CHUNK, NO_ROWS, Client, form, noise, rows, stored
from tests.world import QuickWorld, World, assert_refused
from uponce.adapters.spool import parts
from uponce.adapters.spool.locks import in_progress
from uponce.adapters.system import sync_folder
from uponce.app.ports import Assembly, HeldPart
from uponce.app.sweep import sweep
from uponce.app.uploading.series import hold_all
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, UponceError
from uponce.core.policy import Limits
from uponce.core.spans import Span

LIMITS = Limits(min_chunk_bytes=CHUNK)
DATA = noise(2 * CHUNK)
FIRST, LAST = (0, 999), (1000, 1999)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=LIMITS)
    yield world
    world.close()


async def silent_after(client: Client, under_way: asyncio.Event, data: bytes = DATA[:1000]) -> Any:
    """A chunk without its end, as when its connection died without a sign."""
    head, *tail = form(client.fields, data)
    yield head + tail[0][:-3]
    under_way.set()
    await asyncio.Event().wait()


@pytest.mark.parametrize("anew", [False, True], ids=["the same signature", "signed anew"])
@pytest.mark.parametrize("file_first", [False, True])
def test_the_first_chunk_again_takes_over_from_a_silent_one(world: World, anew: bool, file_first: bool) -> None:
    """The older request ends the series that it had begun, with nothing in it: the newer one begins it again."""
    client = Client(world, DATA)

    async def play() -> tuple[Answer, Answer, Answer]:
        under_way = asyncio.Event()
        slow = asyncio.create_task(client.chunk(*FIRST, chunks=silent_after(client, under_way)))
        await under_way.wait()
        fields = world.sign() if anew else client.fields
        again = await client.chunk(*FIRST, fields=fields, file_first=file_first)
        return await slow, again, await client.chunk(*LAST, fields=fields)

    slow, again, last = asyncio.run(play())
    assert_refused(slow, 400, "chunk_superseded")
    assert again.json["bytes"] == 1000
    assert stored(world, last) == DATA
    assert rows(world) == NO_ROWS


def test_the_name_of_the_file_is_durable_before_the_series_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut would leave a record of an upload whose file is not there."""
    order: list[str] = []
    real_create = world.database.create_series

    def sync(folder: Path) -> None:
        sync_folder(folder)
        order.append(folder.name)

    async def create_series(*arguments: Any, **more: Any) -> Any:
        order.append("record")
        return await real_create(*arguments, **more)

    monkeypatch.setattr(parts, "sync_folder", sync)
    monkeypatch.setattr(world.database, "create_series", create_series)
    assert asyncio.run(Client(world, DATA).chunk(*FIRST)).status == 200
    assert order == ["spool", "record"]


def test_copies_of_a_signature_make_their_files_one_after_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is synced. So a crowd of copies leaves the disk to other uploads."""
    client, begin, under_way, most = Client(world, DATA), world.blobs.parts.begin, 0, 0

    async def counted() -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0.01)
            return await begin()
        finally:
            under_way -= 1

    async def play() -> list[Answer]:
        return await asyncio.gather(*(client.chunk(*FIRST) for _ in range(10)))

    monkeypatch.setattr(world.blobs.parts, "begin", counted)
    asyncio.run(play())
    assert most == 1


def test_who_lost_the_first_chunk_may_begin_under_another_name(tmp_path: Path) -> None:
    """A killed server leaves a series with nothing in it: its signature is not bound to it."""
    folder, client = kill_in_the_first_chunk(tmp_path)
    world = client.world = QuickWorld(folder, limits=LIMITS)
    try:
        assert rows(world) == {"series": 1, "spans": 0, "series_grants": 1}
        client.upload_id = "another.name"
        answers = asyncio.run(client.all_of())
        assert stored(world, answers[-1]) == DATA
        assert rows(world) == NO_ROWS
        assert world.traces().spooled == frozenset()
    finally:
        world.close()


@pytest.mark.parametrize("failure", [DatabaseUnavailable("down"), OutcomeUnknown("unknown")], ids=["down", "unknown"])
def test_a_client_whose_last_chunk_failed_may_begin_under_another_name(world: World, failure: UponceError) -> None:
    """Its page was loaded again, and knows the first name no more."""
    client, healthy = Client(world, DATA), world.services
    world.swap(database=Failing(world.database, before={"commit_series": failure}))
    assert_refused(asyncio.run(client.all_of())[-1], 503, failure.code)
    world.use(healthy)
    client.upload_id = "another.name"
    assert stored(world, asyncio.run(client.all_of())[-1]) == DATA
    assert (rows(world), world.traces().spooled) == (NO_ROWS, frozenset())
    assert (world.traces().assets, world.traces().grants, len(world.traces().blobs)) == (1, 1, 1)


def test_a_series_whose_last_chunk_has_just_come_is_not_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request has released the chunk, and does not hold the whole series until another upload looks for it."""
    client, find = Client(world, DATA), world.database.find_series_of
    other = Client(world, DATA, fields=client.fields, upload_id="another.name")
    inspector = Held(world.services.inspector, "inspect")

    async def play() -> tuple[Answer, Answer]:
        reached, looked = asyncio.Event(), asyncio.Event()

        async def hold_later(*arguments: Any) -> Assembly:
            reached.set()
            await looked.wait()
            return await hold_all(*arguments)

        async def look(*arguments: Any) -> Any:
            found = await find(*arguments)
            looked.set()
            return found

        monkeypatch.setattr("uponce.app.uploading.series._ABOUT_TO_HOLD_SECONDS", 3)  # whatever the machine does
        monkeypatch.setattr("uponce.app.uploading.completion.hold_all", hold_later)
        monkeypatch.setattr(world.database, "find_series_of", look)
        world.swap(inspector=inspector)
        await client.chunk(*FIRST)
        last = asyncio.create_task(client.chunk(*LAST))
        await reached.wait()
        refused = await other.chunk(*FIRST)
        inspector.release.set()
        return refused, await last

    refused, last = asyncio.run(play())
    assert_refused(refused, 400, "signature_in_use")
    assert stored(world, last) == DATA


def test_the_last_chunk_again_is_answered_when_the_first_one_completes_the_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply to the first one is lost, and no newer request than the repeat will show the end."""
    client, inspector = Client(world, DATA), Held(world.services.inspector, "inspect")

    async def play() -> tuple[Answer, Answer, Answer]:
        reached, repeated = asyncio.Event(), asyncio.Event()

        async def hold_later(*arguments: Any) -> Assembly:
            reached.set()
            await repeated.wait()
            return await hold_all(*arguments)

        monkeypatch.setattr("uponce.app.uploading.completion.hold_all", hold_later)
        world.swap(inspector=inspector)
        await client.chunk(*FIRST)
        last = asyncio.create_task(client.chunk(*LAST))
        await reached.wait()
        again = await client.chunk(*LAST, chunks=silent_after(client, repeated, DATA[1000:]))
        inspector.release.set()
        return await last, again, await client.chunk(*LAST)

    last, again, later = asyncio.run(play())
    assert stored(world, last) == DATA
    assert_refused(again, 400, "chunk_in_progress")
    assert again.headers["retry-after"] == "1"
    assert_refused(later, 400, "signature_used")


def test_what_arrived_without_a_record_binds_no_signature(tmp_path: Path) -> None:
    """The server was killed after it had noted that most of the first chunk had arrived."""
    folder, client = kill_in_the_first_chunk(tmp_path)
    world = client.world = QuickWorld(folder, limits=LIMITS)
    series = asyncio.run(world.database.find_named_series("demo", client.fields["api_key"], client.upload_id))
    assert series is not None
    asyncio.run(world.database.note_arrival(series.id, 10**9))
    client.upload_id = "another.name"
    assert stored(world, asyncio.run(client.all_of())[-1]) == DATA
    assert rows(world) == NO_ROWS
    world.close()


def test_a_series_of_which_nothing_arrived_is_swept_in_its_time(tmp_path: Path) -> None:
    """Within minutes; one of which something arrived has a day."""
    folder, client = kill_in_the_first_chunk(tmp_path)
    world = QuickWorld(folder, limits=LIMITS)
    try:
        world.clock.time += LIMITS.empty_series_seconds
        asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**6))
        assert rows(world)["series"] == 1
        world.clock.time += 1
        assert asyncio.run(sweep(world.services, grace_seconds=10**6, audit_seconds=10**6)).series == 1
        assert rows(world) == NO_ROWS
        assert world.traces().spooled == frozenset()
        assert world.upload(client.fields).status == 200
    finally:
        world.close()


def test_a_stale_signature_begins_no_series_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was part of one that ended with nothing in it, while its time was over.

    Between the release of its part and the end of that series, the newer chunk could still join it.
    """
    client = Client(world, DATA)

    async def play() -> tuple[Answer, Answer]:
        under_way = asyncio.Event()
        slow = asyncio.create_task(client.chunk(*FIRST, chunks=silent_after(client, under_way)))
        await under_way.wait()
        world.clock.time += 3601
        hold = world.blobs.parts.hold

        async def hold_behind(key: str, span: Span) -> HeldPart:
            if not slow.done():
                raise in_progress()
            return await hold(key, span)

        monkeypatch.setattr(world.blobs.parts, "hold", hold_behind)
        return await client.chunk(*FIRST), await slow

    again, _ = asyncio.run(play())
    assert_refused(again, 400, "stale_request")
    assert rows(world) == NO_ROWS


def kill_in_the_first_chunk(root: Path) -> tuple[Path, Client]:
    """A server ends when the series is there and its first bytes are not; its folder."""
    for steps in range(1, 40):
        folder = root / str(steps)
        folder.mkdir()
        world = QuickWorld(folder, limits=LIMITS)
        client = Client(world, DATA)

        async def play(world: World = world, client: Client = client, steps: int = steps) -> None:
            make_mortal(world, Life(steps, after=True))
            with suppress(Dead):
                await client.chunk(*FIRST)

        asyncio.run(play())
        begun = rows(world)
        world.close()
        gc.collect()  # the kernel closes what the process had open
        if begun["series"]:
            return folder, client
    raise AssertionError("no step left a series")


def test_who_joins_too_late_hears_that_its_signature_is_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two send the last chunk under one new signature; both have found the series when one completes it."""
    client = Client(world, DATA)
    asyncio.run(client.chunk(*FIRST))
    world.clock.time += 1
    fields, join, other = world.sign(), world.database.join_series, list[Answer]()

    async def late(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(world.database, "join_series", join)
        other.append(await client.chunk(*LAST, fields=fields))
        return await join(*arguments, **more)

    monkeypatch.setattr(world.database, "join_series", late)
    assert_refused(asyncio.run(client.chunk(*LAST, fields=fields)), 400, "signature_used")
    assert [answer.status for answer in other] == [200]


@pytest.mark.parametrize("begins", ["a series of chunks", "an upload by tus", "a signature in a series"])
def test_a_reuse_that_the_database_finds_is_in_the_audit(world: World, begins: str) -> None:
    """An upload completes after the request has looked its signature up, and before the series has it."""
    fields, joins = world.sign(), begins == "a signature in a series"
    chunks, resumable = Client(world, DATA, fields=fields), tus.Client(world, DATA, fields=fields)
    held = Held(world.database, "join_series" if joins else "create_series")

    async def play() -> Answer:
        if joins:
            await chunks.chunk(*FIRST, fields=world.sign())
        world.swap(database=held)
        request = resumable.create() if begins == "an upload by tus" else chunks.chunk(*(LAST if joins else FIRST))
        refused = asyncio.create_task(request)
        await held.reached.wait()
        assert await outcome(world, uploads.form(fields)) == "ok"
        held.release.set()
        return await refused

    refused = asyncio.run(play())
    assert (refused.status, refused.headers["x-cld-error-code"]) == (400, "signature_used")
    assert world.sql("SELECT count(*) FROM audit WHERE event = 'refused' AND code = 'signature_used'") == 1
    assert rows(world)["series"] == joins
