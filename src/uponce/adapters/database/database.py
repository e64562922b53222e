"""The Database port for every engine: each method runs an operation. See app/ports/ for what each method promises."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

from uponce.adapters.database import catalog, grants, keys, outbox, relays, series, upkeep
from uponce.adapters.database.committer import Committer
from uponce.adapters.database.rows import SecretBox
from uponce.adapters.database.steps import Operation
from uponce.adapters.database.upkeep import in_batches
from uponce.app.ports import Committed, Steps
from uponce.app.ports.database import A
from uponce.core.errors import DatabaseUnavailable
from uponce.core.relaying import Forwarded, Relay

T = TypeVar("T")
P = ParamSpec("P")
_LAST = 2**63 - 1  # of all numbers of effects
Method: TypeAlias = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


class Backend(Protocol):
    """What an engine has to do."""

    _committer: Committer

    async def read(self, operation: Operation[T]) -> T:
        """What the operation finds. Everything that it finds is durable."""

    async def write(self, operation: Operation[T]) -> T:
        """What the operation returns or refuses, after it is durable."""

    async def integrity(self, *, deep: bool) -> Sequence[str]:
        """As Upkeep.integrity."""


def _reads(make: Callable[P, Operation[T]]) -> Method[P, T]:
    """Return the method that runs an operation without writes. Its parameters are those of the operation."""

    async def method(self: Backend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(make(*args, **kwargs))

    return method


def _writes(make: Callable[P, Operation[T]]) -> Method[P, T]:
    """Return the method that runs an operation which writes."""

    async def method(self: Backend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(make(*args, **kwargs))

    return method


def _reads_secrets(make: Callable[Concatenate[SecretBox, P], Operation[T]]) -> Method[P, T]:
    """As `_reads`, for an operation that first takes what decrypts secrets."""

    async def method(self: "Database", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.read(make(self._secrets, *args, **kwargs))

    return method


def _writes_secrets(make: Callable[Concatenate[SecretBox, P], Operation[T]]) -> Method[P, T]:
    """As `_writes`, for an operation that first takes what encrypts secrets."""

    async def method(self: "Database", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.write(make(self._secrets, *args, **kwargs))

    return method


class Database(Backend):
    """What the engines inherit. A line names the operation that a method of the port runs."""

    _slack = 0

    def __init__(self, secrets: SecretBox) -> None:
        self._secrets = secrets

    # Keys
    find_key = _reads_secrets(keys.find)
    list_keys = _reads_secrets(keys.list_all)
    unreadable_keys = _reads_secrets(keys.list_unreadable)
    add_key = _writes_secrets(keys.add)
    revoke_key = _writes_secrets(keys.revoke)
    rotate_key = _writes_secrets(keys.rotate)
    set_upstream = _writes_secrets(keys.set_upstream)
    list_upstreams = _reads_secrets(keys.list_upstreams)
    lost_upstreams = _reads_secrets(keys.list_lost_upstreams)
    has_cloud = _reads(keys.has_cloud)

    # Ledger
    commit = _writes(grants.commit)
    delete = _writes(grants.delete)
    find_grant = _reads(grants.find)
    list_grants = _reads(grants.page)
    history = _reads(grants.history)
    find_reply = _reads(grants.find_reply)
    revoke_grant = _writes(grants.revoke)
    record_refusal = _writes(grants.refuse)
    newest_moment = _reads(grants.newest_moment)

    async def commit_arrival(self, arrival: A, steps: Steps[A], most_refusals: int) -> Committed:
        committed: Committed = await self._committer.run_arrival(arrival, steps, most_refusals)
        return committed

    # Catalog
    find_asset = _reads(catalog.find)
    find_commit = _reads(catalog.find_of_blob)
    list_by_context = _reads(catalog.of_context)
    list_surplus = _reads(catalog.surplus)
    digests = _reads(catalog.digests)
    unnamed = _reads(catalog.unnamed)
    condemn = _writes(catalog.condemn)
    condemned = _reads(catalog.condemned)
    series_blobs = _reads(series.blobs)

    # OpenSeries
    create_series = _writes(series.create)
    join_series = _writes(series.join)
    find_series = _reads(series.find)
    find_named_series = _reads(series.find_named)
    find_series_of = _reads(series.find_of)
    record_span = _writes(series.record)
    series_parts = _reads(series.parts)
    commit_series = _writes(series.commit)
    end_series = _writes(series.end)
    note_arrival = _writes(series.note_arrival)

    # Relays
    end_relay = _writes(relays.end)
    find_relay = _reads(relays.find)
    moment = _reads(relays.moment)
    note_misses = _writes(relays.note_misses)
    hasten_relays = _writes(relays.hasten)

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        if relay.series_id is None:
            return await self.write(relays.begin(relay, seconds))
        return await self.write(relays.begin_of_series(relay, relay.series_id, seconds))

    # Outbox
    claim_effects = _writes(outbox.claim)
    finish_effect = _writes(outbox.finish)
    postpone_effect = _writes(outbox.postpone)
    hasten_effect = _writes(outbox.hasten)
    list_effects = _reads(outbox.list_all)
    count_waiting = _reads(outbox.count)

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
        """Run an operation on all effects in batches; how many. An effect that is dead again meanwhile is left."""
        after = 0

        async def some() -> int:
            nonlocal after
            done = await self.write(make(after, upkeep.BATCH))
            after = max(done, default=after)
            return len(done)

        return await in_batches(some)

    # Upkeep
    fence = _writes(upkeep.fence)
    freeze = _writes(upkeep.freeze)
    frozen = _reads(upkeep.frozen)
    thaw = _writes(upkeep.thaw)
    violations = _reads(upkeep.violations)
    end_slowest_series = _writes(series.end_slowest)
    end_old_series = _writes(series.end_old)

    async def purge(self, audit_seconds: int) -> int:
        dropped = await self._turn_over()
        dropped += await in_batches(lambda: self.write(upkeep.purge_grants(self._slack, upkeep.BATCH)))
        await in_batches(lambda: self.write(upkeep.purge_replies(self._slack, upkeep.BATCH)))
        await in_batches(lambda: self.write(upkeep.purge_audit(audit_seconds, upkeep.BATCH)))
        return dropped

    async def _turn_over(self) -> int:
        """Drop whole parts of the ledger, where the engine has such; how many rows went."""
        return 0

    async def ping(self) -> None:
        if await self.frozen():
            raise DatabaseUnavailable(upkeep.FROZEN)
        await self.write(upkeep.touch())

    # Moving
    count_rows = _reads(upkeep.count_rows)
    rows = _reads(upkeep.rows)
    last_row = _reads(upkeep.last_row)
    add_rows = _writes(upkeep.add_rows)
