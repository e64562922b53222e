"""Series in any Database: what is frozen, recorded, spent together, forgotten."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.databases import CALLER, KEY, OTHER, START, Backend, attempt, draft, grant, run, unlimited
from uponce.adapters.database import series as operations
from uponce.app.ports import Committed, Database, Rule
from uponce.core.errors import (
    ChunkConflict,
    SeriesGone,
    SignatureInUse,
    SignatureRevoked,
    SignatureUsed,
    StaleRequest,
    TooManySeries,
    TooManySignatures,
    UnknownApiKey,
    UponceError,
)
from uponce.core.series import Series
from uponce.core.spans import Span
from uponce.core.values import Algorithm, Grant, ResourceType

A, B, C = grant("a"), grant("b", at=START + 1), grant("c", at=START + 2)
DAY = 86400


def series(name: str = "one", *, upload_id: str | None = "id", at: int = START) -> Series:
    return Series(
        id=name,
        cloud="demo",
        api_key=KEY.api_key,
        grant=A,
        upload_id=upload_id,
        requested=ResourceType.VIDEO,
        parameters=(("context", "größe=1"), ("folder", "cats")),
        algorithm=Algorithm.SHA256,
        filename="Übung.mp4",
        blob_key=f"blob-{name}",
        created_at=at,
    )


async def begin(database: Database, new: Series, first: Grant = A, *, per_key: int = 9, in_all: int = 9) -> Series:
    return await database.create_series(replace(new, grant=first), per_key=per_key, in_all=in_all)


async def join(database: Database, series_id: str, grant: Grant, *, most: int = 9) -> Series:
    return await database.join_series(series_id, grant, most=most)


async def complete(database: Database, *grants: Grant) -> Series:
    """A series of ten bytes that are all there, with these grants."""
    begun = await begin(database, series(), grants[0])
    for further in grants[1:]:
        await join(database, begun.id, further)
    return await database.record_span(begun.id, Span(0, 10), 10)


def test_a_series_comes_back_as_it_was_begun(database: Database) -> None:
    async def play() -> None:
        begun = await begin(database, series())
        assert begun == series()
        assert await database.find_series("one") == begun
        assert await database.find_named_series("demo", KEY.api_key, "id") == begun
        assert await database.find_named_series("other", KEY.api_key, "id") is None
        assert await database.series_blobs() == {"blob-one"}
        assert list(await database.find_series_of(A.key)) == [begun]
        assert list(await database.find_series_of(B.key)) == []
        anonymous = [replace(series(name, upload_id=None), requested=None, filename=None) for name in "xy"]
        for new, own in zip(anonymous, (B, C), strict=True):
            assert await begin(database, new, own) == replace(new, grant=own)

    run(play())


def test_of_two_beginnings_with_one_name_the_first_counts(backend: Backend, database: Database) -> None:
    async def play() -> list[Series]:
        servers = [database, backend.server()]
        return await asyncio.gather(*(begin(servers[n % 2], series(f"s{n}")) for n in range(8)))

    assert len({found.id for found in run(play())}) == 1


def test_spans_are_merged_and_the_total_is_kept(database: Database) -> None:
    async def play() -> None:
        await begin(database, series())
        await database.record_span("one", Span(20, 30), None)
        await database.record_span("one", Span(0, 10), None)
        both = await database.record_span("one", Span(10, 20), 40)
        assert (both.spans, both.total) == ((Span(0, 30),), 40)
        for span, total in ((Span(30, 41), None), (Span(30, 40), 41)):
            with pytest.raises(ChunkConflict):
                await database.record_span("one", span, total)
        assert await database.find_series("one") == both

    run(play())


def test_ranges_that_are_recorded_at_once_all_count(backend: Backend, database: Database) -> None:
    async def play() -> None:
        servers = [database, backend.server()]
        await begin(database, series())
        spans = [Span(n * 10, n * 10 + 10) for n in range(40)]
        seen = await asyncio.gather(
            *(servers[n % 2].record_span("one", span, 400) for n, span in enumerate(reversed(spans)))
        )
        assert sum(found.complete for found in seen) == 1

    run(play())


async def check_all_are_spent(database: Database) -> None:
    """The commit spends every grant, none before, and ends the series."""
    done = await complete(database, A, B, C)
    assert [await database.find_grant(used.key) for used in (A, B, C)] == [None] * 3
    committed = await database.commit_series(done.id, draft(blob="blob-one"), CALLER)
    for used in (A, B, C):
        record = await database.find_grant(used.key)
        assert record is not None and record.uses == 1
        (line,) = await database.history(used.key, 10)
        assert line.asset_id == committed.asset.asset_id
        assert await attempt(database, used, draft(blob=f"again-{used.timestamp}")) == "signature_used"
    assert await database.find_series(done.id) is None
    assert await database.series_blobs() == frozenset()
    with pytest.raises(SeriesGone, match=r"complete or was ended.*begin with a new signature"):
        await database.commit_series(done.id, draft(blob="blob-two"), CALLER)


def test_the_commit_spends_every_grant_and_ends_the_series(database: Database) -> None:
    run(check_all_are_spent(database))


def test_the_check_goes_red_when_only_the_last_one_is_spent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be if the chunk that completes a series were the only one whose signature counts."""
    monkeypatch.setattr(operations, "_grants_of", lambda rows, real=operations._grants_of: real(rows[-1:]))
    with pytest.raises(AssertionError, match=r"^assert \(None is not None\)"):
        run(check_all_are_spent(database))


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("how", ["used", "revoked"])
def test_when_one_grant_is_gone_none_is_spent(database: Database, which: int, how: str) -> None:
    async def play() -> None:
        grants = (A, B, C)
        done = await complete(database, *grants)
        if how == "used":
            assert await attempt(database, grants[which], draft(blob="elsewhere")) == "ok"
        else:
            await database.revoke_grant(grants[which], CALLER)
        await database.condemn(["swept"])
        for blob in ("blob-one", "swept"):  # a final refusal comes before one that asks for the file again
            with pytest.raises(SignatureUsed if how == "used" else SignatureRevoked, match=f"0{which} .*one of 3"):
                await database.commit_series(done.id, draft("dog", blob=blob), CALLER)
            assert await database.find_commit(blob) is None
        assert await database.find_series(done.id) == done
        assert [await database.find_grant(other.key) for other in grants if other is not grants[which]] == [None, None]

    run(play())


