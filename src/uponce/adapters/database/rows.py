"""Rows of the tables ↔ values, alike on every engine. Columns and parameters of statements have the same names."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import msgspec

from uponce.adapters.database.steps import Row
from uponce.app.ports import AfterCommit, Committed, Draft, Effect, Reply
from uponce.core.relaying import Forwarded, Relay
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.upstream import Target, parse_upstream, url_of
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
    Upstream,
)

Params: TypeAlias = dict[str, Any]

# The longest text of an IP address: IPv6 with an IPv4 address inside.
ADDRESS_LENGTH = 45


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a reply holds: one of the two."""

    committed: Committed | None = None
    forwarded: Forwarded | None = None


# Made at import, by one thread: when two threads are the first to decode a dataclass, msgspec 0.22 may show one of them
# what the other is still building, and the process dies of it.
_FACTS = msgspec.json.Decoder(MediaFacts)
_TAGS = msgspec.json.Decoder(tuple[str, ...])
_PAIRS = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_ANSWER = msgspec.json.Decoder(_Answer)
_ALGORITHMS = msgspec.json.Decoder(tuple[Algorithm, ...])
_SPANS = msgspec.json.Decoder(tuple[tuple[int, int], ...])
_GRANTS = msgspec.json.Decoder(tuple[tuple[str, int, int, int], ...])
_TARGET = msgspec.json.Decoder(Target)
_RELAY_GRANTS = msgspec.json.Decoder(tuple[tuple[str, str, int, int, int], ...])


class SecretBox(Protocol):
    """Encrypts API secrets. A text that was encrypted in one context does not decrypt in another."""

    def make_key(self) -> None:
        """Make the key unless it exists."""

    def encrypt(self, plain: str, context: str) -> bytes: ...

    def decrypt(self, cipher: bytes, context: str) -> str: ...


def name_params(name: AssetName) -> Params:
    return {"cloud": name.cloud, "resource_type": name.resource_type, "type": name.type, "public_id": name.public_id}


def asset_params(asset: Asset) -> Params:
    return name_params(asset.name) | {
        "asset_id": asset.asset_id,
        "version": asset.version,
        "version_id": asset.version_id,
        "created_at": asset.created_at,
        "blob_key": asset.blob_key,
        "bytes": asset.digest.size,
        "md5": asset.digest.md5,
        "sha256": asset.digest.sha256,
        "facts": _json(asset.facts),
        "tags": _json(asset.tags),
        "context": _json(asset.context),
        "original_filename": asset.original_filename,
    }


def asset_of(row: Row) -> Asset:
    return Asset(
        name=AssetName(row["cloud"], ResourceType(row["resource_type"]), DeliveryType(row["type"]), row["public_id"]),
        asset_id=row["asset_id"],
        version=row["version"],
        version_id=row["version_id"],
        created_at=row["created_at"],
        blob_key=row["blob_key"],
        digest=Digest(row["bytes"], row["md5"], row["sha256"]),
        facts=_FACTS.decode(row["facts"]),
        tags=_TAGS.decode(row["tags"]),
        context=_PAIRS.decode(row["context"]),
        original_filename=row["original_filename"],
    )


def context_part(key: str, value: str | None) -> str:
    """Return the text that the column `context` has where an asset has this pair, or any pair of this key.

    Other contexts may have the text too, across the border of two strings.
    """
    return f"{_json((key,))[:-1]}," if value is None else _json((key, value))


def audit_params(grant: Grant, record: AuditRecord) -> Params:
    return {
        "at": record.at,
        "grant_key": grant.key,
        "cloud": grant.cloud,
        "api_key": grant.api_key,
        "event": record.event,
        "code": record.code,
        "asset_id": record.asset_id,
        "public_id": record.public_id,
        "address": record.caller.address[:ADDRESS_LENGTH],
        "request_id": record.caller.request_id,
        "count": record.count,
    }


def audit_of(row: Row) -> AuditRecord:
    return AuditRecord(
        at=row["at"],
        event=AuditEvent(row["event"]),
        caller=Caller(row["address"], row["request_id"]),
        code=row["code"],
        asset_id=row["asset_id"],
        public_id=row["public_id"],
        count=row["count"],
    )


def grant_params(grant: Grant, now: float) -> Params:
    return {
        "grant_key": grant.key,
        "cloud": grant.cloud,
        "api_key": grant.api_key,
        "timestamp": grant.timestamp,
        "max_uses": grant.max_uses,
        "keep_until": grant.keep_until,
        "now": int(now),
    }


def grant_of(row: Row) -> GrantRecord:
    grant = Grant(row["grant_key"], row["cloud"], row["api_key"], row["timestamp"], row["max_uses"], row["keep_until"])
    return GrantRecord(grant, row["uses"], row["spent_at"], row["revoked_at"], row["pending"])


def key_params(key: ApiKey, secrets: SecretBox) -> Params:
    return {
        "api_key": key.api_key,
        "cloud": key.cloud,
        "secret": secrets.encrypt(key.secrets[0], secret_context(key.cloud, key.api_key)),
        "uses": key.uses,
        "scope": key.scope,
        "window_seconds": key.window,
        "name": key.name,
        "allow_v1": int(key.allow_v1),
        "algorithms": _json(key.algorithms),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "watermark": key.watermark,
    }


