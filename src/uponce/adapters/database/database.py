"""The Database port for every engine: each method runs an operation. app/ports/ says what each method promises."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from uponce.adapters.database import catalog, commits, keys, ledger, outbox, relays, series, upkeep
from uponce.adapters.database.committer import Committer
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.steps import Operation
from uponce.adapters.database.upkeep import in_batches
from uponce.app.ports import Effect, Fault, LateGroup
from uponce.core.errors import DatabaseUnavailable
from uponce.core.first_failure import FirstFailure
from uponce.core.relaying import Forwarded, Relay

T = TypeVar("T")
P = ParamSpec("P")
_LAST = 2**63 - 1  # the greatest number of an effect
Method: TypeAlias = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


def _runs(make: Callable[P, Operation[T]]) -> Method[P, T]:
    """Return the method that runs an operation. Its parameters are those of the operation."""

    async def method(self: "Database", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(make(*args, **kwargs))

    return method


def _runs_with_secrets(make: Callable[Concatenate[SecretBox, P], Operation[T]]) -> Method[P, T]:
    """Return what `_runs` returns, for an operation whose first parameter encrypts and decrypts secrets."""

    async def method(self: "Database", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(make(self._secrets, *args, **kwargs))

    return method


def _confirms(make: Callable[P, Operation[T]]) -> Method[P, T]:
    """Return the method that runs a reading operation, and whose result is as durable as a commit."""

    async def method(self: "Database", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._confirmed(make(*args, **kwargs))

    return method


class Database(ABC):
    """The base class of the engines. A line names the operation that a method of the port runs."""

    _committer: Committer
    _slack = 0

    def __init__(self, secrets: SecretBox) -> None:
        self._secrets = secrets
        self.commit_arrival = self._committer.run_arrival

    def most_connections(self) -> int | None:
        """Return how many connections all servers together may have. Return None without a limit."""
        return None

    def seal_before_commits(self, late: LateGroup) -> bool:
        """Seal the group before each commit. If that fails, nothing of the transaction happens.

        Return False if this engine does not: then only bytes that are durable may come to it.
        """
        return False

    @abstractmethod
    async def read(self, operation: Operation[T]) -> T:
        """Return the result of the operation. Everything that it reads is durable here, if not on a standby."""

    @abstractmethod
    async def write(self, operation: Operation[T]) -> T:
        """Return the result of the operation, or raise its refusal, after it is durable."""

    async def _run(self, operation: Operation[T]) -> T:
        return await (self.write if operation.writes else self.read)(operation)

    @abstractmethod
    async def integrity(self, *, deep: bool) -> Sequence[Fault]:
        """Return what Checks.integrity returns."""

    # Keys
    find_key = _runs_with_secrets(keys.find)
    list_keys = _runs_with_secrets(keys.list_all)
    key_clouds = _runs(keys.list_clouds)
    unreadable_keys = _runs_with_secrets(keys.list_unreadable)
    past_secrets = _runs_with_secrets(keys.list_past)
    add_key = _runs_with_secrets(keys.add)
    revoke_key = _runs_with_secrets(keys.revoke)
    rotate_key = _runs_with_secrets(keys.rotate)
    has_cloud = _runs(keys.has_cloud)

    # Upstreams
    set_upstream = _runs_with_secrets(keys.set_upstream)
    list_upstreams = _runs_with_secrets(keys.list_upstreams)
    lost_upstreams = _runs_with_secrets(keys.list_lost_upstreams)

    # Ledger
    commit = _runs(commits.commit)
    delete = _runs(commits.delete)
    find_grant = _runs(ledger.find)
    confirm_grant = _confirms(ledger.find)
    list_grants = _runs(ledger.page)
    revoke_grant = _runs(ledger.revoke)
    find_reply = _runs(ledger.find_reply)
    confirm_reply = _confirms(ledger.find_reply)

    # Audit
    history = _runs(ledger.history)
    record_refusal = _runs(commits.refuse)
    newest_moment = _runs(ledger.newest_moment)

    # Catalog
    find_asset = _runs(catalog.find)
    find_commit = _runs(catalog.find_of_blob)
    confirm_commit = _confirms(catalog.find_of_blob)
    list_by_context = _runs(catalog.of_context)
    list_surplus = _runs(catalog.surplus)
    digests = _runs(catalog.digests)
    unnamed = _runs(catalog.unnamed)
    condemn = _runs(catalog.condemn)
    condemned = _runs(catalog.condemned)
    series_blobs = _runs(series.blobs)

    # OpenSeries
    create_series = _runs(series.create)
    join_series = _runs(series.join)
    record_span = _runs(series.record)
    commit_series = _runs(series.commit)
    end_series = _runs(series.end)
    note_arrival = _runs(series.note_arrival)
    end_old_series = _runs(series.end_old)
    end_slowest_series = _runs(series.end_slowest)
    slowest_complete_series = _runs(series.slowest_complete)

    # SeriesReader
    find_series = _runs(series.find)
    find_named_series = _runs(series.find_named)
    find_series_of = _runs(series.find_of)
    has_joined_series = _runs(series.has_joined)
    series_grants = _runs(series.grants)
    series_parts = _runs(series.parts)

    # Relays
    end_relay = _runs(relays.end)
    find_relay = _runs(relays.find)
    moment = _runs(relays.moment)
    note_misses = _runs(relays.note_misses)
    hasten_relays = _runs(relays.hasten)

    async def _confirmed(self, operation: Operation[T]) -> T:
        """Return what `read` returns, as durable as a commit. An engine overrides this if its reads may be less."""
        return await self.read(operation)

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        if relay.series_id is None:
            return await self.write(relays.begin(relay, seconds))
        return await self.write(relays.begin_of_series(relay, relay.series_id, seconds))

    # Outbox
    list_receivers = _runs(outbox.list_receivers)
    finish_effect = _runs(outbox.finish)
    postpone_effect = _runs(outbox.postpone)
    hasten_effect = _runs(outbox.hasten)
    find_effect = _runs(outbox.find)
    list_effects = _runs(outbox.list_all)
    count_waiting = _runs(outbox.count)

    async def claim_effects(self, name: str, shares: Mapping[str, int], lease: int) -> Sequence[Effect]:
        left = shares
        while left:  # until those that may run are among the first
            left = await self.write(outbox.delay_waiting(name, left, upkeep.BATCH))
        claimed: Sequence[Effect] = await self.write(outbox.claim(name, shares, lease))
        return claimed

    async def retry_effects(self, effect_id: int | None = None) -> int:
        if effect_id is not None:
            return await self.write(outbox.retry(effect_id))
        return await self._once_each(outbox.retry_dead)

    async def drop_dead_effects(self, name: str, effect_id: int | None = None) -> int:
        if effect_id is not None:
            dropped: Sequence[int] = await self.write(outbox.drop_dead(name, effect_id - 1, effect_id, 1))
            return len(dropped)
        return await self._once_each(lambda after, most: outbox.drop_dead(name, after, _LAST, most))

    async def _once_each(self, make: Callable[[int, int], Operation[Sequence[int]]]) -> int:
        """Run an operation on all effects in batches, except those that die again in between. Return their number."""
        after = 0

        async def some() -> int:
            nonlocal after
            done = await self.write(make(after, upkeep.BATCH))
            after = max(done, default=after)
            return len(done)

        return await in_batches(some)

    # Upkeep, Fence, Checks, Deployment
    fence = _runs(upkeep.fence)
    freeze = _runs(upkeep.freeze)
    frozen = _runs(upkeep.frozen)
    thaw = _runs(upkeep.thaw)
    owner = _runs(upkeep.owner)
    make_owner = _runs(upkeep.make_owner)
    follow_owner = _runs(upkeep.follow_owner)
    note_settings = _runs(upkeep.note_settings)
    noted_settings = _runs(upkeep.noted_settings)
    violations = _runs(upkeep.violations)
    count_violations = _runs(upkeep.count_violations)

    async def widen_fence(self, skew: int) -> int | None:
        if await self.read(upkeep.wider_fence(skew)) is None:  # then a start waits for no lock, and needs no room
            return None
        return await self.write(upkeep.widen_fence(skew))

    async def purge(self, audit_seconds: int | None, dead_seconds: int | None = None) -> int:
        failure, dropped = FirstFailure(), 0
        some = partial(in_batches, seconds=upkeep.MOST_SECONDS)  # no kind of rows keeps a purge from its later steps
        with failure.kept():
            await self._make_parts()
        with failure.kept():
            dropped += await self._drop_parts()
        with failure.kept():
            dropped += await some(lambda: self.write(upkeep.purge_grants(self._slack, upkeep.BATCH)))
        with failure.kept():
            await some(lambda: self.write(upkeep.purge_replies(self._slack, upkeep.BATCH)))
        if audit_seconds is not None:
            with failure.kept():
                end = await self.read(upkeep.end_of_purge("oldest_audit"))
                await some(lambda: self.write(upkeep.purge_audit(audit_seconds, end, upkeep.BATCH)))
        with failure.kept():
            await some(lambda: self.write(outbox.hasten_far(upkeep.BATCH)))
        if dead_seconds is not None:
            with failure.kept():
                last = await self.read(upkeep.end_of_purge("oldest_dead_effect"))
                await some(lambda: self.write(outbox.drop_old(dead_seconds, last, upkeep.BATCH)))
        failure.raise_it()
        return dropped

    async def _make_parts(self) -> None:  # noqa: B027 an engine without partitions makes none
        """Make the coming partitions of the ledger, if the engine has partitions."""

    async def _drop_parts(self) -> int:
        """Drop whole partitions of the ledger, if the engine has them. Return the number of dropped rows."""
        return 0

    async def ping(self) -> None:
        if await self.frozen():
            raise DatabaseUnavailable(upkeep.FROZEN)
        await self.write(upkeep.touch())

    # Moving
    count_rows = _runs(upkeep.count_rows)
    rows = _runs(upkeep.rows)
    last_row = _runs(upkeep.last_row)
    add_rows = _runs(upkeep.add_rows)
