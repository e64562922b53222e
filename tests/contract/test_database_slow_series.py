"""Series in any Database that are slow or empty: which of them end, to make room for new ones."""

from dataclasses import replace

from tests.contract.databases import KEY, OTHER, START, Backend, grant, run
from tests.contract.test_database_series import DAY, A, B, C, begin, complete, series
from uponce.app.ports import Database
from uponce.core.series import StoredPart
from uponce.core.spans import Span


def test_series_without_bytes_end_sooner(backend: Backend, database: Database) -> None:
    async def play() -> None:
        for name, own in (("empty", A), ("noted", B), ("recorded", C)):
            await begin(database, series(name, upload_id=name), own)
        await database.note_arrival("noted", 1)
        await database.record_span("recorded", Span(0, 10), 20)
        backend.clock.time = START + 300
        assert list(await database.end_old_series(DAY, 300)) == []
        backend.clock.time += 1
        assert list(await database.end_old_series(DAY, 300)) == ["blob-empty"]
        assert await database.series_blobs() == {"blob-noted", "blob-recorded"}
        backend.clock.time = START + DAY
        assert list(await database.end_old_series(DAY, 300)) == []
        backend.clock.time += 1
        assert sorted(await database.end_old_series(DAY, 300)) == ["blob-noted", "blob-recorded"]

    run(play())


def test_what_arrived_is_counted_and_is_no_less_than_what_is_recorded(database: Database) -> None:
    async def play() -> None:
        assert (await begin(database, series())).arrived == 0
        assert (await database.record_span("one", Span(0, 10), 100)).arrived == 10
        await database.note_arrival("one", 25)
        assert (await database.record_span("one", Span(10, 20), 100)).arrived == 35
        assert (await database.record_span("one", Span(20, 60), 100)).arrived == 60
        found = await database.find_series("one")
        assert found is not None
        assert found.arrived == 60
        await database.note_arrival("nobody", 1)

    run(play())


async def crowded(backend: Backend, database: Database) -> None:
    """Three series of KEY, 20 seconds old or new, and one of OTHER."""
    await database.add_key(OTHER)
    for name, at, size in (("quick", START, 9000), ("slow", START, 1000), ("new", START + 15, 600)):
        await begin(database, series(name, upload_id=name, at=at), grant(name))
        await database.note_arrival(name, size)
    foreign = replace(series("foreign", upload_id="foreign"), api_key=OTHER.api_key)
    await begin(database, foreign, grant("foreign", key=OTHER))
    backend.clock.time = START + 20


async def end_slowest(database: Database, per_key: int = 3, in_all: int = 9, rate: int = 100) -> list[str]:
    return list(await database.end_slowest_series(KEY.api_key, per_key=per_key, in_all=in_all, rate=rate, seconds=10))


def test_the_slowest_series_of_a_key_makes_room(backend: Backend, database: Database) -> None:
    """By the rate over its whole life: a new one counts as ten seconds old."""

    async def play() -> None:
        await crowded(backend, database)
        assert await end_slowest(database, per_key=4) == []
        assert await end_slowest(database) == ["blob-slow"]
        assert await end_slowest(database) == []
        assert await end_slowest(database, per_key=2) == ["blob-new"]
        assert await end_slowest(database, per_key=1) == []  # it keeps the rate
        assert await end_slowest(database, per_key=1, rate=451) == ["blob-quick"]
        assert await database.series_blobs() == {"blob-foreign"}
        await begin(database, series("again", upload_id="again"), grant("slow"))

    run(play())


def test_where_there_are_too_many_in_all_the_slowest_of_any_key_ends(backend: Backend, database: Database) -> None:
    async def play() -> None:
        await crowded(backend, database)
        assert await end_slowest(database, per_key=4, in_all=4) == ["blob-foreign"]
        assert await end_slowest(database, per_key=4, in_all=4) == []

    run(play())


def test_bytes_that_are_not_recorded_keep_no_series(backend: Backend, database: Database) -> None:
    """As many as the file has arrived, with a wrong checksum: it would have kept its place for a day."""

    async def play() -> None:
        begun = replace(series("wrong", upload_id="wrong"), total=10)
        await begin(database, begun, grant("wrong"))
        await database.note_arrival("wrong", 10)
        backend.clock.time += 1000
        assert await end_slowest(database, per_key=1) == ["blob-wrong"]

    run(play())


def test_a_series_that_has_arrived_never_makes_room(backend: Backend, database: Database) -> None:
    async def play() -> None:
        await complete(database, A)
        backend.clock.time += 1000
        assert await end_slowest(database, per_key=1) == []

    run(play())


async def slowest_complete(database: Database, per_key: int = 3, in_all: int = 9, most: int = 9) -> list[str]:
    found = await database.slowest_complete_series(
        KEY.api_key, per_key=per_key, in_all=in_all, older_than=40, shared_older_than=2000, most=most
    )
    return [series.id for series in found]


def test_complete_series_are_listed_in_order_of_their_rate_if_there_are_too_many(
    backend: Backend, database: Database
) -> None:
    """Those that were begun a moment ago are not listed: another server may be completing one."""

    async def play() -> None:
        await crowded(backend, database)
        for name, size in (("slow", 1000), ("quick", 9000)):
            await database.record_span(name, Span(0, size), size)
        await database.record_span("new", Span(0, 599), 600)
        await database.record_span("foreign", Span(0, 5000), 5000)
        backend.clock.time = START + 40
        assert await slowest_complete(database) == []
        backend.clock.time += 1
        assert await slowest_complete(database, per_key=4) == []
        assert await slowest_complete(database) == ["slow", "quick"]
        assert await slowest_complete(database, most=1) == ["slow"]
        assert await slowest_complete(database, per_key=4, in_all=4) == ["slow", "foreign", "quick"]
        await database.record_span("new", Span(599, 600), 600)
        backend.clock.time = START + 1000
        assert await slowest_complete(database) == ["new", "slow", "quick"]
        found = await database.slowest_complete_series(
            KEY.api_key, per_key=1, in_all=9, older_than=40, shared_older_than=2000, most=1
        )
        assert list(found) == [await database.find_series("new")]

        backend.clock.time = START
        shared = replace(series("shared", upload_id="shared"), total=10, shared=True)
        await begin(database, shared, grant("shared"))
        await database.record_span("shared", Span(0, 10), 10, [StoredPart(Span(0, 10), "part", "0" * 64)])
        backend.clock.time = START + 2000
        assert "shared" not in await slowest_complete(database)
        backend.clock.time += 1
        assert "shared" in await slowest_complete(database)

    run(play())
