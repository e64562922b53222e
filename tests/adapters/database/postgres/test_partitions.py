"""The ledger's partitions: made ahead, dropped whole, and never a way for a spent grant to come back."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.contract.databases import CALLER, KEY, OTHER, START, PlainBox, SteppedClock, attempt, draft, grant, run
from tests.contract.test_database_series import begin, series
from tests.postgres import shared
from uponce.adapters.database import ledger
from uponce.adapters.database.postgres import _SLACK_SECONDS, PostgresDatabase, schema
from uponce.adapters.database.postgres.schema import SPAN
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.statements import load
from uponce.adapters.database.steps import Operation, Rules, run_in_step
from uponce.config import load as load_settings
from uponce.core.errors import DatabaseUnavailable, GrantRefused, SettingRefused, SignatureUsed
from uponce.core.signature import dated, utc
from uponce.core.values import Grant

pytestmark = pytest.mark.proof

KEPT = grant().keep_until - START


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def database(clock: SteppedClock) -> Iterator[PostgresDatabase]:
    """As in production: rows wait for their partition."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=clock, seconds=60)
    database.open()
    run(database.add_key(KEY))
    run(database.add_key(OTHER))
    run(database.purge(10**6))
    yield database
    database.close()


def partitions(database: PostgresDatabase) -> dict[str, int]:
    """Rows by partition."""
    with psycopg.connect(database._address.url) as connection:
        names = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'grants'::regclass"
        )
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # type: ignore[index]
            for (name,) in names.fetchall()
        }


def spend(database: PostgresDatabase, subject: Grant) -> str:
    return run(attempt(database, subject, draft(blob=subject.key.hex())))


def test_a_purge_makes_the_partitions_to_come(database: PostgresDatabase, clock: SteppedClock) -> None:
    expected = {"grants_other": 0} | {f"grants_{START + number * SPAN}": 0 for number in range(12)}
    assert partitions(database) == expected
    clock.time += SPAN
    run(database.purge(10**6))
    later = {**expected, f"grants_{START + 12 * SPAN}": 0}
    del later[f"grants_{START}"]
    assert partitions(database) == later


def test_a_grant_is_one_row_whatever_partition_it_is_in(database: PostgresDatabase) -> None:
    for at in (START - 1, START, START + SPAN - 1, START + SPAN, START + 12 * SPAN):
        assert spend(database, grant(at=at)) == "ok"
        wider = grant(at=at, window=10**6)
        assert run(attempt(database, wider, draft(blob=f"again-{at}"))) == "signature_used"
    assert [partitions(database)[name] for name in ("grants_other", f"grants_{START}")] == [2, 2]


def test_a_partition_goes_whole_when_its_last_row_is_over(database: PostgresDatabase, clock: SteppedClock) -> None:
    first, last = grant("first"), grant("last", at=START + SPAN - 1)
    foreign = grant("foreign", at=START + 7, key=OTHER)
    for subject in (first, last, foreign):
        assert spend(database, subject) == "ok"
    clock.time = last.keep_until
    assert run(database.purge(10**6)) == 0
    clock.time += 1
    assert run(database.purge(10**6)) == 3
    assert f"grants_{START}" not in partitions(database)
    assert [key.watermark for key in run(database.list_keys())] == [START + SPAN - 1, START + 7]
    for subject in (first, last, foreign):
        assert run(attempt(database, subject, draft(blob=f"x{subject.key.hex()}"))) == "stale_request"


def test_one_long_lived_row_keeps_its_partition_but_not_the_others(
    database: PostgresDatabase, clock: SteppedClock
) -> None:
    """Those go row by row, after a while."""
    long, short = grant("long", window=10**6), grant("short")
    for subject in (long, short):
        assert spend(database, subject) == "ok"
    clock.time = START + KEPT + 2700
    assert run(database.purge(10**6)) == 0
    clock.time += 1
    assert run(database.purge(10**6)) == 1
    assert partitions(database)[f"grants_{START}"] == 1
    assert run(attempt(database, long, draft(blob="again"))) in ("signature_used", "stale_request")


