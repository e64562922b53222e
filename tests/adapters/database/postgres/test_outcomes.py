"""What callers receive when PostgreSQL fails: a definite failure, or an unknown outcome; and how it heals."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest

from tests.adapters.database.postgres.patience import in_time, wait_at_most
from tests.contract.databases import CALLER, PlainBox, SteppedClock, attempt, draft, grant, open_postgres, prepared, run
from tests.contract.guarantees import answers_of, check_answers_are_true
from tests.contract.test_database_series import complete
from tests.postgres import Postgres, shared
from uponce.adapters.database.postgres import PostgresDatabase, pool
from uponce.adapters.database.postgres.connection import cut
from uponce.adapters.database.postgres.pool import MAX_GROUP, Engine
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Operation
from uponce.app.ports import Committed
from uponce.core.errors import ChunkConflict, DatabaseUnavailable, OutcomeUnknown, UponceError
from uponce.core.spans import Span
from uponce.core.values import GrantStatus

pytestmark = pytest.mark.proof

SECONDS = 1


@pytest.fixture
def database() -> Iterator[PostgresDatabase]:
    database = open_postgres(prepared(shared().fresh_schema()))
    yield database
    database.close()


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server that these tests may kill."""
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mortal(own: Postgres, request: pytest.FixtureRequest) -> Iterator[PostgresDatabase]:
    """For tests that wait for a timeout. Its parameter is what the URL has behind the schema."""
    with opened(own, SECONDS, getattr(request, "param", "")) as database:
        yield database


@pytest.fixture
def patient(own: Postgres, request: pytest.FixtureRequest) -> Iterator[PostgresDatabase]:
    """For tests that a PostgreSQL that has just started must not keep waiting too long. Its parameter is as above."""
    with opened(own, 60, getattr(request, "param", "")) as database:
        yield database


@contextmanager
def opened(own: Postgres, seconds: int, options: str = "") -> Iterator[PostgresDatabase]:
    url = prepared(own.fresh_schema() + options)
    database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    wait_at_most(database, seconds)
    yield database
    database.close()


commit = Session.commit


def lost_request(session: Session) -> None:
    """The connection dies before COMMIT arrives."""
    cut(session.connection)
    commit(session)


def lost_reply(session: Session) -> None:
    """The connection dies after COMMIT was done."""
    commit(session)
    raise psycopg.OperationalError("the reply was lost")


@pytest.mark.parametrize(("broken", "happened"), [(lost_request, False), (lost_reply, True)])
def test_a_commit_without_an_answer_is_unknown_and_can_be_read_back(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., object], happened: bool
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Session, "commit", broken)
        assert run(attempt(database, grant("a"), draft(blob="a"))) == "outcome_unknown"
    assert (run(database.find_commit("a")) is not None) == happened
    assert (run(database.find_grant(grant("a").key)) is not None) == happened
    assert run(attempt(database, grant("a"), draft(blob="b"))) == ("signature_used" if happened else "ok")


@pytest.mark.parametrize(("broken", "happened"), [(lost_request, False), (lost_reply, True)])
def test_a_series_whose_commit_has_no_answer_is_whole_or_untouched(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., object], happened: bool
) -> None:
    grants = [grant("a"), grant("b")]
    done = run(complete(database, *grants))
    with monkeypatch.context() as patched:
        patched.setattr(Session, "commit", broken)
        with pytest.raises(OutcomeUnknown):
            run(database.commit_series(done.id, draft(blob="blob-one"), CALLER))
    assert (run(database.find_commit("blob-one")) is not None) == happened
    assert [run(database.find_grant(subject.key)) is not None for subject in grants] == [happened] * 2
    assert run(database.find_series(done.id)) == (None if happened else done)


def test_a_series_that_the_database_cannot_hold_is_a_definite_failure(database: PostgresDatabase) -> None:
    """The statement fails together with COMMIT, which the server then leaves out."""
    done = run(complete(database, grant("a")))
    huge = draft(blob="blob-one", digest=replace(draft(blob="x").asset.digest, size=2**63))
    with pytest.raises(DatabaseUnavailable):
        run(database.commit_series(done.id, huge, CALLER))
    assert run(database.find_series(done.id)) == done


