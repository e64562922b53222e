"""PostgresDatabase: ledger, catalog, keys and audit in one PostgreSQL database, for any number of servers.

What a method returns or refuses is durable by then. One thread commits uploads, deletions, revocations and refusals in
groups. Other work runs in its own short transactions. The time is the database's.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import psycopg

from uponce.adapters.database.committer import Committer, Records
from uponce.adapters.database.database import Database
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.postgres import schema
from uponce.adapters.database.postgres.connection import (
    DatabaseAddress,
    connected,
    is_in_the_way,
    most_connections,
    unavailable,
)
from uponce.adapters.database.postgres.history import Histories
from uponce.adapters.database.postgres.pool import Engine, Pool, read, write
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Operation
from uponce.app.ports import Clock, Fault
from uponce.core.errors import DatabaseUnavailable
from uponce.core.signature import utc

log = logging.getLogger("uponce")

__all__ = ["DatabaseAddress", "PostgresDatabase", "is_set_up"]

T = TypeVar("T")

# At least the span of a partition and the longest pause between two purges (UPONCE_SWEEP_SECONDS: 600). With another
# pause and the time of a purge, less than the hour after which fsck complains.
_SLACK_SECONDS = 2700
_MOST_TRIES = 2  # a reader of one partition holds up no other one; beside a reader of all, uploads wait for each try
_READ_BYTES = 100 * 1024 * 1024  # PostgreSQL reads more of a table in a second: 1.6 GB from memory
_CORRUPT = ("XX001", "XX002")  # data_corrupted, index_corrupted
_GRANT = (
    "As a superuser, run in this database: GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO {role}. If "
    "the function does not exist, run before: ALTER EXTENSION amcheck SET SCHEMA {schema}"
)


class PostgresDatabase(Database):
    """The Database port (see app/ports/ for what each method promises). Between `open` and `close` only.

    It uses at most `connections` connections, and at least two. It waits at most `seconds` for a connection, for the
    answer to a statement, and for a lock. A row may wait for `slack` seconds until it can be dropped with its whole
    partition. Histories says what `fence_skew` does.
    """

    glance = None

    def __init__(
        self,
        url: str,
        *,
        secrets: SecretBox,
        connections: int = 8,
        seconds: int = 5,
        slack: int = _SLACK_SECONDS,
        fence_skew: int | None = 0,
        clock: Clock | None = None,
    ) -> None:
        self._slack = slack
        self._address = DatabaseAddress(url, seconds)
        histories = Histories(fence_skew)
        self._pool = Pool(self._address, connections, clock, histories.admit, histories.is_left)
        self._committer = Committer(Engine(self._pool), Records(secrets, unavailable, knows_grants=False))
        super().__init__(secrets)

    def open(self, *, upgrade: bool = True) -> None:
        """Create or migrate the tables. Raise SettingRefused, with the cure, if they cannot keep the guarantees.

        Without `upgrade`, refuse the tables of an earlier release.
        """
        with connected(self._address) as connection:
            schema.migrate(connection, upgrade=upgrade)
        self._pool.open()
        self._committer.start()

    def describe(self) -> str:
        """Return the checked facts for people, without a secret."""
        with connected(self._address) as connection:
            server, version = connection.info.server_version, schema.version_of(connection)
        return (
            f"{self._address.shown}: PostgreSQL {server // 10000}.{server % 10000}, fsync, full_page_writes and "
            f"synchronous_commit on, schema version {version}"
        )

    def most_connections(self) -> int | None:
        with connected(self._address) as connection:
            return most_connections(connection)

    def close(self) -> None:
        """Close all connections. Later calls raise DatabaseUnavailable."""
        self._committer.close()
        self._pool.close()

    async def read(self, operation: Operation[T]) -> T:
        return await self._pool.run(partial(read, operation=operation), patient=operation.patient)

    async def write(self, operation: Operation[T]) -> T:
        if operation.grouped:
            return await self._committer.run(operation)
        return await self._pool.run(partial(write, operation=operation), waits=operation.waits)

    async def _confirmed(self, operation: Operation[T]) -> T:
        """Return what the operation finds. If it finds something, a synchronous standby has that too."""
        found = await self.read(operation)
        if found is None:
            return found
        return await self._pool.run(partial(write, operation=operation, confirms=True), waits=True)

    async def integrity(self, *, deep: bool) -> Sequence[Fault]:
        """Return the faults that PostgreSQL has noticed. `deep` compares every index too, if it has amcheck."""
        return await self._pool.run(partial(_integrity, deep=deep), patient=True)

    async def _make_parts(self) -> None:
        """Make the coming partitions.

        PostgreSQL reads the whole default partition for each, and no upload runs. So with a large one, make none.
        """
        coming, skipped, size = await self.read(schema.coming_parts())
        most = self._address.seconds * _READ_BYTES
        if skipped:
            log.warning(
                "the ledger gets no partition for the half-hour from %s: the table grants_other has rows of that time. "
                "uponce forgets these rows one by one",
                ", ".join(map(utc, skipped)),
            )
        if coming and size > most:
            raise DatabaseUnavailable(
                "The ledger gets no new partitions.",
                detail=f"the table grants_other has {size} bytes, so PostgreSQL may need longer than "
                f"UPONCE_DATABASE_SECONDS={self._address.seconds} to read it while uploads wait: at most {most} bytes. "
                "At a quiet time run `uponce sweep` with a greater UPONCE_DATABASE_SECONDS",
            )
        for start, is_needed_soon in coming.items():
            with _unless_locked() as locked:
                await self.write(schema.make_part(start))
            if locked and is_needed_soon:
                raise DatabaseUnavailable(
                    "The ledger gets no new partitions.",
                    detail="for hours a session has held a lock on the table grants, as pg_dump does, or one that is "
                    "idle in a transaction, or a vacuum of grants_other. pg_stat_activity shows it: end it",
                ) from locked[0]
            if locked:
                break  # uploads wait for each try, and the next partition needs the same lock

    async def _drop_parts(self) -> int:
        dropped, tries = 0, _MOST_TRIES
        for start, rows in (await self.read(schema.past_parts())).items():
            with _unless_locked() as locked:
                dropped += await self.write(schema.drop_part(start, rows))
            tries -= len(locked)
            if not tries:
                break
        return dropped


@contextmanager
def _unless_locked() -> Iterator[list[DatabaseUnavailable]]:
    """End the work if another transaction's lock is in its way, and note the error. A later purge does the work."""
    locked: list[DatabaseUnavailable] = []
    try:
        yield locked
    except DatabaseUnavailable as error:
        if not is_in_the_way(error):
            raise
        locked.append(error)


