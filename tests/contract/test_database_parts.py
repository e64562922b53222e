"""Shared series in any Database: in which objects their bytes lie."""

import asyncio
from contextlib import nullcontext
from dataclasses import replace

import pytest

from tests.contract.databases import CALLER, START, Backend, draft, grant, run
from tests.contract.test_database_series import DAY, A, begin, series
from uponce.adapters.database import series as operations
from uponce.app.ports import Database
from uponce.core.errors import ChunkInProgress, SignatureInUse
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span

ALL = Span(0, 10**6)


def part(start: int, end: int, name: str = "") -> StoredPart:
    return StoredPart(Span(start, end), name or f"object-{start}", "0" * 64)


async def begin_shared(database: Database) -> Series:
    return await begin(database, replace(series(), shared=True))


async def parts_of(database: Database, span: Span = ALL, limit: int = 99) -> list[StoredPart]:
    return list(await database.series_parts("one", span, limit))


def test_parts_come_back_in_order(database: Database) -> None:
    async def play() -> None:
        assert await begin_shared(database) == replace(series(), shared=True, grant=A)
        for start in (40, 0, 20):
            recorded = await database.record_span("one", Span(start, start + 20), 60, [part(start, start + 20)])
        assert (recorded.spans, recorded.complete) == ((Span(0, 60),), True)
        every = [part(0, 20), part(20, 40), part(40, 60)]
        assert await parts_of(database) == every
        assert await parts_of(database, limit=2) == every[:2]
        for span, found in (
            (Span(0, 1), every[:1]),
            (Span(19, 21), every[:2]),
            (Span(20, 40), every[1:2]),
            (Span(39, 60), every[1:]),
            (Span(60, 70), []),
        ):
            assert await parts_of(database, span) == found
        assert await database.series_parts("nobody", ALL, 99) == []

    run(play())


def test_a_span_may_bring_what_is_missing_of_it(database: Database) -> None:
    async def play() -> None:
        await begin_shared(database)
        await database.record_span("one", Span(10, 20), None, [part(10, 20)])
        around = [part(0, 10), part(20, 30)]
        assert (await database.record_span("one", Span(0, 30), None, around)).spans == (Span(0, 30),)
        assert (await database.record_span("one", Span(5, 25), None)).spans == (Span(0, 30),)
        assert [each.span.start for each in await parts_of(database)] == [0, 10, 20]
        known = await database.find_series("one")
        assert known is not None
        assert known.parts == 3

    run(play())


@pytest.mark.parametrize("parts", [[], [part(0, 10)], [part(0, 20)], [part(10, 15)], [part(10, 20), part(20, 30)]])
def test_parts_that_are_not_just_the_missing_bytes_are_refused(database: Database, parts: list[StoredPart]) -> None:
    """Another request has recorded some of them since the sender looked: nothing is noted, not even the total."""

    async def play() -> None:
        await begin_shared(database)
        before = await database.record_span("one", Span(0, 10), None, [part(0, 10, "first")])
        with pytest.raises(ChunkInProgress):
            await database.record_span("one", Span(0, 20), 99, parts)
        assert await database.find_series("one") == before
        assert await parts_of(database) == [part(0, 10, "first")]

    run(play())


def test_of_two_that_record_the_same_bytes_one_does(backend: Backend, database: Database) -> None:
    async def play() -> None:
        servers = [database, backend.server()]
        await begin_shared(database)

        async def record(number: int) -> bool:
            start = number // 4 * 10
            mine = [part(start, start + 10, f"{number}")]
            try:
                await servers[number % 2].record_span("one", Span(start, start + 10), None, mine)
            except ChunkInProgress:
                return False
            return True

        won = await asyncio.gather(*(record(number) for number in range(40)))
        assert [sum(won[start : start + 4]) for start in range(0, 40, 4)] == [1] * 10
        assert [each.name for each in await parts_of(database)] == [str(n) for n, is_mine in enumerate(won) if is_mine]

    run(play())


def test_old_series_end_a_few_at_a_time_and_a_large_one_alone(
    backend: Backend, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call deletes few parts and signatures. Else it could outlast a time limit."""
    monkeypatch.setattr(operations, "_ENDED_ROWS", 10)

    async def play() -> None:
        for number, count in enumerate((20, 4, 4, 4, 0)):
            new = replace(series(f"{number}", upload_id=None, at=START + number), shared=True)
            await begin(database, new, grant(f"{number}"))
            for start in range(count):
                await database.record_span(new.id, Span(start, start + 1), None, [part(start, start + 1, new.id)])
        backend.clock.time = START + DAY + 10
        ended = [sorted(await database.end_old_series(DAY, DAY)) for _ in range(4)]
        assert ended == [["blob-0"], ["blob-1", "blob-2"], ["blob-3", "blob-4"], []]

    run(play())


@pytest.mark.parametrize("how", ["committed", "ended", "too old", "fenced"])
def test_parts_end_with_their_series(backend: Backend, database: Database, how: str) -> None:
    async def play() -> None:
        await begin_shared(database)
        await database.record_span("one", Span(0, 10), 10, [part(0, 10)])
        match how:
            case "committed":
                await database.commit_series("one", draft(blob="another"), CALLER)
            case "ended":
                await database.end_series("one")
            case "too old":
                backend.clock.time += DAY
                assert list(await database.end_old_series(DAY - 1, DAY)) == ["blob-one"]
            case "fenced":
                await database.fence(0)
        assert await parts_of(database) == []

    run(play())


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "of one server"])
@pytest.mark.parametrize("total", [10, 11, None])
def test_a_complete_shared_series_holds_no_use_after_its_time(
    database: Database, shared: bool, total: int | None
) -> None:
    """Another server may be completing it, so it stays, and another series may begin beside it."""

    async def play() -> None:
        begun = replace(series(), shared=shared)
        await database.create_series(begun, per_key=9, in_all=9)
        parts = [part(0, 10)] if shared else []
        await database.record_span(begun.id, Span(0, 10), total, parts)
        again = replace(begun, id="two", upload_id="two", blob_key="two")
        with pytest.raises(SignatureInUse):
            await database.create_series(again, per_key=9, in_all=9, complete_before=begun.created_at)
        with nullcontext() if shared and total == 10 else pytest.raises(SignatureInUse):
            await database.create_series(again, per_key=9, in_all=9, complete_before=begun.created_at + 1)
            await database.record_span(again.id, Span(0, 10), total, parts)
            third = replace(begun, id="three", upload_id="three", blob_key="three")
            with pytest.raises(SignatureInUse):  # or one signature could begin any number
                await database.create_series(third, per_key=9, in_all=9, complete_before=begun.created_at + 1)

    run(play())
