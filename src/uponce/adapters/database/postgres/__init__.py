"""PostgresDatabase: ledger, catalog, keys and audit in one PostgreSQL database, for any number of servers.

What a method returns or refuses is durable by then. One thread commits uploads, deletions, revocations and refusals in
groups. Other work runs in its own short transactions. The time is the database's.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypeVar

import psycopg

from uponce.adapters.database.committer import Committer, Records
from uponce.adapters.database.database import Database
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.postgres.connection import (
    Address,
    connected,
    is_in_the_way,
    most_connections,
    unavailable,
)
from uponce.adapters.database.postgres.history import Histories
from uponce.adapters.database.postgres.pool import Engine, Pool, read, write
from uponce.adapters.database.postgres.schema import migrate, past_parts, turn_over, version_of
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Operation
from uponce.app.ports import Clock
from uponce.core.errors import DatabaseUnavailable

__all__ = ["Address", "PostgresDatabase", "is_set_up"]

T = TypeVar("T")

# More than the span of a partition and the pause between two sweeps. Less than the hour after which fsck complains.
_SLACK_SECONDS = 2700
_CORRUPT = ("XX001", "XX002")  # data_corrupted, index_corrupted


class PostgresDatabase(Database):
    """The Database port (see app/ports/ for what each method promises). Between `open` and `close` only.

    It uses at most `connections` connections, and at least two. It waits at most `seconds` for a connection, for the
    answer to a statement, and for a lock. A row may wait for `slack` seconds until it can be dropped with its whole
    partition. After another PostgreSQL has taken over, a fence with `fence_skew` comes before all other work. None
    trusts that the new one lacks no use.
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
        self._address = Address(url, seconds)
        histories = Histories(fence_skew)
        self._pool = Pool(self._address, connections, clock, histories.admit, histories.is_left)
        self._committer = Committer(Engine(self._pool), Records(secrets, unavailable, knows_grants=False))
        super().__init__(secrets)

    def open(self) -> None:
        """Create or migrate the tables. Raise SettingRefused, with the cure, if they cannot keep the guarantees."""
        with connected(self._address) as connection:
            migrate(connection)
        self._pool.open()
        self._committer.start()

    def describe(self) -> str:
        """Return the checked facts for people, without a secret."""
        with connected(self._address) as connection:
            server, schema = connection.info.server_version, version_of(connection)
        return (
            f"{self._address.shown}: PostgreSQL {server // 10000}.{server % 10000}, fsync, full_page_writes and "
            f"synchronous_commit on, schema version {schema}"
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
        return await self._pool.run(partial(write, operation=operation))

    async def integrity(self, *, deep: bool) -> Sequence[str]:
        """Return the faults that PostgreSQL has noticed.

        `deep` also compares every index, if the extension amcheck is installed.
        """
        return await self._pool.run(partial(_integrity, deep=deep), patient=True)

    async def _turn_over(self) -> int:
        """Drop partitions.

        If a lock prevents this now, return 0: a later purge does it, or rows are dropped one by one.
        """
        try:
            return await self.write(turn_over(await self.read(past_parts())))
        except DatabaseUnavailable as error:
            if is_in_the_way(error):
                return 0
            raise


def _integrity(session: Session, deep: bool) -> Sequence[str]:
    try:
        found = session.ask([("checksum_failures", {}), ("invalid_indexes", {}), ("find_amcheck", {})])
        messages = [row["message"] for rows in found[:2] for row in rows]
        if deep and found[2]:
            (indexes,) = session.ask([("list_indexes", {})])
            for index in indexes:
                messages += _compare(session, index["name"])
    except Exception as error:
        raise unavailable(error) from error
    return messages


def _compare(session: Session, index: str) -> Sequence[str]:
    """Return the faults of an index, however long the comparison takes. An index that is gone has none."""
    session.begin_reading("", patient=True)
    try:
        session.run("check_index", {"name": index})
    except psycopg.errors.UndefinedTable:  # a partition was dropped
        return []
    except psycopg.Error as error:
        if error.sqlstate not in _CORRUPT:
            raise
        return [str(error)]
    finally:
        session.run("roll_back")
    return []


def is_set_up(address: Address) -> bool:
    """Return whether a server has made its tables in the database."""
    with connected(address) as connection:
        return version_of(connection) > 0