def test_a_series_and_a_plain_upload_race_for_one_grant(backend: Backend, database: Database) -> None:
    """Exactly one of them has it, whichever."""

    async def one(number: int) -> list[str]:
        own = grant(f"race-{number}")
        new = series(f"s{number}", upload_id=str(number))
        servers = [database, other]
        await begin(database, new, own, in_all=99, per_key=99)
        await database.record_span(new.id, Span(0, 1), 1)

        async def finish() -> str:
            try:
                await other.commit_series(new.id, draft(f"s{number}", blob=new.blob_key), CALLER)
            except UponceError as error:
                return error.code
            return "ok"

        plain = attempt(servers[number % 2], own, draft(f"p{number}", blob=f"plain-{number}"))
        return sorted(await asyncio.gather(finish(), plain))

    async def play() -> list[list[str]]:
        return await asyncio.gather(*(one(number) for number in range(20)))

    other = backend.server()
    assert run(play()) == [["ok", "signature_used"]] * 20


def test_what_became_of_a_series_is_told_for_an_hour(backend: Backend, database: Database) -> None:
    """Under the Idempotency-Key of its draft, also when its grant's own time was over before it was complete."""

    async def play() -> None:
        done = await complete(database, A)
        backend.clock.time = A.keep_until + 100
        keyed = replace(draft(blob="blob-one"), idempotency_key="address")
        committed = await database.commit_series(done.id, keyed, CALLER)
        for later, told in ((3000, True), (5000, False)):
            backend.clock.time = A.keep_until + 100 + later
            await database.purge(10**6)
            reply = await database.find_reply(A.key, "address")
            assert (reply is not None) is told
            assert reply is None or reply.answer == committed

    run(play())


