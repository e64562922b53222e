"""A server's parts: what fails in one of them neither stops the others nor keeps them open."""

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.app.uploads import pass_time
from tests.scrape import Scraped
from tests.upstreams import StubUpstream, Trouble
from uponce import wiring
from uponce.adapters.database import outbox
from uponce.adapters.database.steps import Steps, operation
from uponce.app.manage_keys import set_up
from uponce.app.outbox import Work
from uponce.app.owner import claim_storage
from uponce.app.ports import NewEffect, StoredBlob
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.config import Settings, load
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, SettingRefused, StorageFull
from uponce.core.policy import Limits
from uponce.core.signature import utc
from uponce.lifespan import lifespan
from uponce.wiring import Backend, blob_store, build, build_metrics

SETTINGS = Settings(sweep_seconds=0, decoders=1, metrics_token="token")


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    settings = replace(SETTINGS, data=str(tmp_path / "data"))
    return build(settings, build_metrics(settings))


def failures(backend: Backend, work: str) -> float:
    metrics: Any = backend.services.metrics
    return Scraped(metrics.text().decode()).value("uponce_background_failures_total", work=work)


async def cancelled() -> None:
    """As a future that a driver cancels on its own."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def away() -> None:
    raise DatabaseUnavailable("The database is away.", detail="connection refused")


@pytest.mark.parametrize(("work", "name"), [("purge", "purge"), ("sweep_blobs", "sweep")])
@pytest.mark.parametrize(
    "fail",
    [
        lambda: asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0),
        lambda: asyncio.wait_for(asyncio.sleep(9), 0),
        cancelled,
        away,
    ],
    ids=["ZeroDivisionError", "TimeoutError", "CancelledError", "DatabaseUnavailable"],
)
def test_housekeeping_outlives_every_failure(
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fail: Callable[[], Any],
    work: str,
    name: str,
) -> None:
    """Each failure is in the log, the first one with its trace, and in the metrics; the next round tries again."""
    rounds: list[int] = []

    async def serve() -> None:
        done = asyncio.Event()

        async def try_it(*_: Any, **__: Any) -> None:
            rounds.append(len(rounds))
            if len(rounds) <= 2:
                await fail()
            done.set()

        monkeypatch.setattr(f"uponce.lifespan.{work}", try_it)
        async with lifespan(backend)(None):
            await asyncio.wait_for(done.wait(), 60)

    with caplog.at_level(logging.ERROR, "uponce"):
        asyncio.run(serve())
    logged = [record for record in caplog.records if record.message.startswith(f"the {name}")]
    assert [bool(record.exc_info) for record in logged] == [True, False]
    assert failures(backend, name) == 2


def test_the_ledger_is_purged_however_long_the_store_takes_to_list(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger on PostgreSQL needs a new partition every half-hour, and old series and spooled files take room."""
    rounds: Counter[str] = Counter()
    listing, enough = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[StoredBlob]:
        listing.set()
        await asyncio.Event().wait()
        yield StoredBlob("0" * 32, 0, 0)

    def count(name: str) -> None:
        real = getattr(backend.database, name)

        async def call(*args: Any) -> Any:
            rounds[name] += 1
            if min(rounds["purge"], rounds["end_old_series"]) == 3:
                enough.set()
            return await real(*args)

        monkeypatch.setattr(backend.database, name, call)

    async def serve() -> None:
        async with lifespan(backend)(None):
            await claim_storage(backend.database, backend.blobs)
            monkeypatch.setattr(backend.blobs, "listings", lambda _: [endless()])
            await asyncio.wait_for(listing.wait(), 60)
            count("purge")
            count("end_old_series")
            await asyncio.wait_for(enough.wait(), 60)

    asyncio.run(serve())


@operation(writes=True)
def leave(now: float, name: str, subject: str) -> Steps[None]:
    yield [outbox.adding(NewEffect(name, subject), subject, now)]


