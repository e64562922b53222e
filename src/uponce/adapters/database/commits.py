"""What one commit runs: spend a grant with an upload or a deletion, with all that goes with it, or record a refusal.

All of it or none is written: the use, the asset, the audit row, the reply for repeats and the effects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from uponce.adapters.database import outbox
from uponce.adapters.database.steps import (
    Ask,
    Params,
    Row,
    Rows,
    Rules,
    Runner,
    Steps,
    json_text,
    of_grant,
    of_name,
    operation,
    runs,
)
from uponce.app.ports import AfterCommit, Candidate, Committed, Draft, Refusal, StoredReply
from uponce.core.errors import BlobCondemned, GrantRefused, UnknownApiKey, UponceError
from uponce.core.refusals import refusal_of
from uponce.core.relaying import Forwarded, repeat_hash
from uponce.core.signature import check_watermark, utc
from uponce.core.values import (
    Asset,
    AssetName,
    AuditEvent,
    AuditRecord,
    Caller,
    DeliveryType,
    Digest,
    Grant,
    GrantRecord,
    MediaFacts,
    ResourceType,
)

_UPLOAD, _CALL = "an upload", "a call"
_TOLD_SECONDS = 3600

# The longest text of an IP address: IPv6 with an IPv4 address inside.
ADDRESS_LENGTH = 45


@dataclass(frozen=True, slots=True)
class _Answer:
    """The content of a reply: one of the two."""

    committed: Committed | None = None
    forwarded: Forwarded | None = None


# Made at import, by one thread. If two threads are the first to decode a dataclass, msgspec 0.22 may give one of them a
# type that the other is still building. That ends the process.
_FACTS = msgspec.json.Decoder(MediaFacts)
_TAGS = msgspec.json.Decoder(tuple[str, ...])
_PAIRS = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_ANSWER = msgspec.json.Decoder(_Answer)


def _locks_of_upload(grant: Grant, draft: Draft, *_: object) -> tuple[int, int]:
    return of_name(draft.asset.name), of_grant(grant.key)


@operation(rules=Rules.SHARED, grouped=True, locks=_locks_of_upload)
def commit(now: float, grant: Grant, draft: Draft, caller: Caller) -> Steps[Committed]:
    repeated = draft.idempotency_key
    asks = [ask_watermark(grant), ("find_condemned", {"blob_key": draft.asset.blob_key}), ask_asset(draft.asset.name)]
    if repeated is not None:
        asks.append(ask_reply(grant.key, repeated))
    keys, condemned, old, *replies = yield asks
    check_key(grant, keys)
    before = repetition(reply_of(replies[0][0]), draft) if replies and replies[0] else None
    if before is not None:
        return before
    if condemned:
        (records,) = yield [ask_grant(grant.key)]
        check_usable(first_grant(records), grant)  # a final refusal first: its client must not upload again
        raise refuse_condemned()
    yield from _spend(grant, now, _UPLOAD)
    committed = publication(draft, asset_of(old[0]) if old else None, now)
    yield publishing([grant], committed, draft, caller, now)
    return committed


def publication(draft: Draft, old: Asset | None, now: float) -> Committed:
    """Return the result of a commit: a new asset, a new version of the asset of that name, or that asset unchanged.

    A version grows even if the clock steps back.
    """
    if old is not None and not draft.overwrite:
        size = draft.asset.digest.size
        return Committed(old, existing=True, unneeded_blob=draft.asset.blob_key, received=size)
    if old is None:
        return Committed(_dated(draft.asset, int(now)))
    version = max(int(now), old.version + 1)
    asset = replace(draft.asset, asset_id=old.asset_id, version=version, created_at=old.created_at)
    return Committed(asset, overwritten=True, unneeded_blob=old.blob_key)


def _dated(asset: Asset, at: int) -> Asset:
    """Return the asset, made at this time. It takes half as long as `replace`, while all other uploads wait."""
    return Asset(
        asset.name,
        asset.asset_id,
        at,
        asset.version_id,
        at,
        asset.blob_key,
        asset.digest,
        asset.facts,
        asset.tags,
        asset.context,
        asset.original_filename,
    )


def publishing(grants: Sequence[Grant], committed: Committed, draft: Draft, caller: Caller, now: float) -> list[Ask]:
    """Return the writes of an upload whose grants are spent: its asset, its audit rows, its replies and its effects.

    An existing asset that was not overwritten is not written again, and the audit says `existing`. No later transaction
    could add a reply. The effects of one asset run in the order of its commits.
    """
    writes: list[Ask] = [] if committed.existing else [("put_asset", asset_params(committed.asset))]
    code = "existing" if committed.existing else ""
    note = _note_of(AuditEvent.SPENT, committed.asset, caller, now, code)
    for grant in grants:
        writes.append(("write_audit", audit_params(grant, note)))
        if draft.idempotency_key is not None:
            key_hash = repeat_hash(draft.idempotency_key)
            writes.append(("keep_reply", reply_params(grant, key_hash, draft.asset.digest, committed)))
    for effect in draft.effects:
        stored = replace(committed, unneeded_blob=None)
        after = AfterCommit(effect.details, grants[0].api_key, caller.request_id, stored)
        left = replace(effect, details=json_text(after))
        writes.append(outbox.adding(left, committed.asset.asset_id, now))
    return writes


@operation(rules=Rules.SHARED, grouped=True, locks=lambda grant, name, caller: (of_name(name), of_grant(grant.key)))
def delete(now: float, grant: Grant, name: AssetName, caller: Caller) -> Steps[Asset | None]:
    keys, found, records = yield [ask_watermark(grant), ask_asset(name), ask_grant(grant.key)]
    check_key(grant, keys)
    if not found:
        check_usable(first_grant(records), grant, by=_CALL)
        return None
    yield from _spend(grant, now, _CALL)
    asset = asset_of(found[0])
    yield [
        ("drop_asset", {"asset_id": asset.asset_id}),
        ("write_audit", audit_params(grant, _note_of(AuditEvent.DELETED, asset, caller, now))),
    ]
    return asset


def _spend(grant: Grant, now: float, by: str) -> Steps[None]:
    """Take one use. Raise SignatureUsed or SignatureRevoked if none is left."""
    (taken,) = yield [("spend_grant", grant_params(grant, now))]
    if not taken:
        # A separate statement: the first may have waited for another transaction, which its own snapshot does not show.
        (records,) = yield [ask_grant(grant.key)]
        check_usable(first_grant(records), grant, by=by)
        raise AssertionError("a use is left")


@operation(grouped=True, locks=lambda grant, code, caller, most=20: (of_grant(grant.key),))
def refuse(now: float, grant: Grant, code: str, caller: Caller, most: int = 20) -> Steps[None]:
    ((known,),) = yield [("count_refusals", {"grant_key": grant.key})]
    row = audit_params(grant, AuditRecord(int(now), AuditEvent.REFUSED, caller, code))
    if known["refusals"] <= most:
        yield [("write_audit", row)]
        return
    counted = {name: row[name] for name in ("at", "code", "address", "request_id")}
    yield [("add_refusal", counted | {"last": known["last"]})]


def _locks_of_arrival(made: Candidate | Refusal, most: int) -> tuple[int, ...]:
    return _locks_of_upload(made.grant, made.draft) if isinstance(made, Candidate) else (of_grant(made.grant.key),)


@operation(rules=Rules.SHARED, grouped=True, locks=_locks_of_arrival)
def commit_or_refuse(now: float, made: Candidate | Refusal, most: int) -> Steps[Committed | UponceError]:
    """Commit an upload that took its steps, or record its refusal. Return that refusal: its audit row stays."""
    if isinstance(made, Refusal):
        yield from refuse.steps(now, made.grant, made.error.code, made.caller, most)
        return made.error
    try:
        return (yield from commit.steps(now, made.grant, made.draft, made.caller))
    except GrantRefused as error:
        refusal = error
    yield from refuse.steps(now, made.grant, refusal.code, made.caller, most)
    return refusal


def refuse_condemned() -> BlobCondemned:
    return BlobCondemned(
        "This upload took so long that the server removed its bytes. The signature is not spent. Upload the file again."
    )


def ask_watermark(grant: Grant) -> Ask:
    return "find_watermark", {"api_key": grant.api_key, "cloud": grant.cloud}


def ask_grant(key: bytes) -> Ask:
    return "find_grant", {"grant_key": key}


def first_grant(records: Rows) -> GrantRecord | None:
    return grant_of(records[0]) if records else None


def check_key(grant: Grant, keys: Rows, *, watermark: bool = True) -> None:
    """Raise UnknownApiKey if the key is revoked by now, StaleRequest if a purge may have dropped the grant's row.

    `keys` is the result of `ask_watermark`. Without `watermark`, only the revocation is checked. The watermark is an
    additional safeguard: rows are kept for longer than an upload may last, unless the clock was stepped.
    """
    if not keys:
        raise UnknownApiKey(f"Unknown API key {grant.api_key}. It was revoked during the request.")
    if watermark:
        check_watermark(grant.timestamp, keys[0]["watermark"])


def check_usable(record: GrantRecord | None, grant: Grant, *, by: str = _UPLOAD) -> None:
    """Raise SignatureUsed or SignatureRevoked if the grant's row says so. A grant without a row can be used."""
    refusal = record and refusal_of(record, grant.max_uses, by=by)
    if refusal:
        raise refusal


