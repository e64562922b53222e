"""Commits of complete series that any Database must refuse, because of what happened while their bytes came."""

import pytest

from tests.contract.databases import CALLER, KEY, draft, grant, relay, run
from tests.contract.test_database_series import complete
from uponce.app.ports import Database
from uponce.core.errors import BlobCondemned, UnknownApiKey
from uponce.core.series import Series

A, B = grant("a"), grant("b")
PUBLISHED = draft(blob="published")  # in a bucket, a series is published under a key that no row names


async def check_nothing_happened(database: Database, whole: Series) -> None:
    """No grant is spent or pending, nothing is stored, and the series goes on."""
    assert [await database.find_grant(held.key) for held in (A, B)] == [None, None]
    assert await database.find_asset(PUBLISHED.name) is None
    assert await database.find_series(whole.id) == whole


def test_a_condemned_blob_is_not_committed(database: Database) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        assert list(await database.condemn([PUBLISHED.blob_key])) == [PUBLISHED.blob_key]
        with pytest.raises(BlobCondemned, match="signature is not spent"):
            await database.commit_series(whole.id, PUBLISHED, CALLER)
        await check_nothing_happened(database, whole)

    run(play())


def test_a_key_that_was_revoked_meanwhile_commits_nothing(database: Database) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        await database.revoke_key(KEY.api_key)
        with pytest.raises(UnknownApiKey):
            await database.commit_series(whole.id, PUBLISHED, CALLER)
        await check_nothing_happened(database, whole)

    run(play())


def test_a_key_that_was_revoked_meanwhile_passes_nothing_on(database: Database) -> None:
    async def play() -> None:
        whole = await complete(database, A, B)
        await database.revoke_key(KEY.api_key)
        passed_on = relay(A, B, series=whole.id)
        with pytest.raises(UnknownApiKey):
            await database.begin_relay(passed_on, 60)
        assert await database.find_relay(passed_on.id) is None
        await check_nothing_happened(database, whole)

    run(play())