def key_of(row: Row, secrets: SecretBox, now: float) -> ApiKey:
    """Return the key at `now` (Unix seconds), without a rotated secret that has expired by then."""
    rotated = row["previous_secret"] is not None and row["previous_until"] > now
    ciphers = [row["secret"], *([row["previous_secret"]] if rotated else [])]
    context = secret_context(row["cloud"], row["api_key"])
    return ApiKey(
        api_key=row["api_key"],
        cloud=row["cloud"],
        secrets=tuple(secrets.decrypt(cipher, context) for cipher in ciphers),
        uses=KeyUses(row["uses"]),
        scope=KeyScope(row["scope"]),
        window=row["window_seconds"],
        name=row["name"],
        allow_v1=bool(row["allow_v1"]),
        algorithms=_ALGORITHMS.decode(row["algorithms"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        watermark=row["watermark"],
        upstream=None if row["url"] is None else upstream_of(row, secrets),
    )


def upstream_params(cloud: str, upstream: Upstream, secrets: SecretBox) -> Params:
    cipher = secrets.encrypt(upstream.secret, _upstream_context(cloud))
    return {"cloud": cloud, "url": url_of(upstream), "url_secret": cipher}


def upstream_of(row: Row, secrets: SecretBox) -> Upstream:
    """Return the upstream of the row's cloud. SettingRefused if its secret cannot be decrypted."""
    return parse_upstream(row["url"], secrets.decrypt(row["url_secret"], _upstream_context(row["cloud"])))


def _upstream_context(cloud: str) -> str:
    return f"{cloud}/upstream"


def secret_context(cloud: str, api_key: str) -> str:
    return f"{cloud}/{api_key}"


def repeat_params(grant_key: bytes, idempotency_key: str) -> Params:
    return {"grant_key": grant_key, "key_hash": hashlib.sha256(idempotency_key.encode()).digest()}


def reply_params(grant: Grant, draft: Draft, idempotency_key: str, committed: Committed) -> Params:
    answer = _Answer(committed=replace(committed, unneeded_blob=None))
    return _reply_params(grant, draft.digest, answer) | repeat_params(grant.key, idempotency_key)


def effect_details(after: AfterCommit) -> str:
    """Return the details of an effect that a commit leaves."""
    return _json(replace(after, committed=replace(after.committed, unneeded_blob=None)))


def relayed_reply_params(grant: Grant, relay: Relay, forwarded: Forwarded) -> Params:
    return _reply_params(grant, relay.digest, _Answer(forwarded=forwarded)) | {"key_hash": relay.key_hash}


def _reply_params(grant: Grant, digest: Digest, answer: _Answer) -> Params:
    return {"grant_key": grant.key, "sha256": digest.sha256, "answer": _json(answer), "keep_until": grant.keep_until}


def reply_of(row: Row) -> Reply:
    stored = _ANSWER.decode(row["answer"])
    answer = stored.committed or stored.forwarded
    assert answer is not None
    return Reply(answer, row["sha256"])


def target_part(name: str) -> str:
    """Return the text that the column `target` has where an upload has this name or marker in the upstream."""
    return _json(name)


def relay_params(relay: Relay) -> Params:
    return {
        "relay_id": relay.id,
        "cloud": relay.cloud,
        "target": _json(relay.target),
        "bytes": relay.digest.size,
        "md5": relay.digest.md5,
        "sha256": relay.digest.sha256,
        "address": relay.caller.address[:ADDRESS_LENGTH],
        "request_id": relay.caller.request_id,
        "key_hash": relay.key_hash,
        "pending_at": relay.pending_at,
        "misses": relay.misses,
    }


def relay_of(row: Row) -> Relay:
    cloud = row["cloud"]
    return Relay(
        id=row["relay_id"],
        cloud=cloud,
        grants=tuple(
            Grant(bytes.fromhex(key), cloud, api_key, timestamp, max_uses, keep_until)
            for key, api_key, timestamp, max_uses, keep_until in _RELAY_GRANTS.decode(row["grants"])
        ),
        target=_TARGET.decode(row["target"]),
        digest=Digest(row["bytes"], row["md5"], row["sha256"]),
        caller=Caller(row["address"], row["request_id"]),
        key_hash=row["key_hash"],
        pending_at=row["pending_at"],
        misses=row["misses"],
    )


def effect_of(row: Row) -> Effect:
    """Return the effect of a row, whose columns have the names of the fields."""
    return Effect(**dict(row) | {"dead": bool(row["dead"])})


def series_params(series: Series) -> Params:
    return {
        "id": series.id,
        "cloud": series.cloud,
        "api_key": series.api_key,
        "upload_id": series.upload_id,
        "requested": series.requested,
        "parameters": _json(series.parameters),
        "algorithm": series.algorithm,
        "filename": series.filename,
        "blob_key": series.blob_key,
        "created_at": series.created_at,
        "total": series.total,
        "shared": int(series.shared),
        "arrived": series.arrived,
        "spans": spans_text(series.spans),
    }


def spans_text(spans: Iterable[Span]) -> str:
    return _json([(span.start, span.end) for span in spans])


def series_of(row: Row) -> Series:
    """Return the series of a row, whose columns have the names of the fields."""
    cloud, api_key = row["cloud"], row["api_key"]
    read = {
        "requested": None if row["requested"] is None else ResourceType(row["requested"]),
        "parameters": _PAIRS.decode(row["parameters"]),
        "algorithm": Algorithm(row["algorithm"]),
        "shared": bool(row["shared"]),
        "spans": tuple(Span(start, stop) for start, stop in _SPANS.decode(row["spans"])),
        "grants": tuple(
            Grant(bytes.fromhex(key), cloud, api_key, timestamp, max_uses, keep_until)
            for key, timestamp, max_uses, keep_until in _GRANTS.decode(row["grants"])
        ),
    }
    return Series(**dict(row) | read)


def part_params(series_id: str, part: StoredPart) -> Params:
    return {
        "series_id": series_id,
        "start": part.span.start,
        "stop": part.span.end,
        "name": part.name,
        "sha256": part.sha256,
    }


def part_of(row: Row) -> StoredPart:
    return StoredPart(Span(row["start"], row["stop"]), row["name"], row["sha256"])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