def test_two_commits_of_one_series(backend: Backend, database: Database) -> None:
    async def play() -> list[object]:
        servers = [database, backend.server()]
        done = await complete(database, unlimited(A))
        commits = (servers[n % 2].commit_series(done.id, draft(blob="blob-one"), CALLER) for n in range(6))
        return await asyncio.gather(*commits, return_exceptions=True)

    answers = run(play())
    assert sum(isinstance(answer, Committed) for answer in answers) == 1
    assert sum(isinstance(answer, SeriesGone) for answer in answers) == 5


def test_a_grant_is_in_as_many_series_as_it_has_uses(database: Database) -> None:
    async def play() -> None:
        twice = replace(A, max_uses=2)
        for name in "xy":
            await begin(database, series(name, upload_id=name), twice)
        with pytest.raises(SignatureInUse):
            await begin(database, series("z", upload_id="z"), twice)
        await begin(database, series("z", upload_id="z"), B)
        with pytest.raises(SignatureInUse):
            await join(database, "z", twice)
        assert await database.end_series("x")
        for _ in range(2):
            assert (await join(database, "z", twice)).signatures == 2
            assert list(await database.series_grants("z")) == sorted([B, twice], key=lambda grant: grant.key)
        assert not await database.end_series("x")

    run(play())


def test_uses_that_are_gone_are_left_for_no_series(database: Database) -> None:
    async def play() -> None:
        thrice = replace(A, max_uses=3)
        assert await attempt(database, thrice, draft(blob="used")) == "ok"
        for name in "xy":
            await begin(database, series(name, upload_id=name), thrice)
        with pytest.raises(SignatureInUse, match="belongs to another upload") as caught:
            await begin(database, series("z", upload_id="z"), thrice)
        assert caught.value.retry_after == 60

    run(play())


def test_what_may_not_join(database: Database) -> None:
    async def play() -> None:
        await begin(database, series())
        assert await attempt(database, B, draft(blob="used")) == "ok"
        await database.revoke_grant(C, CALLER)
        for own, refusal in ((B, SignatureUsed), (C, SignatureRevoked)):
            with pytest.raises(refusal):
                await join(database, "one", own)
        with pytest.raises(UnknownApiKey):
            await join(database, "one", replace(grant("d"), api_key="unknown"))
        with pytest.raises(SeriesGone):
            await join(database, "nobody", grant("d"))

    run(play())


def test_limits(database: Database) -> None:
    async def play() -> None:
        await begin(database, series("x", upload_id="x"), A, per_key=1)
        with pytest.raises(TooManySeries, match="1 uploads with this API key"):
            await begin(database, series("y", upload_id="y"), B, per_key=1)
        await database.add_key(OTHER)
        of_another = replace(series("z", upload_id="z"), api_key=OTHER.api_key)
        assert (await begin(database, of_another, grant("z", key=OTHER), per_key=1)).id == "z"
        with pytest.raises(TooManySeries, match="2 uploads on this server") as caught:
            await begin(database, series("y", upload_id="y"), B, in_all=2)
        assert caught.value.retry_after
        assert (await begin(database, series("y", upload_id="x"), B, per_key=1)).id == "x"

    run(play())


def test_a_series_takes_no_more_signatures_than_the_limit(database: Database) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        with pytest.raises(TooManySignatures, match="has 2 signatures, and 2 are allowed"):
            await join(database, whole.id, C, most=2)
        for known in (A, B):
            assert await join(database, whole.id, known, most=2) == whole
        assert [await database.has_joined_series(whole.id, each.key) for each in (A, B, C)] == [True, True, False]
        assert await database.find_series(whole.id) == replace(whole, signatures=2)
        await database.commit_series(whole.id, draft(blob="blob-one"), CALLER)
        assert await database.find_grant(C.key) is None
        assert list(await database.series_grants(whole.id)) == []

    run(play())