def check_all_usable(grants: Sequence[Grant], records: Sequence[Rows]) -> None:
    """Raise the refusal of the first grant that cannot be used. `records` has the result of `ask_grant` for each."""
    for grant, found in zip(grants, records, strict=True):
        try:
            check_usable(first_grant(found), grant)
        except GrantRefused as refusal:
            if len(grants) == 1:
                raise
            message = f"It is the signature of {utc(grant.timestamp)}, one of {len(grants)} of this upload."
            raise type(refusal)(f"{refusal.message} {message}") from None


def kept_until(grant: Grant, now: float) -> Grant:
    """Return the grant with a later end, so that the ledger still knows the outcome of a long upload for a while."""
    return replace(grant, keep_until=max(grant.keep_until, int(now) + _TOLD_SECONDS))


def _note_of(event: AuditEvent, asset: Asset, caller: Caller, now: float, code: str = "") -> AuditRecord:
    return AuditRecord(int(now), event, caller, code, asset.asset_id, asset.name.public_id)


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


def grant_in(row: Row) -> Grant:
    return Grant(row["grant_key"], row["cloud"], row["api_key"], row["timestamp"], row["max_uses"], row["keep_until"])


def grant_of(row: Row) -> GrantRecord:
    return GrantRecord(grant_in(row), row["uses"], row["spent_at"], row["revoked_at"], row["pending"])


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