def check_a_series_keeps_its_grant(database: PostgresDatabase, clock: SteppedClock) -> None:
    """Its partition stays with it, though newer ones go, until the series has ended."""
    held, newer = grant("held"), grant("newer", at=START + SPAN)
    run(begin(database, series(), held))
    for subject in (held, newer):
        assert spend(database, subject) == "ok"
    clock.time = newer.keep_until + 1
    assert run(database.purge(10**6)) == 1
    with pytest.raises(SignatureUsed):
        run(database.commit_series("one", draft("dog", blob="blob-one"), CALLER))
    assert run(database.end_series("one"))
    assert run(database.purge(10**6)) == 1
    assert run(database.find_grant(held.key)) is None


def test_a_partition_stays_while_a_series_holds_a_grant_in_it(database: PostgresDatabase, clock: SteppedClock) -> None:
    check_a_series_keeps_its_grant(database, clock)


@pytest.mark.parametrize("then", ["committed", "spent elsewhere", "revoked"])
def test_a_grant_without_a_row_keeps_no_partition_and_works_once(
    database: PostgresDatabase, clock: SteppedClock, then: str
) -> None:
    """An unfinished upload holds it. Its row is made later, and is forgotten when its time is over."""
    held, newer = grant("held"), grant("newer", at=START + 1)
    run(begin(database, series(), held))
    assert spend(database, newer) == "ok"
    clock.time = newer.keep_until + 1
    assert run(database.purge(10**6)) == 1
    assert f"grants_{START}" not in partitions(database)
    assert run(database.has_joined_series("one", held.key))
    if then == "revoked":
        assert run(database.revoke_grant(held, CALLER)).revoked_at is not None
    elif then == "spent elsewhere":  # by an upload that began before its key had this watermark
        with psycopg.connect(database._address.url) as connection:
            connection.execute("UPDATE api_keys SET watermark = NULL")
        assert spend(database, held) == "ok"
    assert run(database.purge(10**6)) == 0
    if then == "committed":
        run(database.commit_series("one", draft("dog", blob="blob-one"), CALLER))
    else:
        with pytest.raises(GrantRefused):
            run(database.commit_series("one", draft("dog", blob="blob-one"), CALLER))
        assert run(database.end_series("one"))
    assert spend(database, held) in ("signature_used", "signature_revoked", "stale_request")
    clock.time += 10 * KEPT
    assert run(database.purge(10**6)) == 1
    assert spend(database, held) == "stale_request"


