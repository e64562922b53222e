"""What callers are told when commits wait for a standby that never comes."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from tests.adapters.database.postgres.patience import in_time, wait_at_most
from tests.adapters.database.postgres.test_outcomes import SECONDS, mortal, own, patient
from tests.contract.databases import attempt, draft, grant, run
from tests.postgres import Postgres
from uponce.adapters.database.postgres import PostgresDatabase

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


def first_that_waits(database: PostgresDatabase) -> tuple[str, str, float]:
    """The first upload that is not simply committed: its blob, what it was told, and after how long."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        began, blob = time.monotonic(), f"blob-{next(_NUMBERS)}"
        told = run(attempt(database, grant(blob), draft(blob, blob=blob)))
        if told != "ok":
            return blob, told, time.monotonic() - began
    raise AssertionError("every upload was acknowledged")


def read_back(database: PostgresDatabase, blob: str) -> bool:
    """Found once the server that held it has ended its wait."""
    wait_at_most(database, 60)
    until = time.monotonic() + 60
    while run(database.find_commit(blob)) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("patient", ["", "%20-cclient_min_messages%3Derror"], indirect=True)
def test_a_cancelled_wait_for_a_standby_is_no_success(own: Postgres, patient: PostgresDatabase) -> None:
    """PostgreSQL answers such a COMMIT with success and a warning; a failover could forget it."""
    cancel = WAITING.replace("pid", "pg_cancel_backend(pid)")
    enough = Event()
    cancelled: list[object] = []

    def cancel_all(admin: psycopg.Connection[Any]) -> None:
        while not enough.wait(0.01):
            cancelled.extend(admin.execute(cancel).fetchall())

    with waiting_for_a_standby(own) as admin:
        canceller = Thread(target=cancel_all, args=(admin,))
        canceller.start()
        try:
            blob, told, _ = first_that_waits(patient)
        finally:
            enough.set()
            canceller.join()
    assert told == "outcome_unknown"
    assert cancelled
    assert read_back(patient, blob)


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