def ask_asset(name: AssetName) -> Ask:
    return "find_asset", _name_params(name)


def _name_params(name: AssetName) -> Params:
    return {"cloud": name.cloud, "resource_type": name.resource_type, "type": name.type, "public_id": name.public_id}


def asset_params(asset: Asset) -> Params:
    return _name_params(asset.name) | {
        "asset_id": asset.asset_id,
        "version": asset.version,
        "version_id": asset.version_id,
        "created_at": asset.created_at,
        "blob_key": asset.blob_key,
        "bytes": asset.digest.size,
        "md5": asset.digest.md5,
        "sha256": asset.digest.sha256,
        "facts": json_text(asset.facts),
        "tags": json_text(asset.tags),
        "context": json_text(asset.context),
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


def ask_reply(grant_key: bytes, idempotency_key: str) -> Ask:
    return "find_reply", {"grant_key": grant_key, "key_hash": repeat_hash(idempotency_key)}


def repetition(reply: StoredReply, draft: Draft) -> Committed | None:
    """Return the answer to the first upload under that Idempotency-Key. Raise IdempotencyKeyReused for other bytes.

    Return None if that upload was passed on to an upstream: then the spend decides.
    """
    answer = reply.repeat(draft.asset.digest.sha256)
    return replace(answer, unneeded_blob=draft.asset.blob_key) if isinstance(answer, Committed) else None


def reply_params(grant: Grant, key_hash: bytes, digest: Digest, answer: Committed | Forwarded) -> Params:
    """Return the row with the answer to an upload of these bytes. `key_hash` is a `repeat_hash`."""
    stored = _Answer(forwarded=answer) if isinstance(answer, Forwarded) else _Answer(committed=answer)
    return {
        "grant_key": grant.key,
        "key_hash": key_hash,
        "sha256": digest.sha256,
        "answer": json_text(stored),
        "keep_until": grant.keep_until,
    }


def reply_of(row: Row) -> StoredReply:
    stored = _ANSWER.decode(row["answer"])
    answer = stored.committed or stored.forwarded
    assert answer is not None
    return StoredReply(answer, row["sha256"])


class CommitMethods(Runner):
    commit = runs(commit)
    delete = runs(delete)
    record_refusal = runs(refuse)
