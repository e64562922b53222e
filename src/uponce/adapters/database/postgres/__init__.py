"""PostgresDatabase: ledger, catalog, keys and audit in one PostgreSQL database, for any number of servers.

What a method returns or refuses is durable by then. One thread commits uploads, deletions, revocations and refusals in
groups. Other work runs in its own short transactions. The time is the database's.

**History**: a connection belongs to one cluster, and in it to one timeline. A standby that was promoted and a recovery
to a point in time begin a new timeline; a dump that was restored is in another cluster. Each of them may lack the last
uses of signatures. So the ledger stores in which history it was last used. Two standbys of one primary begin timelines
with the same number, and a former primary that comes back still has its own. So the name of a history in the ledger
ends with a random text, and a process remembers the names that it has left.
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import TypeVar

import psycopg

from uponce.adapters.database import upkeep
from uponce.adapters.database.committer import Committer, Records
from uponce.adapters.database.database import Database
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.postgres.connection import Address, connected, is_in_the_way, unavailable
from uponce.adapters.database.postgres.pool import Engine, Pool, read, write
from uponce.adapters.database.postgres.schema import migrate, past_parts, turn_over, version_of
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Operation, Rows, Rules, Steps, operation
from uponce.app.ports import Clock
from uponce.core.errors import DatabaseUnavailable
from uponce.core.freshness import utc

__all__ = ["Address", "PostgresDatabase", "is_set_up"]

T = TypeVar("T")

log = logging.getLogger("uponce")

# More than the span of a partition and the pause between two sweeps. Less than the hour after which fsck complains.
_SLACK_SECONDS = 2700
_NOT_TOLD = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported)
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
        self._fence_skew = fence_skew
        self._history: str | None = None
        self._left: frozenset[str | None] = frozenset()
        self._pool = Pool(self._address, connections, clock, self._admit)
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

    def _admit(self, session: Session) -> None:
        """Check a new connection, and fence if its history is new.

        Promoting or restoring a server ends the connections to it.
        """
        seen = None
        with suppress(*_NOT_TOLD):  # the role may not read it, or the engine only speaks PostgreSQL's protocol
            ((row,), recorded) = session.ask([("seen_history", {}), ("recorded_history", {})])
            seen, name = str(row["name"]), _name_of(recorded)
        if seen is None:
            return
        if not _goes_on(name, seen, self._left):
            until, name = write(session, _enter_history(seen, self._left, self._fence_skew))
            if until is not None:
                log.warning("another PostgreSQL has taken over: signatures of %s and before are refused", utc(until))
            if name is None:
                return
        self._left, self._history = (self._left | {self._history}) - {name}, name


@operation(rules=Rules.OWN)
def _enter_history(
    now: float, seen: str, left: Collection[str | None], fence_skew: int | None
) -> Steps[tuple[int | None, str | None]]:
    """Fence if another history is recorded, and record this one.

    Return the last refused timestamp, or None, and the name.

    Another server may have done it first. A frozen database accepts no uses, and is fenced when it thaws.
    """
    ((frozen,), recorded) = yield [("is_frozen", {}), ("recorded_history", {})]
    name, until = _name_of(recorded), None
    if frozen["frozen"]:
        return None, None
    if _goes_on(name, seen, left):
        return None, name
    if name is not None and fence_skew is not None:
        until = yield from upkeep.steps_of_fence(now, fence_skew)
    name = f"{seen}/{token_hex(8)}"
    yield [("forget_history", {}), ("record_history", {"name": name})]
    return until, name


def _name_of(recorded: Rows) -> str | None:
    return str(recorded[0]["name"]) if recorded else None


def _goes_on(name: str | None, seen: str, left: Collection[str | None]) -> bool:
    """Return whether the ledger was last used in the present history, and this process has not left that history."""
    return name is not None and name.rpartition("/")[0] == seen and name not in left


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
    try:
        session.run("check_index", {"name": index})
    except psycopg.Error as error:
        if error.sqlstate not in _CORRUPT:
            raise
        return [str(error)]
    return []


def is_set_up(address: Address) -> bool:
    """Return whether a server has made its tables in the database."""
    with connected(address) as connection:
        return version_of(connection) > 0