def test_a_refusal_costs_no_connection(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(complete(database, grant("a")))
    monkeypatch.setattr(pool, "connect", None)
    for _ in range(2 * database._pool._size):
        with pytest.raises(ChunkConflict):
            run(database.record_span(done.id, Span(0, 11), None))
    assert run(database.record_span(done.id, Span(0, 10), None)) == done


@pytest.mark.parametrize("broken", [lost_request, lost_reply])
def test_racers_around_a_failing_commit_never_hear_an_untruth(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., object]
) -> None:
    """The losers saw a spend in their batch. Until it is known to be durable, they must not return `signature_used`."""

    async def story() -> list[Committed | UponceError]:
        with monkeypatch.context() as patched:
            patched.setattr(Session, "commit", broken)
            return await answers_of(database, grant("contested"), 5)

    run(check_answers_are_true(database, run(story())))


def test_before_the_commit_a_dead_connection_is_a_definite_failure(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all = Engine._run_all

    def die(self: Engine, session: Session, *args: Any) -> object:
        decided = run_all(self, session, *args)
        cut(session.connection)
        session.moment()
        return decided

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_run_all", die)
        assert run(attempt(database, grant("a"), draft(blob="a"))) == "database_unavailable"
    assert run(database.find_commit("a")) is None
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"


def test_an_upload_that_the_database_cannot_hold_harms_no_other_of_its_batch(database: PostgresDatabase) -> None:
    """One fails in the server, one before it is sent."""
    huge = draft("huge", blob="huge", digest=replace(draft(blob="x").asset.digest, size=2**63))
    lone = draft("lone", blob="lone", original_filename="\ud800")
    good = [draft(f"good-{number}", blob=f"good-{number}") for number in range(4)]

    async def together() -> list[str]:
        drafts = [good[0], huge, good[1], lone, good[2], good[3]]
        return await asyncio.gather(*(attempt(database, grant(d.asset.name.public_id), d) for d in drafts))

    assert run(together()) == ["ok", "database_unavailable", "ok", "invalid_parameter", "ok", "ok"]
    for name in ("huge", "lone"):
        assert run(database.find_grant(grant(name).key)) is None


def test_all_that_waits_is_committed_together(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one goes alone; those that come while it runs share the next transactions."""
    sizes: list[int] = []
    all_wait = Event()
    transact = Engine.transact

    def counted(self: Engine, operations: Sequence[Operation[Any]], more: Any) -> object:
        all_wait.wait(60)
        sizes.append(len(operations))
        return transact(self, operations, more)

    monkeypatch.setattr(Engine, "transact", counted)

    async def many() -> list[str]:
        tasks = [
            asyncio.ensure_future(attempt(database, grant(f"{n}"), draft(f"{n}", blob=f"{n}")))
            for n in range(2 * MAX_GROUP + 1)
        ]
        await asyncio.sleep(0)
        all_wait.set()
        return await asyncio.gather(*tasks)

    assert set(run(many())) == {"ok"}
    assert sum(sizes) == 2 * MAX_GROUP + 1
    assert len(sizes) <= 4
    assert max(sizes) == MAX_GROUP


def test_one_batch_may_put_one_name_and_spend_one_grant_several_times(database: PostgresDatabase) -> None:
    twice = grant("twice", max_uses=2)

    async def together() -> list[str]:
        return await asyncio.gather(*(attempt(database, twice, draft(blob=f"b{n}")) for n in range(4)))

    assert sorted(run(together())) == ["ok", "ok", "signature_used", "signature_used"]
    record = run(database.find_grant(twice.key))
    assert record is not None
    assert (record.uses, record.status) == (2, GrantStatus.USED)


def test_a_cancelled_caller_does_not_disturb_its_batch(database: PostgresDatabase) -> None:
    async def story() -> list[str]:
        racers = [asyncio.ensure_future(attempt(database, grant(f"{n}"), draft(f"{n}", blob=f"{n}"))) for n in range(5)]
        await asyncio.sleep(0)
        racers[2].cancel()
        return [str(told) for told in await asyncio.gather(*racers, return_exceptions=True)]

    assert run(story()) == ["ok", "ok", "", "ok", "ok"]


def test_a_reader_that_is_cancelled_leaves_no_connection_behind(database: PostgresDatabase) -> None:
    def slow(session: Session) -> None:
        session.connection.execute("SELECT pg_sleep(30)")

    async def story() -> None:
        for _ in range(2 * database._pool._size):
            reader = asyncio.ensure_future(database._pool.run(slow))
            await asyncio.sleep(0.02)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        await database.ping()

    began = time.monotonic()
    run(story())
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("patient", ["%20-cclient_min_messages%3Dlog%20-clog_statement%3Dall"], indirect=True)
def test_a_commit_whose_statements_are_shown_to_the_client_is_known(patient: PostgresDatabase) -> None:
    assert run(attempt(patient, grant("a"), draft(blob="a"))) == "ok"


def test_a_killed_database_is_used_again_once_it_is_back(own: Postgres, patient: PostgresDatabase) -> None:
    assert run(attempt(patient, grant("a"), draft(blob="a"))) == "ok"
    own.kill()
    assert run(attempt(patient, grant("b"), draft("b", blob="b"))) == "database_unavailable"
    with pytest.raises(UponceError, match="database does not answer now"):
        run(patient.find_asset(draft(blob="x").asset.name))
    own.start()
    assert run(patient.find_commit("a")) is not None
    assert run(attempt(patient, grant("a"), draft(blob="a2"))) == "signature_used"
    assert run(attempt(patient, grant("b"), draft("b", blob="b"))) == "ok"


def test_connections_that_died_while_idle_cost_no_request(own: Postgres, patient: PostgresDatabase) -> None:
    run(patient.ping())
    own.kill()
    own.start()
    assert run(attempt(patient, grant("a"), draft(blob="a"))) == "ok"


def wait_for_answers(database: PostgresDatabase) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            return run(database.ping())
        except (DatabaseUnavailable, OutcomeUnknown):
            assert time.monotonic() < until


def test_a_silent_database_is_given_up_in_time(own: Postgres, mortal: PostgresDatabase) -> None:
    """Stopped, it still holds its connections open: nothing but our own deadline ends the wait."""
    failures = {"database_unavailable", "outcome_unknown"}

    def given_up() -> float:
        wait_for_answers(mortal)
        own.pause(True)
        began = time.monotonic()
        try:
            told = {run(attempt(mortal, grant("a"), draft(blob="a"))) for _ in range(2)}
            took = time.monotonic() - began
        finally:
            own.pause(False)
        assert told <= failures
        return took

    assert in_time(10 * SECONDS, given_up)
    until = time.monotonic() + 60
    while (told_now := run(attempt(mortal, grant("a"), draft(blob="a")))) in failures:
        assert time.monotonic() < until
    assert told_now in ("ok", "signature_used")


def test_a_lock_that_is_held_for_too_long_is_a_definite_failure(own: Postgres, mortal: PostgresDatabase) -> None:
    with psycopg.connect(mortal._address.url) as other:
        other.execute("LOCK TABLE grants IN ACCESS EXCLUSIVE MODE")
        assert run(attempt(mortal, grant("a"), draft(blob="a"))) == "database_unavailable"
    wait_at_most(mortal, 60)
    assert run(mortal.find_grant(grant("a").key)) is None
    assert run(attempt(mortal, grant("a"), draft(blob="a"))) == "ok"


def test_when_all_connections_are_busy_the_wait_is_bounded(
    mortal: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, done = Barrier(1 + mortal._pool._size, timeout=60), Event()
    wait_at_most(mortal, 60)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(mortal._pool._size):
                group.create_task(mortal._pool.run(lambda _: (begun.wait(), done.wait(60))))
            await asyncio.to_thread(begun.wait)
            monkeypatch.setattr(mortal._pool, "_address", replace(mortal._address, seconds=SECONDS))
            with pytest.raises(DatabaseUnavailable, match="too slow now"):
                await mortal.find_grant(grant("a").key)
            done.set()

    run(story())


def test_a_failure_in_the_committers_own_code_answers_its_batch(
    database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would: the uploads of that batch would wait for ever."""

    def broken(*_: Any) -> None:
        raise AssertionError

    async def live() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Engine, "transact", broken)
            with pytest.raises(OutcomeUnknown):
                await asyncio.wait_for(database.commit(grant(), draft(blob="a" * 32), CALLER), 60)
        await asyncio.wait_for(database.commit(grant(), draft(blob="b" * 32), CALLER), 60)

    run(live())
