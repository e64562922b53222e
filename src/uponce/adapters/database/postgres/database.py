"""PostgresDatabase: ledger, catalog, keys and audit in one PostgreSQL database, for any number of servers.

What a method returns or refuses is durable by then. Commits of uploads are batched (commits.py), the rest are short
transactions of their own. The time is the database's.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

from uponce.adapters.database.listing import parse_cursor
from uponce.adapters.database.postgres import (
    audit,
    catalog,
    checks,
    deleting,
    freezing,
    history,
    ledger,
    moving,
    partitions,
    replies,
    series,
)
from uponce.adapters.database.postgres.arrivals import Arrivals
from uponce.adapters.database.postgres.clock import Moment
from uponce.adapters.database.postgres.commits import Committer
from uponce.adapters.database.postgres.connection import Address, Connection, connected
from uponce.adapters.database.postgres.failures import is_in_the_way
from uponce.adapters.database.postgres.keys import KeyRing
from uponce.adapters.database.postgres.locks import OWN_RULES, SHARE_RULES
from uponce.adapters.database.postgres.pool import BEGIN, Pool, Work, commit
from uponce.adapters.database.postgres.schema import migrate, version_of
from uponce.adapters.database.purging import BATCH, in_batches
from uponce.adapters.database.rows import SecretBox
from uponce.app.ports import Clock, Committed, Draft, Page, Reply, Row, Rule, Steps, Table
from uponce.app.ports.database import A
from uponce.core.errors import DatabaseUnavailable
from uponce.core.freshness import utc
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.values import (
    ApiKey,
    Asset,
    AssetName,
    AuditEvent,
    AuditRecord,
    Caller,
    Digest,
    Grant,
    GrantRecord,
    GrantStatus,
)

T = TypeVar("T")

log = logging.getLogger("uponce")

# More than a partition lasts, with the pause between two sweeps; less than the hour after which fsck complains.
_SLACK_SECONDS = 2700


class PostgresDatabase:
    """The Database port (see app/ports/ for what each method promises). Between `open` and `close` only.

    At most `connections` to the server; `seconds` for it to connect, to answer a statement, to get a lock. A row may
    wait for `slack` seconds until it can go with its whole partition. When another PostgreSQL has taken over, it is
    fenced with `fence_skew` before anything else is asked of it; None trusts that it lacks nothing.
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
        self._moment = Moment(clock)
        self._keys = KeyRing(secrets, self._moment)
        self._fence_skew = fence_skew
        self._history: str | None = None
        self._pool = Pool(self._address, connections, self._admit)
        self._committer = Committer(self._pool, self._moment)
        self._arrivals = Arrivals(self, self._committer.run)

    def open(self) -> None:
        """Create or migrate the tables. SettingRefused when they cannot keep the guarantees, with the cure."""
        with connected(self._address) as connection:
            migrate(connection)
        self._pool.open()

    def describe(self) -> str:
        """For people: what was checked, and no secret."""
        with connected(self._address) as connection:
            server, schema = connection.info.server_version, version_of(connection)
        return (
            f"{self._address.shown}: PostgreSQL {server // 10000}.{server % 10000}, fsync, full_page_writes and "
            f"synchronous_commit on, schema version {schema}"
        )

    def close(self) -> None:
        """Later calls raise DatabaseUnavailable."""
        self._arrivals.close()
        self._pool.close()

    async def _admit(self, connection: Connection) -> None:
        """A connection stays with one history: whoever promotes a server or restores it ends those to it."""
        seen = await history.seen(connection)
        if seen in (None, self._history):
            return
        if await history.recorded(connection) == seen:
            self._history = seen
            return
        await connection.execute(BEGIN)
        await connection.execute(OWN_RULES)
        if await freezing.is_frozen(connection):  # it takes no uses, and is fenced when it thaws
            await connection.execute("ROLLBACK")
            return
        recorded = await history.recorded(connection)  # asked again: another server may have been faster
        if recorded not in (None, seen) and self._fence_skew is not None:
            until = await self._fence(connection, self._fence_skew)
            log.warning("another PostgreSQL has taken over: signatures of %s and before are refused", utc(until))
        await history.record(connection, seen)
        await commit(connection)
        self._history = seen

    async def find_key(self, api_key: str) -> ApiKey | None:
        return await self._pool.read(lambda connection: self._keys.find(connection, api_key))

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        return await self._pool.read(lambda connection: self._keys.list(connection, cloud))

    async def unreadable_keys(self) -> Mapping[str, str]:
        return await self._pool.read(self._keys.unreadable)

    async def add_key(self, key: ApiKey) -> None:
        await self._change_rules(lambda connection: self._keys.add(connection, key))

    async def revoke_key(self, api_key: str) -> ApiKey | None:
        return await self._change_rules(lambda connection: self._keys.revoke(connection, api_key))

    async def rotate_key(self, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        return await self._change_rules(lambda connection: self._keys.rotate(connection, api_key, secret, overlap))

    async def find_grant(self, key: bytes) -> GrantRecord | None:
        return await self._pool.read(lambda connection: ledger.find(connection, key))

    async def list_grants(
        self, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
    ) -> Page[GrantRecord]:
        after = parse_cursor(cursor)
        page = partial(ledger.page, cloud=cloud, api_key=api_key, status=status, limit=limit, after=after)
        return await self._pool.read(page)

    async def history(self, key: bytes, limit: int) -> Sequence[AuditRecord]:
        return await self._pool.read(lambda connection: audit.history(connection, key, limit))

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        return await self._committer.run(grant, draft, caller)

    async def commit_arrival(self, arrival: A, steps: Steps[A], most_refusals: int) -> Committed:
        return await self._arrivals.run(arrival, steps, most_refusals)

    async def delete(self, grant: Grant, name: AssetName, caller: Caller) -> Asset | None:
        delete = partial(deleting.delete, grant=grant, name=name, caller=caller, moment=self._moment)
        return await self._pool.write(delete, first=SHARE_RULES)

    async def find_commit(self, blob_key: str) -> Asset | None:
        return await self._pool.read(lambda connection: catalog.find_by_blob(connection, blob_key))

    async def find_reply(self, grant_key: bytes, idempotency_key: str) -> Reply | None:
        async def work(connection: Connection) -> Reply | None:
            return await replies.answer(await replies.ask(connection, grant_key, idempotency_key))

        return await self._pool.read(work)

    async def revoke_grant(self, grant: Grant, caller: Caller) -> GrantRecord:
        async def work(connection: Connection) -> GrantRecord:
            now = await self._moment.read(connection)
            record, changed = await ledger.revoke(connection, grant, now)
            if changed:
                await audit.write(connection, grant, AuditRecord(int(now), AuditEvent.REVOKED, caller))
            return record

        return await self._pool.write(work, first=SHARE_RULES)

    async def record_refusal(self, grant: Grant, code: str, caller: Caller, most: int = 20) -> None:
        async def work(connection: Connection) -> None:
            now = await self._moment.read(connection)
            await audit.write_refusal(connection, grant, AuditRecord(int(now), AuditEvent.REFUSED, caller, code), most)

        await self._pool.write(work)

    async def find_asset(self, name: AssetName) -> Asset | None:
        return await self._pool.read(lambda connection: catalog.find(connection, name))

    async def purge(self, audit_seconds: int) -> int:
        async def grants(connection: Connection) -> int:
            return await ledger.purge(connection, await self._moment.read(connection) - self._slack, BATCH)

        async def answers(connection: Connection) -> int:
            return await replies.purge(connection, await self._moment.read(connection) - self._slack, BATCH)

        async def records(connection: Connection) -> int:
            before = await self._moment.read(connection) - audit_seconds
            return await audit.purge(connection, before, BATCH)

        dropped = await self._turn_over()
        dropped += await in_batches(lambda: self._change_rules(grants))
        await in_batches(lambda: self._pool.write(answers))
        await in_batches(lambda: self._pool.write(records))
        return dropped

    async def _turn_over(self) -> int:
        """When it cannot be done now, it is done by a later purge, or rows go one by one."""

        async def count(connection: Connection) -> Mapping[int, int]:
            return await partitions.past(connection, await self._moment.read(connection))

        async def work(connection: Connection) -> int:
            return await partitions.turn_over(connection, await self._moment.read(connection), counted)

        try:
            counted = await self._pool.read(count, patient=True)
            return await self._change_rules(work)
        except DatabaseUnavailable as error:
            if is_in_the_way(error):
                return 0
            raise

    async def fence(self, skew: int) -> int:
        return await self._change_rules(lambda connection: self._fence(connection, skew))

    async def _fence(self, connection: Connection, skew: int) -> int:
        mark = int(await self._moment.read(connection)) + skew
        await ledger.raise_watermarks(connection, mark)
        await series.end_all(connection)
        return mark

    async def freeze(self) -> None:
        await self._change_rules(freezing.freeze)

    async def frozen(self) -> bool:
        return await self._pool.read(freezing.is_frozen)

    async def thaw(self, skew: int) -> int:
        async def work(connection: Connection) -> int:
            await freezing.thaw(connection)
            return await self._fence(connection, skew)

        return await self._change_rules(work)

    async def count_rows(self, table: Table) -> int:
        return await self._pool.read(lambda connection: moving.count(connection, table), patient=True)

    async def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        return await self._pool.read(lambda connection: moving.rows(connection, table, after, limit), patient=True)

    async def last_row(self, table: Table) -> Row | None:
        return await self._pool.read(lambda connection: moving.last(connection, table), patient=True)

    async def add_rows(self, table: Table, rows: Sequence[Row]) -> None:
        await self._pool.write(lambda connection: moving.add(connection, table, rows))

    async def create_series(self, new: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
        create = partial(series.create, series=new, grant=grant, per_key=per_key, in_all=in_all)
        return await self._pool.write(create, first=SHARE_RULES)

    async def join_series(self, series_id: str, grant: Grant) -> Series:
        join = partial(series.join, series_id=series_id, grant=grant)
        return await self._pool.write(join, first=SHARE_RULES)

    async def find_series(self, series_id: str) -> Series | None:
        return await self._pool.read(lambda connection: series.find(connection, series_id))

    async def find_named_series(self, cloud: str, api_key: str, upload_id: str) -> Series | None:
        return await self._pool.read(lambda connection: series.find_named(connection, cloud, api_key, upload_id))

    async def find_series_of(self, grant_key: bytes) -> Sequence[Series]:
        return await self._pool.read(lambda connection: series.find_of(connection, grant_key))

    async def record_span(
        self, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart] = ()
    ) -> Series:
        return await self._pool.write(lambda connection: series.record(connection, series_id, span, total, parts))

    async def series_parts(self, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
        return await self._pool.read(lambda connection: series.parts(connection, series_id, span, limit))

    async def commit_series(self, series_id: str, draft: Draft, caller: Caller) -> Committed:
        commit = partial(series.commit, series_id=series_id, draft=draft, caller=caller, moment=self._moment)
        return await self._pool.write(commit, first=SHARE_RULES)

    async def end_series(self, series_id: str, *, if_empty: bool = False) -> bool:
        return await self._pool.write(lambda connection: series.end(connection, series_id, if_empty))

    async def note_arrival(self, series_id: str, size: int) -> None:
        await self._pool.write(lambda connection: series.note_arrival(connection, series_id, size))

    async def end_slowest_series(
        self, api_key: str, *, per_key: int, in_all: int, rate: int, seconds: int
    ) -> Sequence[str]:
        async def work(connection: Connection) -> Sequence[str]:
            pace = {"rate": rate, "seconds": seconds, "now": int(await self._moment.read(connection))}
            return await series.end_slowest(connection, api_key, per_key, in_all, pace)

        return await self._pool.write(work)

    async def end_old_series(self, older_than: float, empty: float) -> Sequence[str]:
        async def work(connection: Connection) -> Sequence[str]:
            now = await self._moment.read(connection)
            return await series.end_begun_before(connection, now - older_than, now - empty, BATCH)

        return await self._pool.write(work)

    async def series_blobs(self) -> frozenset[str]:
        return await self._pool.read(series.blob_keys)

    async def unnamed(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self._pool.read(lambda connection: catalog.unnamed(connection, blob_keys))

    async def condemn(self, blob_keys: Sequence[str]) -> Sequence[str]:
        async def work(connection: Connection) -> Sequence[str]:
            return await catalog.condemn(connection, blob_keys, await self._moment.read(connection))

        return await self._change_rules(work)

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        return await self._pool.read(lambda connection: catalog.digests(connection, prefix), patient=True)

    async def condemned(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self._pool.read(lambda connection: catalog.condemned(connection, blob_keys))

    async def integrity(self, *, deep: bool) -> Sequence[str]:
        return await self._pool.read(lambda connection: checks.integrity(connection, deep), patient=True)

    async def violations(self, rule: Rule, audit_seconds: int) -> Sequence[str]:
        async def work(connection: Connection) -> Sequence[str]:
            return await checks.violations(connection, rule, await self._moment.read(connection), audit_seconds)

        return await self._pool.read(work, patient=True)

    async def newest_moment(self) -> int | None:
        return await self._pool.read(audit.newest_moment)

    async def ping(self) -> None:
        await self._pool.write(_touch)

    async def _change_rules(self, work: Work[T]) -> T:
        return await self._pool.write(work, first=OWN_RULES)


def is_set_up(address: Address) -> bool:
    """Whether a server has made its tables there."""
    with connected(address) as connection:
        return version_of(connection) > 0


async def _touch(connection: Connection) -> None:
    """A write that changes nothing, yet reaches the disk."""
    await connection.execute("UPDATE schema_version SET version = version")