def test_the_check_goes_red_when_partitions_go_by_time_alone(
    database: PostgresDatabase, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load("postgres")["keeps_grants"]
    by_time_alone = replace(whole, text=whole.text.split("UNION ALL")[0])
    monkeypatch.setitem(load("postgres"), "keeps_grants", by_time_alone)
    with pytest.raises(AssertionError, match="assert 2 == 1"):
        check_a_series_keeps_its_grant(database, clock)


def test_where_the_default_part_has_rows_no_partition_is_made(
    database: PostgresDatabase, clock: SteppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    far = grant("far", at=START + 13 * SPAN)
    assert spend(database, far) == "ok"
    clock.time += 3 * SPAN
    run(database.purge(10**6))
    assert f"grants_{START + 13 * SPAN}" not in partitions(database)
    assert f"grants_{START + 14 * SPAN}" in partitions(database)
    assert [record.args for record in caplog.records if "no partition for" in record.msg] == [(utc(far.timestamp),)]
    assert run(attempt(database, replace(far), draft(blob="again"))) == "signature_used"


def test_purges_at_once_do_not_disturb_one_another(
    database: PostgresDatabase, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if one of them stalls in the middle of its reads."""
    monkeypatch.setattr(schema, "_LOCK", [("wait_briefly", {"milliseconds": 60_000}), ("lock_grants", {})])

    async def both() -> list[int]:
        return await asyncio.gather(*(database.purge(10**6) for _ in range(4)))

    assert spend(database, grant()) == "ok"
    clock.time += 10 * KEPT
    assert sorted(run(both())) == [0, 0, 0, 1]


def test_a_long_reader_holds_up_neither_uploads_nor_the_purge(database: PostgresDatabase, clock: SteppedClock) -> None:
    """A dump reads the ledger for hours; a part that cannot be dropped then is dropped later."""
    assert spend(database, grant()) == "ok"
    clock.time += KEPT + SPAN
    with psycopg.connect(database._address.url) as dump:
        dump.execute("SELECT count(*) FROM grants")

        async def both() -> list[int | str]:
            fresh = grant("fresh", at=int(clock.time))
            return list(await asyncio.gather(database.purge(10**6), attempt(database, fresh, draft(blob="fresh"))))

        assert run(both()) == [0, "ok"]
    assert run(database.purge(10**6)) == 1


def test_a_long_reader_lets_a_purge_try_few_partitions(
    database: PostgresDatabase, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads wait for each try. A purge tried all of them: ten to make and ten to drop."""
    run(database.purge(10**6))
    clock.time += 4 * 3600
    tries, write = list[Operation[Any]](), database.write

    async def counted(operation: Operation[Any]) -> Any:
        tries.append(operation)
        return await write(operation)

    with psycopg.connect(database._address.url) as reader:
        reader.execute("SELECT count(*) FROM grants")
        monkeypatch.setattr(database, "write", counted)
        run(database._make_parts())
        run(database._drop_parts())
    assert len(tries) == 3


def test_a_reader_that_never_ends_is_told_before_the_partitions_end(
    database: PostgresDatabase, clock: SteppedClock
) -> None:
    """As a session that is idle in a transaction. Without a word, all rows would come into the default partition."""
    with psycopg.connect(database._address.url) as idle:
        idle.execute("SELECT count(*) FROM grants")
        clock.time += 3 * 3600
        run(database.purge(10**6))
        clock.time += 2 * 3600
        with pytest.raises(DatabaseUnavailable) as failure:
            run(database.purge(10**6))
        assert "pg_stat_activity" in failure.value.detail
    run(database.purge(10**6))


def test_purges_come_often_enough_for_rows_to_wait_for_their_partition() -> None:
    """With the rarest purges, rows go with their partition, and others before fsck counts them as damage."""
    pause = 600
    assert load_settings({"UPONCE_SWEEP_SECONDS": str(pause)}).sweep_seconds == pause
    with pytest.raises(SettingRefused, match="UPONCE_SWEEP_SECONDS"):
        load_settings({"UPONCE_SWEEP_SECONDS": str(pause + 1)})
    assert SPAN + pause <= _SLACK_SECONDS
    assert _SLACK_SECONDS + pause + 300 <= 3600  # a purge takes a while


def test_a_reader_of_a_past_part_does_not_hold_up_the_coming_ones(
    database: PostgresDatabase, clock: SteppedClock
) -> None:
    """It keeps its part alone, and a later purge drops that part."""
    assert spend(database, grant()) == "ok"
    clock.time += KEPT + SPAN
    with psycopg.connect(database._address.url) as reader:
        reader.execute(f"SELECT count(*) FROM grants_{START}".encode())
        assert run(database.purge(10**6)) == 0
    assert f"grants_{clock.time - clock.time % SPAN + 11 * SPAN:.0f}" in partitions(database)
    assert run(database.purge(10**6)) == 1


def test_partitions_that_cannot_be_made_keep_nothing_from_being_forgotten(
    database: PostgresDatabase, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL reads the whole default partition to make one, which may take longer than it may."""
    outside = grant("outside", at=START - SPAN)
    for subject in (outside, grant()):
        assert spend(database, subject) == "ok"
    clock.time += 10 * KEPT
    broken = replace(load("postgres")["make_grant_part"], text="SELECT 1 / 0")
    with monkeypatch.context() as patch:
        patch.setitem(load("postgres"), "make_grant_part", broken)
        with pytest.raises(DatabaseUnavailable) as failure:
            run(database.purge(10**6))
    assert "DivisionByZero" in failure.value.detail
    assert f"grants_{START}" not in partitions(database)
    assert [run(database.find_grant(subject.key)) for subject in (outside, grant())] == [None, None]


def test_no_partition_is_made_while_reading_the_default_one_would_take_long(
    database: PostgresDatabase, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads would wait for it. The operator learns what to do, and all else is purged."""
    assert spend(database, grant("outside", at=START - SPAN)) == "ok"
    clock.time += 10 * KEPT
    before = partitions(database)
    with monkeypatch.context() as patch:
        patch.setattr("uponce.adapters.database.postgres._READ_BYTES", 100)
        with pytest.raises(DatabaseUnavailable) as failure:
            run(database.purge(10**6))
    assert "grants_other has 8192 bytes" in failure.value.detail
    assert partitions(database) == {"grants_other": 0}
    assert len(before) == 13
    run(database.purge(10**6))
    assert len(partitions(database)) == 13


def test_dropping_a_part_writes_only_the_keys_whose_watermark_rises(
    database: PostgresDatabase, clock: SteppedClock
) -> None:
    """All uploads wait for it, and there may be many keys."""
    third = replace(KEY, api_key="999")
    run(database.add_key(third))
    for subject in (grant(), grant("of a fenced key", key=OTHER)):
        assert spend(database, subject) == "ok"

    def versions() -> dict[str, Any]:
        with psycopg.connect(database._address.url) as connection:
            return dict(connection.execute("SELECT api_key, xmin FROM api_keys").fetchall())

    with psycopg.connect(database._address.url) as connection:
        connection.execute("UPDATE api_keys SET watermark = %s WHERE api_key = %s", (START + SPAN, OTHER.api_key))
    before = versions()
    clock.time += 10 * KEPT
    assert run(database.purge(10**6)) == 2
    assert {name for name, version in versions().items() if version != before[name]} == {KEY.api_key}
    marks = {key.api_key: key.watermark for key in run(database.list_keys())}
    assert marks == {KEY.api_key: START, OTHER.api_key: START + SPAN, third.api_key: None}


def test_a_vacuum_of_another_part_is_not_in_the_way(database: PostgresDatabase, clock: SteppedClock) -> None:
    """It takes minutes on many rows, and does not yield its lock to a purge that waits so briefly."""
    newer = grant("newer", at=START + 3 * SPAN)
    for subject in (grant(), newer):
        assert spend(database, subject) == "ok"
    clock.time += KEPT + SPAN
    with psycopg.connect(database._address.url) as vacuum:
        vacuum.execute(f"LOCK TABLE grants_{newer.timestamp} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        assert run(database.purge(10**6)) == 1
    assert run(database.find_grant(newer.key)) is not None


@pytest.mark.parametrize(
    "find",
    [
        ledger.find,
        lambda key: ledger.find_reply(key, "key"),
        lambda key: ledger.find_reply(key, "key", also_revoked=True),
    ],
    ids=["grant", "reply", "reply of any"],
)
def test_a_group_locks_no_partition_that_it_does_not_need(
    database: PostgresDatabase, find: Callable[[bytes], Operation[Any]]
) -> None:
    """Else keys with a window of a week exhaust the locks of a server: each partition has several indexes."""

    def look(session: Session) -> int:
        connection = session.connection
        with connection.transaction():
            for number in range(12, 100):
                bounds = {"start": START + number * SPAN, "stop": START + (number + 1) * SPAN}
                connection.execute(session.statements["make_grant_part"].filled(bounds))
        keys = [dated(START + number * SPAN, bytes([number])) for number in (0, 0, 1)]
        with connection.pipeline():
            session.begin(Rules.SHARED, [])
            run_in_step(session, [find(key).begin(START) for key in keys])
            (held,) = connection.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()").fetchone() or ()
            session.run("roll_back")
        return int(held)

    assert run(database._pool.run(look)) < 100


def test_the_statements_of_a_group_find_grants_of_several_partitions(database: PostgresDatabase) -> None:
    """A key at each end of a partition, and one before all partitions."""
    times = (START - 1, START, START + SPAN - 1, START + SPAN, START + 50 * SPAN)
    subjects = [grant(f"{number}", at=at) for number, at in enumerate(times)]
    assert [spend(database, subject) for subject in subjects] == ["ok"] * len(subjects)

    def look(session: Session) -> list[Any]:
        with session.connection.pipeline():
            session.begin(Rules.SHARED, [])
            found = run_in_step(session, [ledger.find(subject.key).begin(START) for subject in subjects])
            session.run("roll_back")
        return found

    assert [found.uses for found in run(database._pool.run(look))] == [1] * len(subjects)


def test_partitions_are_made_and_dropped_where_the_server_quotes_every_name(clock: SteppedClock) -> None:
    url = f"{shared().fresh_schema()}%20-cquote_all_identifiers%3Don"
    database = PostgresDatabase(url, secrets=PlainBox(), clock=clock, seconds=60)
    database.open()
    run(database.add_key(KEY))
    assert [run(database.purge(10**6)) for _ in range(2)] == [0, 0]
    assert spend(database, grant()) == "ok"
    assert partitions(database)[f'"grants_{START}"'] == 1
    clock.time = START + KEPT + 2701
    assert run(database.purge(10**6)) == 1
    assert f'"grants_{START}"' not in partitions(database)
    database.close()
