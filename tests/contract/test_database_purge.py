"""What any Database must do, run on every back end: forget old grants, and never that it forgot."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.databases import (
    BACKENDS,
    CALLER,
    KEY,
    OTHER,
    SKEW,
    START,
    WINDOW,
    Backend,
    attempt,
    draft,
    grant,
    publish,
    run,
)
from tests.contract.guarantees import (
    check_purge_forgets_nothing_usable,
    check_wider_window_revives_nothing,
    is_accepted,
)
from uponce.adapters.database import upkeep
from uponce.adapters.database.upkeep import BATCH
from uponce.app.ports import Database
from uponce.core.errors import (
    StaleRequest,
)


def test_a_purge_forgets_nothing_that_could_be_used(backend: Backend, database: Database) -> None:
    run(check_purge_forgets_nothing_usable(database, backend.clock))


def test_a_wider_window_revives_nothing_that_was_purged(backend: Backend, database: Database) -> None:
    run(check_wider_window_revives_nothing(database, backend.clock))


def test_a_purge_drops_what_is_over_and_raises_the_watermark_of_its_key(backend: Backend, database: Database) -> None:
    run(database.add_key(OTHER))
    for number in range(3):
        run(publish(database, f"n{number}"))
    run(database.commit(grant("later", at=START + 50), draft(blob="later"), CALLER))
    backend.clock.time = grant("n0").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 3
    assert run(database.find_grant(grant("n0").key)) is None
    assert run(database.find_grant(grant("later", at=START + 50).key)) is not None
    mine, other = run(database.find_key("111")), run(database.find_key("222"))
    assert mine is not None
    assert other is not None
    assert (mine.watermark, other.watermark) == (START, None)
    assert run(database.purge(audit_seconds=10**6)) == 0


def test_the_watermark_is_the_newest_timestamp_that_was_dropped(backend: Backend, database: Database) -> None:
    """Whatever the order in which rows are dropped: their keys are hashes, and windows may have differed."""
    for number, (at, window) in enumerate([(500, 100), (900, 1), (200, 900), (700, 10), (100, 50)]):
        shifted = grant(f"n{number}", at=START + at, window=window)
        run(database.commit(shifted, draft(blob=f"b{number}"), CALLER))
    backend.clock.time = START + 3 * WINDOW
    assert run(database.purge(audit_seconds=10**6)) == 5
    key = run(database.find_key("111"))
    assert key is not None
    assert key.watermark == START + 900


def test_a_later_use_under_a_wider_window_keeps_the_row_for_longer(database: Database) -> None:
    narrow, wide = grant("twice", max_uses=2), grant("twice", max_uses=2, window=10 * WINDOW)
    for number, subject in enumerate([narrow, wide]):
        run(database.commit(subject, draft(blob=f"b{number}"), CALLER))
        record = run(database.find_grant(narrow.key))
        assert record is not None
        assert record.grant.keep_until == subject.keep_until
    run(database.commit(grant("revoked", max_uses=2), draft(blob="b"), CALLER))
    revoked = run(database.revoke_grant(grant("revoked", max_uses=2, window=10 * WINDOW), CALLER))
    assert revoked.grant.keep_until == wide.keep_until


def test_neither_a_use_nor_a_revocation_under_a_narrower_window_shortens_it(database: Database) -> None:
    narrow, wide = grant("often", max_uses=3), grant("often", max_uses=3, window=10 * WINDOW)
    for number, subject in enumerate([wide, narrow]):
        run(database.commit(subject, draft(blob=f"b{number}"), CALLER))
        record = run(database.find_grant(wide.key))
        assert record is not None
        assert record.grant.keep_until == wide.keep_until
    assert run(database.revoke_grant(narrow, CALLER)).grant.keep_until == wide.keep_until


def test_a_row_is_kept_through_its_last_second(backend: Backend, database: Database) -> None:
    run(publish(database, "a"))
    for late, dropped in ((0, 0), (1, 1)):
        backend.clock.time = grant("a").keep_until + late
        assert run(database.purge(audit_seconds=10**6)) == dropped


def test_the_watermark_never_goes_down(backend: Backend, database: Database) -> None:
    run(database.commit(grant("new", at=START + 100, window=1), draft(blob="new"), CALLER))
    run(publish(database, "old"))
    backend.clock.time = grant("new", at=START + 100, window=1).keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 1
    backend.clock.time = grant("old").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 1
    key = run(database.find_key("111"))
    assert key is not None
    assert key.watermark == START + 100


def test_a_commit_at_or_before_the_watermark_is_stale(backend: Backend, database: Database) -> None:
    """A purge may run between an upload's check and its commit."""
    run(database.commit(grant("new", at=START + 100), draft(blob="new"), CALLER))
    backend.clock.time = grant("new", at=START + 100).keep_until + 1
    run(database.purge(audit_seconds=10**6))
    for at, told in ((START + 100, "stale_request"), (START + 101, "ok")):
        assert run(attempt(database, grant("slow", at=at), draft(blob=f"b{at}"))) == told
    with pytest.raises(StaleRequest, match="refuses all signatures up to that time"):
        run(publish(database, "slow"))