def test_receivers_that_answer_nothing_delay_no_look_up_of_a_relay(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = asyncio.Event()

    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    async def look_up(*_: Any) -> None:
        looked_up.set()

    async def serve() -> None:
        works = {"notify": Work(hang), "relay": Work(look_up)}
        async with lifespan(dataclasses.replace(backend, works=works))(None):
            database: Any = backend.database
            for number in range(100):
                await database.write(leave("notify", str(number)))
            await asyncio.sleep(0.1)
            await database.write(leave("relay", "pending"))
            await asyncio.wait_for(looked_up.wait(), 60)

    monkeypatch.setattr("uponce.lifespan._OFTEN_SECONDS", 0.01)
    asyncio.run(serve())


def test_every_part_is_closed_though_others_fail(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def closing(name: str) -> None:
        closed.append(name)
        raise RuntimeError(name)

    async def close_decoders() -> None:
        await end_decoders()
        closing("decoders")

    def close_database() -> None:
        end_database()
        closing("database")

    end_decoders, end_database = backend.decoders.close, backend.database.close
    monkeypatch.setattr(backend.decoders, "close", close_decoders)
    monkeypatch.setattr(backend.blobs, "close", lambda: closing("blobs"))
    monkeypatch.setattr(backend.database, "close", close_database)

    async def serve() -> None:
        async with lifespan(backend)(None):
            pass

    with pytest.raises(RuntimeError):
        asyncio.run(serve())
    assert closed == ["decoders", "database", "blobs"]  # the database's writer appends to packs


def test_a_stop_waits_for_the_commit_of_a_cancelled_request(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client may have given up, but the bytes are stored."""
    monkeypatch.setattr("uponce.lifespan._ENDING_SECONDS", 60)
    keys: list[int] = []

    async def commit() -> None:
        await asyncio.sleep(0.2)
        keys.append(len(await backend.services.database.list_keys()))

    async def serve() -> None:
        async with lifespan(backend)(None):
            await cancelled_request(commit())

    asyncio.run(serve())
    assert keys == [0]


def test_a_stop_does_not_wait_for_ever(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uponce.lifespan._ENDING_SECONDS", 0.05)

    async def serve() -> None:
        async with lifespan(backend)(None):
            await cancelled_request(asyncio.sleep(600))

    asyncio.run(asyncio.wait_for(serve(), 60))


async def cancelled_request(work: Coroutine[Any, Any, None]) -> None:
    """Cancel a request while its work, which a cancellation does not break, is under way."""
    request = asyncio.ensure_future(unbroken(work))
    await asyncio.sleep(0)
    request.cancel()


def test_a_relay_waits_for_an_answer_as_long_as_its_setting_says(tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=str(tmp_path / "data"), limits=Limits(relay_answer=3600))
    client = build(settings, build_metrics(settings)).upstream

    async def ask() -> None:
        async with StubUpstream() as stub:
            stub.uploads = iter([Trouble.HANGS])
            asking = asyncio.ensure_future(client.post(stub.upstream, "raw/destroy", {"public_id": "cat"}))
            while not stub.requests:
                await asyncio.sleep(0.01)
            pass_time(3000)
            await asyncio.wait([asking], timeout=0.1)
            assert not asking.done()
            pass_time(700)
            with pytest.raises(OutcomeUnknown):
                await asyncio.wait_for(asking, 60)
        await client.close()

    asyncio.run(ask())


def test_a_server_does_not_start_without_the_secret_key_of_its_database(backend: Backend) -> None:
    """Also where another program than `uponce serve` starts it."""

    async def serve() -> None:
        async with lifespan(backend)(None):
            pass

    with wiring.opened(backend.settings, create=True) as first:
        asyncio.run(set_up(first.services, "demo"))
    wiring.secret_key_path(backend.settings).unlink()
    with pytest.raises(SettingRefused, match="is missing"):
        asyncio.run(serve())


@pytest.mark.parametrize("room", [True, False])
def test_a_server_notes_its_settings_for_commands_in_other_shells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """With a full disk it starts too: it still delivers."""
    server = build(
        replace(SETTINGS, data=str(tmp_path), audit_days=7, notification_days=2, cloud="cats", limits=Limits(skew=60))
    )
    if not room:
        full = StorageFull("Send it again later.", detail="[Errno 28] No space left on device")
        monkeypatch.setattr(server.database, "note_settings", lambda _: failing(full))

    async def serve() -> Mapping[str, str]:
        async with lifespan(server)(None):
            return await server.database.noted_settings()

    expected = {"skew": "60", "audit_days": "7", "notification_days": "2", "cloud": "cats"}
    expected |= {"grace_seconds": "7200", "series_seconds": "86400", "empty_series_seconds": "300"}
    expected["max_upload_seconds"] = "3600"
    assert asyncio.run(serve()) == (expected if room else {})


@pytest.mark.parametrize("room", [True, False])
def test_a_server_widens_the_last_fence_to_its_skew_or_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: bool
) -> None:
    """A restored copy may have noted a smaller skew. With a full disk, the server would accept what was used before."""
    settings = replace(SETTINGS, data=str(tmp_path), limits=Limits(skew=900))
    restored = build(settings)
    restored.database.open()
    mark = asyncio.run(_fenced(restored.services))
    restored.database.close()
    server = build(settings)
    if not room:
        monkeypatch.setattr(server.database, "widen_fence", lambda _: failing(StorageFull("Send it again later.")))

    async def serve() -> list[int | None]:
        async with lifespan(server)(None):
            return [key.watermark for key in await server.database.list_keys()]

    with nullcontext() if room else pytest.raises(StorageFull):
        assert asyncio.run(serve()) == [mark + 600] * 2
    assert (f"signatures with a timestamp up to {utc(mark + 600)}, since UPONCE_SKEW=900" in caplog.text) is room


async def _fenced(services: Services) -> int:
    """A restore in a shell whose skew is less."""
    await set_up(services, "media")
    return await services.database.fence(300)


async def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("name", "url"),
    [
        *(
            ("storage", url)
            for url in (
                "https://AKIAX:hidden@minio.example/bucket",
                "s3://AKIAX:hidden@bucket/x",
                "s3://hidden@bucket/x",
                "s3://AKIAX:hid/hidden@bucket/x",
                "s3//AKIAX:hidden@bucket/x",
                "AKIAX:hidden@bucket/x",
            )
        ),
        *(
            ("database", url)
            for url in (
                "mysql://u:hidden@h/d",
                "host=h password=hidden:hidden",
                "postgresql//u:hidden:hidden@h/d",
                "sqlite://u:hidden@x",
            )
        ),
    ],
)
def test_no_refusal_of_a_url_shows_its_secret(tmp_path: Path, name: str, url: str) -> None:
    """Neither that of the settings, nor that of the database or storage to which a command moves."""

    with pytest.raises(SettingRefused, match=f"UPONCE_{name.upper()}") as of_settings:
        build(load({f"UPONCE_{name.upper()}": url}))
    with pytest.raises(SettingRefused, match=f"UPONCE_{name.upper()}") as of_command:
        build(replace(SETTINGS, data=str(tmp_path), **{name: url}))
    assert "hidden" not in of_settings.value.message + of_command.value.message


@pytest.mark.parametrize("name", ["site#1", "site?1", "site;1", "site%201", "site 1"])
def test_media_are_in_their_data_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    """Also if a URL with this name would end earlier: two sites would share their media."""
    data = tmp_path / name
    with closing(blob_store(replace(SETTINGS, data=str(data)))) as blobs:
        blobs.open_store()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (data / "media" / "blobs").is_dir()
