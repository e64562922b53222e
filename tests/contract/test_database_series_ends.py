"""The end of a complete series in any Database: what happened while its bytes came decides about its commit."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    OTHER,
    START,
    Backend,
    Opened,
    attempt,
    draft,
    grant,
    publish,
    relay,
    run,
)
from tests.contract.test_database_series import begin, complete, series
from uponce.adapters.database.steps import Rules, Steps, operation
from uponce.app.ports import Database
from uponce.core.errors import BlobCondemned, UnknownApiKey
from uponce.core.relaying import Relay
from uponce.core.series import Series

A, B = grant("a"), grant("b")
PUBLISHED = draft(blob="published")  # in a bucket, a series is published under a key that no row names


async def check_nothing_happened(database: Database, whole: Series) -> None:
    """No grant is spent or pending, nothing is stored, and the series goes on."""
    assert [await database.find_grant(held.key) for held in (A, B)] == [None, None]
    assert await database.find_asset(PUBLISHED.asset.name) is None
    assert await database.find_series(whole.id) == whole


def test_a_condemned_blob_is_not_committed(database: Database) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        assert list(await database.condemn([PUBLISHED.asset.blob_key])) == [PUBLISHED.asset.blob_key]
        with pytest.raises(BlobCondemned, match="signature is not spent"):
            await database.commit_series(whole.id, PUBLISHED, CALLER)
        await check_nothing_happened(database, whole)

    run(play())


@operation(rules=Rules.OWN)
def revoke_alone(now: float, api_key: str) -> Steps[None]:
    """As a release did that left the series of the key."""
    yield [("revoke_key", {"api_key": api_key, "now": int(now)})]


def test_a_key_that_was_revoked_meanwhile_commits_nothing(database: Opened) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        await database.write(revoke_alone(KEY.api_key))
        with pytest.raises(UnknownApiKey):
            await database.commit_series(whole.id, PUBLISHED, CALLER)
        await check_nothing_happened(database, whole)

    run(play())


def test_a_key_that_was_revoked_meanwhile_passes_nothing_on(database: Opened) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        await database.write(revoke_alone(KEY.api_key))
        passed_on = relay(A, B, series=whole.id)
        with pytest.raises(UnknownApiKey):
            await database.begin_relay(passed_on, 60)
        assert await database.find_relay(passed_on.id) is None
        await check_nothing_happened(database, whole)

    run(play())


@pytest.mark.parametrize(("overlap", "is_ended"), [(0, True), (60, False), (None, True)])
def test_a_secret_that_ends_at_once_ends_the_series_of_its_key(
    database: Database, overlap: int | None, is_ended: bool
) -> None:
    """Series of other keys go on."""

    async def play() -> None:
        await database.add_key(OTHER)
        whole = await complete(database, A, B)
        other = await begin(database, replace(series("other"), api_key=OTHER.api_key), grant("other", key=OTHER))
        if overlap is None:
            await database.revoke_key(KEY.api_key)
        else:
            await database.rotate_key(KEY.api_key, "newer", overlap)
        assert (await database.find_series(whole.id) is None) == is_ended
        assert await database.find_series(other.id) == other

    run(play())


def test_a_repeated_rotation_ends_no_series_of_the_new_secret(database: Database) -> None:
    async def play() -> None:
        await database.rotate_key(KEY.api_key, "newer", 0, KEY.secrets[0])
        whole = await complete(database, A, B)
        key = await database.rotate_key(KEY.api_key, "newer", 0, KEY.secrets[0])
        assert key is not None and key.secrets == ("newer",)
        assert await database.find_series(whole.id) == whole

    run(play())


def test_an_asset_that_is_overwritten_leaves_its_blob(database: Database) -> None:
    async def play() -> None:
        old = (await publish(database, "old")).asset
        whole = await complete(database, A, B)
        committed = await database.commit_series(whole.id, PUBLISHED, CALLER)
        assert (committed.overwritten, committed.unneeded_blob) == (True, old.blob_key)
        assert (committed.asset.asset_id, committed.asset.created_at) == (old.asset_id, old.created_at)
        assert await database.find_asset(PUBLISHED.asset.name) == committed.asset

    run(play())


def test_an_asset_that_is_kept_is_answered_with_the_bytes_that_arrived(database: Database) -> None:
    """Clients of tus resume by that number, also after the reply to the last part was lost."""

    async def play() -> None:
        old = (await publish(database, "old")).asset
        whole = await complete(database, A)
        digest = replace(PUBLISHED.asset.digest, size=old.digest.size + 7)
        kept = replace(draft(blob="published", overwrite=False, digest=digest), idempotency_key="the address")
        committed = await database.commit_series(whole.id, kept, CALLER)
        reply = await database.find_reply(A.key, "the address")
        assert reply is not None
        assert reply.answer == committed
        assert (committed.asset, committed.existing, committed.received) == (old, True, digest.size)

    run(play())


def test_all_grants_of_a_series_are_passed_on_whichever_completes_it(database: Database) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        begun = await database.begin_relay(relay(B, series=whole.id), 60)
        assert isinstance(begun, Relay)
        assert set(begun.grants) == {A, B}
        for each in (A, B):
            record = await database.find_grant(each.key)
            assert record is not None
            assert record.pending == 1

    run(play())


def test_a_purge_of_newer_grants_stops_no_relay_of_a_series(backend: Backend, database: Database) -> None:
    """The watermark that they raise says nothing of a grant whose row a purge spares."""

    async def play() -> None:
        whole = await complete(database, A, B)
        newer = grant("newer", at=START + 50, window=1)
        assert await attempt(database, newer, draft("newer", blob="newer")) == "ok"
        backend.clock.time = newer.keep_until + 1
        assert await database.purge(10**6) == 1
        assert isinstance(await database.begin_relay(relay(A, B, series=whole.id), 60), Relay)

    run(play())


@operation(writes=True)
def end_in_one_step(_: float, statement: str, names: Sequence[str]) -> Steps[list[int]]:
    ended = yield [(statement, {"series_id": name}) for name in names]
    return list(map(len, ended))


@pytest.mark.parametrize("statement", ["end_series", "end_empty_series"])
def test_series_that_end_in_one_step_each_have_their_row(database: Opened, statement: str) -> None:
    """PostgreSQL runs one statement for both, and finds the row of each by the parameters of its call."""

    async def play() -> None:
        await begin(database, series("one"), A)
        await begin(database, series("two", upload_id="two"), B)
        assert await database.write(end_in_one_step(statement, ["one", "missing", "two"])) == [1, 0, 1]

    run(play())
