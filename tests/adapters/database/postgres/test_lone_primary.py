"""What callers receive when commits wait for a standby that never comes."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from tests.adapters.database.postgres.patience import in_time, wait_at_most
from tests.adapters.database.postgres.test_outcomes import SECONDS, mortal, own, patient
from tests.contract.databases import CALLER, KEY, attempt, draft, grant, run
from tests.postgres import Postgres
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.app.ports import Draft
from uponce.app.uploading.pipeline import read_back_upload
from uponce.core.errors import OutcomeUnknown

__all__ = ["mortal", "own", "patient"]  # the fixtures of the neighbour

pytestmark = pytest.mark.proof

_NUMBERS = itertools.count()
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@contextmanager
def waiting_for_a_standby(own: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """Commits wait for a standby that never comes. A reload takes effect when its processes get round to it."""
    with psycopg.connect(own.url(), autocommit=True) as admin:
        admin.execute("SET synchronous_commit = local")
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            yield admin
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")


@contextmanager
def ending_each_wait(admin: psycopg.Connection[Any], by: str) -> Iterator[list[object]]:
    """End each wait of a commit by this function of PostgreSQL. Give the ends."""
    end = WAITING.replace("pid", f"{by}(pid)")
    enough, ends = Event(), list[object]()

    def end_all() -> None:
        while not enough.wait(0.01):
            ends.extend(admin.execute(end).fetchall())

    ending = Thread(target=end_all)
    ending.start()
    try:
        yield ends
    finally:
        enough.set()
        ending.join()


def drafted(blob: str) -> Draft:
    return replace(draft(blob, blob=blob), idempotency_key=blob)


def first_that_waits(database: PostgresDatabase) -> tuple[str, str, float]:
    """Return the first upload that is not simply committed: its blob, its answer, and after how many seconds."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        began, blob = time.monotonic(), f"blob-{next(_NUMBERS)}"
        told = run(attempt(database, grant(blob), drafted(blob)))
        if told != "ok":
            return blob, told, time.monotonic() - began
    raise AssertionError("every upload was acknowledged")


def read_back(database: PostgresDatabase, blob: str) -> bool:
    """Found once the server that held it has ended its wait."""
    wait_at_most(database, 60)
    return becomes(True, lambda: run(database.find_commit(blob)) is not None)


def becomes(wanted: object, found: Callable[[], object]) -> bool:
    """Whether it is found in time. A reload of PostgreSQL's settings takes a while."""
    until = time.monotonic() + 60
    while found() != wanted:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("patient", ["", "%20-cclient_min_messages%3Derror"], indirect=True)
def test_a_cancelled_wait_for_a_standby_is_no_success(own: Postgres, patient: PostgresDatabase) -> None:
    """PostgreSQL answers such a COMMIT with success and a warning; a failover could forget it."""
    with waiting_for_a_standby(own) as admin, ending_each_wait(admin, "pg_cancel_backend") as cancelled:
        blob, told, _ = first_that_waits(patient)
    assert told == "outcome_unknown"
    assert cancelled
    assert read_back(patient, blob)


def test_the_operator_reads_why_such_a_commit_is_unknown(own: Postgres, patient: PostgresDatabase) -> None:
    reasons = list[str]()

    def reason() -> bool:
        blob = f"blob-{next(_NUMBERS)}"
        try:
            run(patient.commit(grant(blob), drafted(blob), CALLER))
        except OutcomeUnknown as unknown:
            reasons.append(unknown.for_operator)
        return bool(reasons)

    with waiting_for_a_standby(own) as admin, ending_each_wait(admin, "pg_cancel_backend"):
        assert becomes(True, reason)
    assert "canceling wait for synchronous replication" in reasons[0]


@pytest.mark.parametrize("by", ["pg_cancel_backend", "pg_terminate_backend"])
@pytest.mark.parametrize("repeatable", [True, False])
def test_reading_back_waits_for_the_standby_too(
    own: Postgres, patient: PostgresDatabase, by: str, repeatable: bool
) -> None:
    """The row of such a commit is visible, and a failover could still forget it."""
    services: Any = SimpleNamespace(database=patient)

    def told_to_the_client(blob: str) -> str:
        made = drafted(blob) if repeatable else draft(blob, blob=blob)
        try:
            return run(read_back_upload(services, grant(blob), made, OutcomeUnknown("unknown"))).asset.blob_key
        except OutcomeUnknown:
            return "unknown"

    with waiting_for_a_standby(own) as admin, ending_each_wait(admin, by):
        blob, told, _ = first_that_waits(patient)
        assert told == "outcome_unknown"
        assert read_back(patient, blob)
        assert told_to_the_client(blob) == "unknown"
        assert run(attempt(patient, grant(blob), drafted(blob))) == "outcome_unknown"  # its client repeats it
        with pytest.raises(OutcomeUnknown):
            run(patient.confirm_grant(grant(blob).key))
    assert becomes(blob, lambda: told_to_the_client(blob))
    assert run(attempt(patient, grant(blob), drafted(blob))) == "ok"
    assert run(patient.confirm_grant(grant(blob).key)) == run(patient.find_grant(grant(blob).key))


@pytest.mark.parametrize("revoked", ["a signature", "a key"])
def test_a_revocation_that_is_repeated_waits_for_the_standby_too(
    own: Postgres, patient: PostgresDatabase, revoked: str
) -> None:
    """The repeat changes nothing, and a failover could still forget the first one."""
    run(patient.add_key(replace(KEY, api_key="222")))

    def revoke() -> str:
        try:
            run(patient.revoke_key("222") if revoked == "a key" else patient.revoke_grant(grant("a"), CALLER))
        except OutcomeUnknown:
            return "unknown"
        return "revoked"

    with waiting_for_a_standby(own) as admin, ending_each_wait(admin, "pg_cancel_backend"):
        assert becomes("unknown", revoke)
        assert revoke() == "unknown"
    assert becomes("revoked", revoke)


def test_without_its_standby_a_commit_is_unknown_in_time(own: Postgres, mortal: PostgresDatabase) -> None:
    """A machine that stalls may keep an upload from its commit: that one is never found, and the next one is tried."""
    unknown, refused = list[str](), list[str]()

    def given_up() -> float:
        with waiting_for_a_standby(own) as admin:
            for _ in range(20):
                blob, told, took = first_that_waits(mortal)
                if told == "database_unavailable":
                    refused.append(blob)
                elif admin.execute(WAITING).fetchall():
                    break
        assert told == "outcome_unknown"
        unknown.append(blob)
        return took

    assert in_time(10 * SECONDS, given_up)
    assert all(read_back(mortal, blob) for blob in unknown)
    assert [run(mortal.find_commit(blob)) for blob in refused] == [None] * len(refused)


def test_commits_that_were_given_up_leave_no_connections_behind(own: Postgres, mortal: PostgresDatabase) -> None:
    """They would use up all connections of PostgreSQL, also those that the operator needs to end the wait."""
    with waiting_for_a_standby(own) as admin:
        assert becomes(True, lambda: first_that_waits(mortal)[1] == "outcome_unknown")
        for _ in range(3):
            first_that_waits(mortal)
        assert becomes([], lambda: admin.execute(WAITING).fetchall())
