"""Commits that wait are decided together: one transaction, three trips to the server, one wait for its disk.

Nothing in a batch fails for another's sake. Who is refused is refused by what the rows say, which is no error of SQL;
should a statement fail after all, the batch is rolled back and each of its uploads gets a transaction of its own.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from psycopg.pq import TransactionStatus

from uponce.adapters.database.decisions import publication, refuse_condemned, refuse_spent, repetition, spending
from uponce.adapters.database.postgres import audit, catalog, clock, ledger, locks, replies
from uponce.adapters.database.postgres.clock import Moment
from uponce.adapters.database.postgres.connection import Connection
from uponce.adapters.database.postgres.failures import outcome_unknown, unavailable
from uponce.adapters.database.postgres.pool import BEGIN, Pool, commit
from uponce.app.ports import Committed, Draft, Reply
from uponce.core.errors import UponceError
from uponce.core.values import Asset, AssetName, Caller, Grant

MAX_BATCH = 64

log = logging.getLogger("uponce")

Outcome: TypeAlias = Committed | UponceError


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """An upload that is to be committed, and who waits for it."""

    grant: Grant
    draft: Draft
    caller: Caller
    future: "asyncio.Future[Committed]"


class _NotCommitted(Exception):
    """A statement could not be sent, or the server refused it and the transaction: certainly nothing was committed."""


@dataclass(slots=True)
class Committer:
    """Commits for all uploads of a process. While one batch is under way, the next one gathers."""

    pool: Pool
    moment: Moment
    _queue: deque[Waiting] = field(default_factory=deque)
    _running: asyncio.Task[None] | None = None

    async def run(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        """As Database.commit. A cancelled caller changes nothing: its upload is committed with its batch."""
        loop = asyncio.get_running_loop()
        waiting = Waiting(grant, draft, caller, loop.create_future())
        self._queue.append(waiting)
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._serve())
        return await waiting.future

    async def _serve(self) -> None:
        while self._queue:
            batch = self._next_batch()
            try:
                _answer_all(batch, await self._outcomes(batch))
            except BaseException as error:  # without an answer, the callers of this batch would wait for ever
                log.exception("a batch of commits failed")
                _answer_all(batch, [outcome_unknown(RuntimeError(repr(error)))] * len(batch))
                if not isinstance(error, Exception):
                    raise

    def _next_batch(self) -> list[Waiting]:
        """The oldest ones; of those that repeat one another only the first, so that the next finds its reply."""
        batch: dict[object, Waiting] = {}
        repeats: list[Waiting] = []
        while self._queue and len(batch) < MAX_BATCH:
            waiting = self._queue.popleft()
            repeated = waiting.draft.idempotency_key
            subject = waiting if repeated is None else (waiting.grant.key, repeated)
            if batch.setdefault(subject, waiting) is not waiting:
                repeats.append(waiting)
        self._queue.extendleft(reversed(repeats))
        return list(batch.values())

    async def _outcomes(self, batch: Sequence[Waiting]) -> Sequence[Outcome]:
        try:
            return await self._transact(batch)
        except UponceError as error:
            return [error] * len(batch)
        except _NotCommitted as failure:
            if len(batch) == 1:
                assert isinstance(failure.__cause__, Exception)
                return [unavailable(failure.__cause__)]
            return [outcome for waiting in batch for outcome in await self._outcomes([waiting])]

    async def _transact(self, batch: Sequence[Waiting]) -> Sequence[Outcome]:
        async with self.pool.connection() as connection:
            failed = unavailable
            try:
                async with connection.pipeline():
                    outcomes = await _decide(connection, batch, self.moment)
                    failed = outcome_unknown
                    await commit(connection)
            except Exception as error:
                status = connection.info.transaction_status
                if status is TransactionStatus.INERROR or (
                    failed is unavailable and status is TransactionStatus.INTRANS
                ):
                    raise _NotCommitted from error
                raise failed(error) from error
        return outcomes


async def _decide(connection: Connection, batch: Sequence[Waiting], moment: Moment) -> Sequence[Outcome]:
    """Everything but the commit: spend, publish, note, or say why not; in the order of the batch."""
    await connection.execute(BEGIN)
    await connection.execute(locks.SHARE_RULES)
    names = list(dict.fromkeys(waiting.draft.name for waiting in batch))
    keyed = {waiting: waiting.draft.idempotency_key for waiting in batch if waiting.draft.idempotency_key is not None}
    repeats = [locks.of_repeat(waiting.grant.key, key) for waiting, key in keyed.items()]
    await locks.hold(connection, [*map(locks.of_name, names), *repeats])
    asked_now = await moment.ask(connection)
    asked_keys = await ledger.ask_watermarks(connection, [waiting.grant for waiting in batch])
    asked_blobs = await catalog.ask_condemned(connection, [waiting.draft.blob_key for waiting in batch])
    asked_replies = {waiting: await replies.ask(connection, waiting.grant.key, key) for waiting, key in keyed.items()}
    asked_assets = [await catalog.ask(connection, name) for name in names]

    now = await clock.answer(asked_now)
    known, condemned = await ledger.watermarks(asked_keys), await catalog.condemned_among(asked_blobs)
    present = {name: await catalog.answer(asked) for name, asked in zip(names, asked_assets, strict=True)}
    told = {waiting: await replies.answer(asked) for waiting, asked in asked_replies.items()}

    settled = {waiting: _settled(waiting, known, condemned, told.get(waiting)) for waiting in batch}
    uses = await _spend(connection, [waiting for waiting in batch if settled[waiting] is None], now)
    return [settled[waiting] or uses[waiting] or await _publish(connection, waiting, present, now) for waiting in batch]


def _settled(
    waiting: Waiting, known: ledger.Watermarks, condemned: Collection[str], reply: Reply | None
) -> Outcome | None:
    """What it comes to before its grant is asked: a refusal, or what it repeats."""
    try:
        ledger.check_key(waiting.grant, known)
        if reply is not None:
            return repetition(reply, waiting.draft)
    except UponceError as refusal:
        return refusal
    return refuse_condemned() if waiting.draft.blob_key in condemned else None


async def _spend(
    connection: Connection, candidates: Sequence[Waiting], now: float
) -> Mapping[Waiting, UponceError | None]:
    """Take a use for each, in the order of the grants' keys; None where that went well."""
    ordered = sorted(candidates, key=lambda waiting: waiting.grant.key)
    asked = [await ledger.ask_spend(connection, waiting.grant, now) for waiting in ordered]
    taken = [await cursor.fetchone() is not None for cursor in asked]
    uses: dict[Waiting, UponceError | None] = dict.fromkeys(ordered)
    for waiting, won in zip(ordered, taken, strict=True):
        if not won:
            # A statement of its own: the one above may have waited for a rival that its own snapshot does not show.
            uses[waiting] = refuse_spent(await ledger.find(connection, waiting.grant.key), waiting.grant)
    return uses


async def _publish(
    connection: Connection, waiting: Waiting, present: dict[AssetName, Asset | None], now: float
) -> Committed:
    """`present` is what stands under each name, in this transaction too."""
    committed = publication(waiting.draft, present[waiting.draft.name], now)
    if not committed.existing:
        await catalog.put(connection, committed.asset)
        present[waiting.draft.name] = committed.asset
    await audit.write(connection, waiting.grant, spending(committed, waiting.caller, now))
    await replies.keep(connection, waiting.grant, waiting.draft, committed)
    return committed


def _answer_all(batch: Sequence[Waiting], outcomes: Sequence[Outcome]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        _answer(waiting, outcome)


def _answer(waiting: Waiting, outcome: Outcome) -> None:
    if waiting.future.done():  # the caller was cancelled
        return
    if isinstance(outcome, UponceError):
        waiting.future.set_exception(outcome)
    else:
        waiting.future.set_result(outcome)