def test_a_purge_of_many_rows_reaches_them_all(backend: Backend, database: Database) -> None:
    many = 3 * BATCH + 1

    async def revoke_many() -> None:
        await asyncio.gather(*(database.revoke_grant(grant(f"n{n}"), CALLER) for n in range(many)))

    run(revoke_many())
    backend.clock.time = grant("a").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == many


def test_rows_that_are_too_many_for_a_purge_keep_it_from_none_of_its_steps(
    backend: Backend, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads may add rows as fast as a purge deletes them. The next purge goes on."""
    monkeypatch.setattr(upkeep, "MOST_SECONDS", 0)
    many = 2 * BATCH

    async def spend_and_revoke() -> None:
        await publish(database, "first")
        backend.clock.time += 1
        await asyncio.gather(*(database.revoke_grant(grant(f"n{n}"), CALLER) for n in range(many)))

    run(spend_and_revoke())
    backend.clock.time = grant("a").keep_until + 1
    assert run(database.purge(audit_seconds=1)) == BATCH
    assert run(database.history(grant("first").key, 10)) == []
    assert run(database.purge(audit_seconds=1)) + run(database.purge(audit_seconds=1)) == many + 1 - BATCH


STEPS = st.one_of(
    st.tuples(st.just("upload"), st.integers(-WINDOW, SKEW)),
    st.tuples(st.just("replay"), st.integers(0, 10)),
    st.tuples(st.just("advance"), st.integers(1, 3 * WINDOW)),
    st.tuples(st.just("step back"), st.integers(1, 3 * WINDOW)),
    st.tuples(st.just("purge"), st.just(0)),
    st.tuples(st.just("widen"), st.integers(1, 20 * WINDOW)),
)


@pytest.mark.parametrize(
    ("examples", "kind"),
    # A new data set of PostgreSQL costs as much as twenty of SQLite.
    [(60, "sqlite"), (12, "postgres"), *(pytest.param(100, each, marks=pytest.mark.proof) for each in BACKENDS)],
)
def test_whatever_happens_nothing_spent_is_accepted_again(tmp_path: Path, kind: str, examples: int) -> None:
    """Any order of uploads, replays, purges, clock steps both ways and window changes.

    And while the clock only goes forward and the window stays, nothing unspent and in time is refused.
    """

    @settings(max_examples=examples)
    @given(steps=st.lists(STEPS, min_size=4, max_size=25))
    def play(steps: list[tuple[str, int]]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            backend = BACKENDS[kind](Path(folder))
            try:
                run(_walk(backend, steps))
            finally:
                backend.stop()

    play()


async def _walk(backend: Backend, steps: list[tuple[str, int]]) -> None:
    database, clock, window = backend.server(), backend.clock, WINDOW
    await database.add_key(KEY)
    spent, ordinary = [grant("first")], True
    assert await is_accepted(database, spent[0], clock.now(), window, "first")
    for number, (step, value) in enumerate([*steps, ("replay", 0)]):
        if step == "upload":
            candidate = grant(f"n{number}", at=int(clock.time) + value, window=window)
            accepted = await is_accepted(database, candidate, clock.now(), window, f"blob-{number}")
            assert accepted or not ordinary
            spent += [candidate] * accepted
        elif step == "replay":
            for old in spent[value:]:
                assert not await is_accepted(database, old, clock.now(), window, f"replay-{number}-{old.key.hex()}")
        elif step == "purge":
            await database.purge(audit_seconds=10**6)
        elif step == "widen":
            window, ordinary = window + value, False
        elif step == "advance":
            clock.time += value
        else:
            clock.time, ordinary = clock.time - value, False