def test_a_purge_spares_the_grants_of_series(backend: Backend, database: Database) -> None:
    """Its row goes when the series has ended, and the watermark rises then."""

    async def play() -> None:
        done = await complete(database, A)
        assert await attempt(database, A, draft(blob="elsewhere")) == "ok"
        backend.clock.time = A.keep_until + 1
        assert await database.purge(10**6) == 0
        with pytest.raises(SignatureUsed) as caught:
            await database.commit_series(done.id, draft("dog", blob="blob-one"), CALLER)
        assert "one of" not in caught.value.message, "it was sent with no other"
        await database.end_series(done.id)
        assert await database.purge(10**6) == 1
        with pytest.raises(StaleRequest):
            await begin(database, series(), A)

    run(play())


def test_a_purge_of_newer_grants_stops_no_series(backend: Backend, database: Database) -> None:
    """The watermark that they raise says nothing of a grant whose row a purge spares."""

    async def play() -> None:
        done = await complete(database, A)
        newer = grant("newer", at=START + 50, window=1)
        assert await attempt(database, newer, draft("newer", blob="newer")) == "ok"
        backend.clock.time = newer.keep_until + 1
        assert await database.purge(10**6) == 1
        assert not (await database.commit_series(done.id, draft(blob="blob-one"), CALLER)).existing
        assert await attempt(database, A, draft(blob="again")) == "stale_request"

    run(play())


def test_a_grant_that_is_spent_after_its_time_is_remembered_for_an_hour(backend: Backend, database: Database) -> None:
    """It is not overdue in that hour, whenever it was to be forgotten."""

    async def play() -> None:
        done = await complete(database, A)
        backend.clock.time = A.keep_until + DAY
        await database.commit_series(done.id, draft(blob="blob-one"), CALLER)
        assert await database.violations(Rule.PURGED, 10**6, 10) == []
        assert await attempt(database, A, draft(blob="again")) == "signature_used"
        for seconds, dropped in ((3600, 0), (1, 1)):
            backend.clock.time += seconds
            assert await database.purge(10**6) == dropped
        assert await attempt(database, A, draft(blob="again")) == "stale_request"

    run(play())


def test_old_series_end_and_young_ones_stay(backend: Backend, database: Database) -> None:
    async def play() -> None:
        await begin(database, series("old", upload_id="old"), A)
        await begin(database, series("young", upload_id="young", at=START + 10), B)
        backend.clock.time = START + DAY
        assert list(await database.end_old_series(DAY, DAY)) == []
        backend.clock.time = START + DAY + 5
        assert list(await database.end_old_series(DAY, DAY)) == ["blob-old"]
        assert list(await database.end_old_series(DAY, DAY)) == []
        assert await database.series_blobs() == {"blob-young"}
        await begin(database, series("again", upload_id="again"), A)

    run(play())


def test_a_blob_of_a_series_is_not_condemned(database: Database) -> None:
    async def play() -> None:
        await begin(database, series())
        assert list(await database.condemn(["blob-one", "blob-other"])) == ["blob-other"]
        await database.end_series("one")
        assert list(await database.condemn(["blob-one"])) == ["blob-one"]

    run(play())


def test_a_fence_ends_all_series(database: Database) -> None:
    async def play() -> None:
        done = await complete(database, A)
        await database.fence(0)
        with pytest.raises(SeriesGone):
            await database.commit_series(done.id, draft(blob="blob-one"), CALLER)
        with pytest.raises(StaleRequest):
            await begin(database, series(), A)

    run(play())


def test_only_an_empty_series_ends_if_it_has_to_be_empty(database: Database) -> None:
    async def play() -> None:
        await begin(database, series("empty", upload_id="empty"), B)
        done = await complete(database, A)
        assert [await database.end_series(name, if_empty=True) for name in ("empty", "empty", "one")] == [1, 0, 0]
        assert await database.find_series("one") == done
        assert await database.end_series("one")

    run(play())
