"""Rows of the tables ↔ values, alike on every engine. Column lists and tuples have the same order."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from uponce.app.ports import Committed, Draft, Reply
from uponce.core.errors import SettingRefused
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.values import (
    Algorithm,
    ApiKey,
    Asset,
    AssetName,
    AuditEvent,
    AuditRecord,
    Caller,
    DeliveryType,
    Digest,
    Grant,
    GrantRecord,
    KeyScope,
    KeyUses,
    MediaFacts,
    ResourceType,
)

ASSET_COLUMNS = (
    "cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, blob_key, bytes, md5, sha256, "
    "facts, tags, context, original_filename"
)
# The rest of the row is the asset's identity and stays when it is overwritten.
REPLACED_COLUMNS = (
    "version",
    "version_id",
    "blob_key",
    "bytes",
    "md5",
    "sha256",
    "facts",
    "tags",
    "context",
    "original_filename",
)
AUDIT_COLUMNS = "at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id, count"
HISTORY_COLUMNS = "at, event, code, asset_id, public_id, address, request_id, count"
GRANT_COLUMNS = "grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at"
KEY_COLUMNS = (
    "api_key, cloud, secret, previous_secret, previous_until, uses, scope, window_seconds, name, allow_v1, "
    "algorithms, created_at, revoked_at, watermark"
)
# The longest text of an IP address: IPv6 with an IPv4 address inside.
ADDRESS_LENGTH = 45
SERIES_COLUMNS = (
    "id, cloud, api_key, upload_id, requested, parameters, algorithm, filename, blob_key, created_at, total, shared, "
    "arrived"
)
PART_COLUMNS = "start, stop, name, sha256"

# Made at import, by one thread: when two threads are the first to decode a dataclass, msgspec 0.22 may show one of them
# what the other is still building, and the process dies of it.
_FACTS = msgspec.json.Decoder(MediaFacts)
_TAGS = msgspec.json.Decoder(tuple[str, ...])
_CONTEXT = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_COMMITTED = msgspec.json.Decoder(Committed)
_PARAMETERS = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_ALGORITHMS = msgspec.json.Decoder(tuple[Algorithm, ...])


class SecretBox(Protocol):
    """Encrypts API secrets. A text that was encrypted in one context does not decrypt in another."""

    def make_key(self) -> None:
        """Make the key unless it exists."""

    def encrypt(self, plain: str, context: str) -> bytes: ...

    def decrypt(self, cipher: bytes, context: str) -> str: ...


def asset_row(asset: Asset) -> tuple[Any, ...]:
    name, digest = asset.name, asset.digest
    return (
        name.cloud,
        name.resource_type,
        name.type,
        name.public_id,
        asset.asset_id,
        asset.version,
        asset.version_id,
        asset.created_at,
        asset.blob_key,
        digest.size,
        digest.md5,
        digest.sha256,
        msgspec.json.encode(asset.facts).decode(),
        msgspec.json.encode(asset.tags).decode(),
        msgspec.json.encode(asset.context).decode(),
        asset.original_filename,
    )


def asset_of(row: tuple[Any, ...]) -> Asset:
    cloud, resource_type, type_, public_id, asset_id, version, version_id, created_at, blob_key, *rest = row
    size, md5, sha256, facts, tags, context, original_filename = rest
    return Asset(
        name=AssetName(cloud, ResourceType(resource_type), DeliveryType(type_), public_id),
        asset_id=asset_id,
        version=version,
        version_id=version_id,
        created_at=created_at,
        blob_key=blob_key,
        digest=Digest(size, md5, sha256),
        facts=_FACTS.decode(facts),
        tags=_TAGS.decode(tags),
        context=_CONTEXT.decode(context),
        original_filename=original_filename,
    )


def audit_row(grant: Grant, record: AuditRecord) -> tuple[Any, ...]:
    return (
        record.at,
        grant.key,
        grant.cloud,
        grant.api_key,
        record.event,
        record.code,
        record.asset_id,
        record.public_id,
        record.caller.address[:ADDRESS_LENGTH],
        record.caller.request_id,
        record.count,
    )


def refusal_values(record: AuditRecord) -> tuple[Any, ...]:
    """Of (at, code, address, request_id): what a row that counts refusals takes from the last one."""
    return record.at, record.code, record.caller.address[:ADDRESS_LENGTH], record.caller.request_id


def audit_of(row: tuple[Any, ...]) -> AuditRecord:
    """Of HISTORY_COLUMNS."""
    at, event, code, asset_id, public_id, address, request_id, count = row
    return AuditRecord(at, AuditEvent(event), Caller(address, request_id), code, asset_id, public_id, count)


def grant_values(grant: Grant, now: float) -> dict[str, Any]:
    """What the statements on grants are bound to."""
    return {
        "key": grant.key,
        "cloud": grant.cloud,
        "api_key": grant.api_key,
        "timestamp": grant.timestamp,
        "max_uses": grant.max_uses,
        "keep_until": grant.keep_until,
        "now": int(now),
    }


def grant_of(row: tuple[Any, ...]) -> GrantRecord:
    key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at = row
    return GrantRecord(Grant(key, cloud, api_key, timestamp, max_uses, keep_until), uses, spent_at, revoked_at)


def key_row(key: ApiKey, secrets: SecretBox) -> tuple[Any, ...]:
    return (
        key.api_key,
        key.cloud,
        secrets.encrypt(key.secrets[0], secret_context(key.cloud, key.api_key)),
        None,
        None,
        key.uses,
        key.scope,
        key.window,
        key.name,
        key.allow_v1,
        msgspec.json.encode(key.algorithms).decode(),
        key.created_at,
        key.revoked_at,
        key.watermark,
    )


def key_of(row: tuple[Any, ...], secrets: SecretBox, now: float) -> ApiKey:
    """Return the key at `now` (Unix seconds), without a rotated secret that has expired by then."""
    api_key, cloud, secret, previous, previous_until, uses, scope, window, name, allow_v1, algorithms, *times = row
    ciphers = [secret] if previous is None or previous_until <= now else [secret, previous]
    created_at, revoked_at, watermark = times
    return ApiKey(
        api_key=api_key,
        cloud=cloud,
        secrets=tuple(secrets.decrypt(cipher, secret_context(cloud, api_key)) for cipher in ciphers),
        uses=KeyUses(uses),
        scope=KeyScope(scope),
        window=window,
        name=name,
        allow_v1=bool(allow_v1),
        algorithms=_ALGORITHMS.decode(algorithms),
        created_at=created_at,
        revoked_at=revoked_at,
        watermark=watermark,
    )


def unreadable(rows: Iterable[tuple[Any, ...]], secrets: SecretBox, now: float) -> dict[str, str]:
    """Return the API keys whose secret cannot be decrypted, each with the reason."""
    reasons: dict[str, str] = {}
    for row in rows:
        try:
            key_of(row, secrets, now)
        except SettingRefused as error:
            reasons[row[0]] = error.message
    return reasons


def secret_context(cloud: str, api_key: str) -> str:
    return f"{cloud}/{api_key}"


def reply_row(grant: Grant, draft: Draft, idempotency_key: str, committed: Committed) -> tuple[Any, ...]:
    """Of (grant_key, key_hash, sha256, committed)."""
    told = msgspec.json.encode(replace(committed, unneeded_blob=None)).decode()
    return grant.key, key_hash(idempotency_key), draft.digest.sha256, told


def reply_of(row: tuple[Any, ...]) -> Reply:
    """Of (committed, sha256)."""
    return Reply(_COMMITTED.decode(row[0]), row[1])


def key_hash(idempotency_key: str) -> bytes:
    return hashlib.sha256(idempotency_key.encode()).digest()


def series_row(series: Series) -> tuple[Any, ...]:
    return (
        series.id,
        series.cloud,
        series.api_key,
        series.upload_id,
        series.requested,
        msgspec.json.encode(series.parameters).decode(),
        series.algorithm,
        series.filename,
        series.blob_key,
        series.created_at,
        series.total,
        series.shared,
        series.arrived,
    )


def series_of(
    row: tuple[Any, ...], spans: Iterable[tuple[int, int]], grants: Iterable[tuple[bytes, int, int, int]]
) -> Series:
    """`spans` in ascending order; `grants` as (grant_key, timestamp, max_uses, keep_until)."""
    series_id, cloud, api_key, upload_id, requested, parameters, algorithm, filename, blob_key, *rest = row
    created_at, total, shared, arrived = rest
    return Series(
        id=series_id,
        cloud=cloud,
        api_key=api_key,
        upload_id=upload_id,
        requested=None if requested is None else ResourceType(requested),
        parameters=_PARAMETERS.decode(parameters),
        algorithm=Algorithm(algorithm),
        filename=filename,
        blob_key=blob_key,
        created_at=created_at,
        total=total,
        shared=bool(shared),
        arrived=arrived,
        spans=tuple(Span(start, stop) for start, stop in spans),
        grants=tuple(Grant(key, cloud, api_key, timestamp, uses, until) for key, timestamp, uses, until in grants),
    )


def part_row(series_id: str, part: StoredPart) -> tuple[Any, ...]:
    """Of (series_id, PART_COLUMNS)."""
    return series_id, part.span.start, part.span.end, part.name, part.sha256


def part_of(row: tuple[Any, ...]) -> StoredPart:
    """Of PART_COLUMNS."""
    start, stop, name, sha256 = row
    return StoredPart(Span(start, stop), name, sha256)
