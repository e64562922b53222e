"""The Database port for every engine: each method runs an operation. See app/ports/ for what each method promises."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from uponce.adapters.database import catalog, grants, keys, outbox, relays, series, upkeep
from uponce.adapters.database.rows import SecretBox
from uponce.adapters.database.steps import Operation
from uponce.adapters.database.upkeep import in_batches
from uponce.app.ports import Committed, Draft, Effect, Page, Reply, Row, Rule, Steps, Table
from uponce.app.ports.database import A
from uponce.core.errors import DatabaseUnavailable
from uponce.core.relaying import Forwarded, Relay
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.values import (
    ApiKey,
    Asset,
    AssetName,
    AuditRecord,
    Caller,
    Digest,
    Grant,
    GrantRecord,
    GrantStatus,
    ResourceType,
    Upstream,
)

T = TypeVar("T")


class Backend(Protocol):
    """What an engine has to do."""

    async def read(self, operation: Operation[T]) -> T:
        """What the operation finds. Everything that it finds is durable."""

    async def write(self, operation: Operation[T]) -> T:
        """What the operation returns or refuses, after it is durable."""

    async def run_arrival(self, arrival: Any, steps: Steps[Any], most_refusals: int) -> Any:
        """As Ledger.commit_arrival."""

    async def integrity(self, *, deep: bool) -> Sequence[str]:
        """As Upkeep.integrity."""


class _Keys(Backend):
    _secrets: SecretBox

    async def find_key(self, api_key: str) -> ApiKey | None:
        return await self.read(keys.find(self._secrets, api_key))

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        return await self.read(keys.list_all(self._secrets, cloud))

    async def unreadable_keys(self) -> Mapping[str, str]:
        return await self.read(keys.list_unreadable(self._secrets))

    async def add_key(self, key: ApiKey) -> None:
        await self.write(keys.add(self._secrets, key))

    async def revoke_key(self, api_key: str) -> ApiKey | None:
        return await self.write(keys.revoke(self._secrets, api_key))

    async def rotate_key(self, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        return await self.write(keys.rotate(self._secrets, api_key, secret, overlap))

    async def set_upstream(self, cloud: str, upstream: Upstream | None) -> None:
        await self.write(keys.set_upstream(self._secrets, cloud, upstream))

    async def list_upstreams(self) -> Mapping[str, Upstream]:
        return await self.read(keys.list_upstreams(self._secrets))


class _Ledger(Backend):
    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        return await self.write(grants.commit(grant, draft, caller))

    async def commit_arrival(self, arrival: A, steps: Steps[A], most_refusals: int) -> Committed:
        committed: Committed = await self.run_arrival(arrival, steps, most_refusals)
        return committed

    async def delete(self, grant: Grant, name: AssetName, caller: Caller) -> Asset | None:
        return await self.write(grants.delete(grant, name, caller))

    async def find_grant(self, key: bytes) -> GrantRecord | None:
        return await self.read(grants.find(key))

    async def list_grants(
        self, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
    ) -> Page[GrantRecord]:
        return await self.read(grants.page(cloud, api_key, status, limit, cursor))

    async def history(self, key: bytes, limit: int) -> Sequence[AuditRecord]:
        return await self.read(grants.history(key, limit))

    async def find_reply(self, grant_key: bytes, idempotency_key: str) -> Reply | None:
        return await self.read(grants.find_reply(grant_key, idempotency_key))

    async def revoke_grant(self, grant: Grant, caller: Caller) -> GrantRecord:
        return await self.write(grants.revoke(grant, caller))

    async def record_refusal(self, grant: Grant, code: str, caller: Caller, most: int = 20) -> None:
        await self.write(grants.refuse(grant, code, caller, most))

    async def newest_moment(self) -> int | None:
        return await self.read(grants.newest_moment())


class _Catalog(Backend):
    async def find_asset(self, name: AssetName) -> Asset | None:
        return await self.read(catalog.find(name))

    async def find_commit(self, blob_key: str) -> Asset | None:
        return await self.read(catalog.find_of_blob(blob_key))

    async def list_by_context(
        self, cloud: str, resource_type: ResourceType, key: str, value: str | None, *, limit: int, cursor: str | None
    ) -> Page[Asset]:
        return await self.read(catalog.of_context(cloud, resource_type, key, value, limit, cursor))

    async def list_surplus(self, cloud: str, *, files: int, size: int, seconds: int) -> Sequence[Asset]:
        return await self.read(catalog.surplus(cloud, files, size, seconds))

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        return await self.read(catalog.digests(prefix))

    async def unnamed(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self.read(catalog.unnamed(blob_keys))

    async def condemn(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self.write(catalog.condemn(blob_keys))

    async def condemned(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self.read(catalog.condemned(blob_keys))

    async def series_blobs(self) -> frozenset[str]:
        return await self.read(series.blobs())


class _OpenSeries(Backend):
    async def create_series(self, new: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
        return await self.write(series.create(new, grant, per_key=per_key, in_all=in_all))

    async def join_series(self, series_id: str, grant: Grant) -> Series:
        return await self.write(series.join(series_id, grant))

    async def find_series(self, series_id: str) -> Series | None:
        return await self.read(series.find(series_id))

    async def find_named_series(self, cloud: str, api_key: str, upload_id: str) -> Series | None:
        return await self.read(series.find_named(cloud, api_key, upload_id))

    async def find_series_of(self, grant_key: bytes) -> Sequence[Series]:
        return await self.read(series.find_of(grant_key))

    async def record_span(
        self, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart] = ()
    ) -> Series:
        return await self.write(series.record(series_id, span, total, parts))

    async def series_parts(self, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
        return await self.read(series.parts(series_id, span, limit))

    async def commit_series(self, series_id: str, draft: Draft, caller: Caller) -> Committed:
        return await self.write(series.commit(series_id, draft, caller))

    async def end_series(self, series_id: str, *, if_empty: bool = False) -> bool:
        return await self.write(series.end(series_id, if_empty=if_empty))

    async def note_arrival(self, series_id: str, size: int) -> None:
        await self.write(series.note_arrival(series_id, size))


class _Relays(Backend):
    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        if relay.series_id is None:
            return await self.write(relays.begin(relay, seconds))
        return await self.write(relays.begin_of_series(relay, relay.series_id, seconds))

    async def end_relay(self, relay: Relay, answer: Forwarded | None, code: str = "") -> bool:
        return await self.write(relays.end(relay, answer, code))

    async def find_relay(self, relay_id: str) -> Relay | None:
        return await self.read(relays.find(relay_id))

    async def relays_of(self, grant_key: bytes) -> Sequence[Relay]:
        return await self.read(relays.find_of(grant_key))

    async def note_misses(self, relay_id: str, misses: int) -> None:
        await self.write(relays.note_misses(relay_id, misses))


class _Outbox(Backend):
    async def claim_effects(self, most: int, lease: int) -> Sequence[Effect]:
        return await self.write(outbox.claim(most, lease))

    async def finish_effect(self, effect_id: int) -> None:
        await self.write(outbox.finish(effect_id))

    async def postpone_effect(self, effect_id: int, seconds: int, error: str = "", *, dead: bool = False) -> None:
        await self.write(outbox.postpone(effect_id, seconds, error, dead=dead))

    async def hasten_effect(self, subject: str) -> None:
        await self.write(outbox.hasten(subject))

    async def list_effects(self, limit: int) -> Sequence[Effect]:
        return await self.read(outbox.list_all(limit))

    async def retry_effects(self, effect_id: int | None = None) -> int:
        return await self.write(outbox.retry(effect_id))


class _Upkeep(Backend):
    _slack = 0

    async def purge(self, audit_seconds: int) -> int:
        dropped = await self._turn_over()
        dropped += await in_batches(lambda: self.write(upkeep.purge_grants(self._slack, upkeep.BATCH)))
        await in_batches(lambda: self.write(upkeep.purge_replies(self._slack, upkeep.BATCH)))
        await in_batches(lambda: self.write(upkeep.purge_audit(audit_seconds, upkeep.BATCH)))
        return dropped

    async def _turn_over(self) -> int:
        """Drop whole parts of the ledger, where the engine has such; how many rows went."""
        return 0

    async def fence(self, skew: int) -> int:
        return await self.write(upkeep.fence(skew))

    async def freeze(self) -> None:
        await self.write(upkeep.freeze())

    async def frozen(self) -> bool:
        return await self.read(upkeep.frozen())

    async def thaw(self, skew: int) -> int:
        return await self.write(upkeep.thaw(skew))

    async def violations(self, rule: Rule, audit_seconds: int) -> Sequence[str]:
        return await self.read(upkeep.violations(rule, audit_seconds))

    async def ping(self) -> None:
        if await self.frozen():
            raise DatabaseUnavailable(upkeep.FROZEN)
        await self.write(upkeep.touch())

    async def end_slowest_series(
        self, api_key: str, *, per_key: int, in_all: int, rate: int, seconds: int
    ) -> Sequence[str]:
        end = partial(series.end_slowest, per_key=per_key, in_all=in_all, rate=rate, seconds=seconds)
        return await self.write(end(api_key))

    async def end_old_series(self, older_than: float, empty: float) -> Sequence[str]:
        return await self.write(series.end_old(older_than, empty, upkeep.BATCH))


class _Moving(Backend):
    async def count_rows(self, table: Table) -> int:
        return await self.read(upkeep.count_rows(table))

    async def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        return await self.read(upkeep.rows(table, after, limit))

    async def last_row(self, table: Table) -> Row | None:
        return await self.read(upkeep.last_row(table))

    async def add_rows(self, table: Table, rows: Sequence[Row]) -> None:
        await self.write(upkeep.add_rows(table, rows))


class Database(_Keys, _Ledger, _Catalog, _OpenSeries, _Relays, _Outbox, _Upkeep, _Moving):
    """What the engines inherit."""

    def __init__(self, secrets: SecretBox) -> None:
        self._secrets = secrets