def _integrity(session: Session, deep: bool) -> Sequence[Fault]:
    try:
        found = session.ask([("checksum_failures", {}), ("invalid_indexes", {}), ("find_amcheck", {})])
        faults = [Fault(**row) for rows in found[:2] for row in rows]
        for amcheck in found[2] if deep else ():
            faults += _compare_all(session, _GRANT.format_map(amcheck))
    except Exception as error:
        raise unavailable(error) from error
    return faults


def _compare_all(session: Session, cure: str) -> Sequence[Fault]:
    """Return the faults of all indexes. If the role may not call amcheck, the rest of fsck still has a use."""
    (indexes,) = session.ask([("list_indexes", {})])
    faults: list[Fault] = []
    try:
        for index in indexes:
            faults += _compare(session, index["name"])
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction) as error:
        faults.append(Fault(f"indexes were not checked: {error.diag.message_primary}. {cure}", is_damage=False))
    return faults


def _compare(session: Session, index: str) -> Sequence[Fault]:
    """Return the faults of an index, however long the comparison takes. An index that is gone has none."""
    session.begin_reading("", patient=True)
    try:
        session.run("check_index", {"name": index})
    except psycopg.errors.UndefinedTable:  # a partition was dropped
        return []
    except psycopg.Error as error:
        if error.sqlstate not in _CORRUPT:
            raise
        cure = f"Run REINDEX INDEX {index}. If that fails, stop the servers and restore the database from a backup"
        return [Fault(f"{error.diag.message_primary}. {cure}")]
    finally:
        session.run("roll_back")
    return []


def is_set_up(address: DatabaseAddress) -> bool:
    """Return whether a server has made its tables in the database."""
    with connected(address) as connection:
        return schema.version_of(connection) > 0
