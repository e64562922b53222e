"""What is decided from the rows that were found, alike on every engine. Pure."""

from dataclasses import replace

from uponce.app.ports import Committed, Draft, Reply
from uponce.core.errors import (
    BlobCondemned,
    GrantRefused,
    SeriesGone,
    SignatureInUse,
    TooManySeries,
    UnknownApiKey,
)
from uponce.core.freshness import check_watermark, utc
from uponce.core.refusals import WHY_SIGNATURES_COLLIDE, refusal_of
from uponce.core.relaying import Forwarded, Relay
from uponce.core.values import Asset, AuditEvent, AuditRecord, Caller, Grant, GrantRecord

_IN_SERIES_SECONDS = 60
_TOLD_SECONDS = 3600


def check_key(grant: Grant, *, known: bool, watermark: int | None) -> None:
    """UnknownApiKey when the key was revoked meanwhile; StaleRequest when a purge may have dropped the grant's row.

    The latter is a belt: rows are kept for longer than an upload may last, unless the clock was stepped.
    """
    if not known:
        raise UnknownApiKey(f"Unknown API key {grant.api_key}. It was revoked during the request.")
    check_watermark(grant.timestamp, watermark)


def refuse_condemned() -> BlobCondemned:
    return BlobCondemned(
        "This upload took so long that the server removed its bytes. The signature is not spent. Upload the file again."
    )


def refuse_spent(record: GrantRecord | None, grant: Grant, *, by: str = "an upload") -> GrantRefused:
    """Why no use could be taken of a grant whose row is this."""
    assert record is not None
    refusal = refusal_of(record, grant.max_uses, by=by)
    assert refusal is not None
    return refusal


def check_usable(record: GrantRecord | None, grant: Grant, *, by: str = "an upload") -> None:
    """SignatureUsed or SignatureRevoked by the grant's row, if there is one."""
    refusal = record and refusal_of(record, grant.max_uses, by=by)
    if refusal:
        raise refusal


def publication(draft: Draft, old: Asset | None, now: float) -> Committed:
    """A new asset, a new version of the one of that name, or that one as it is.

    A clock that steps back does not turn versions back.
    """
    if old is not None and not draft.overwrite:
        return Committed(old, existing=True, unneeded_blob=draft.blob_key)
    asset = Asset(
        name=draft.name,
        asset_id=old.asset_id if old else draft.asset_id,
        version=max(int(now), old.version + 1) if old else int(now),
        version_id=draft.version_id,
        created_at=old.created_at if old else int(now),
        blob_key=draft.blob_key,
        digest=draft.digest,
        facts=draft.facts,
        tags=draft.tags,
        context=draft.context,
        original_filename=draft.original_filename,
    )
    return Committed(asset, overwritten=old is not None, unneeded_blob=old.blob_key if old else None)


def repetition(reply: Reply, draft: Draft) -> Committed | None:
    """What the first upload under that Idempotency-Key was told; IdempotencyKeyReused when this one has other bytes.

    None if that one was passed on to an upstream: then the spend decides.
    """
    answer = reply.repeat(draft.digest.sha256)
    return replace(answer, unneeded_blob=draft.blob_key) if isinstance(answer, Committed) else None


def forwarding(relay: Relay, answer: Forwarded, code: str, now: float) -> AuditRecord:
    return AuditRecord(
        int(now), AuditEvent.SPENT, relay.caller, code=code, asset_id=answer.asset_id, public_id=answer.public_id
    )


def note_of(event: AuditEvent, asset: Asset, caller: Caller, now: float) -> AuditRecord:
    return AuditRecord(int(now), event, caller, asset_id=asset.asset_id, public_id=asset.name.public_id)


def check_room(count: int, limit: int, where: str) -> None:
    """TooManySeries when so many are unfinished already."""
    if count >= limit:
        raise TooManySeries(
            f"{limit} uploads {where} are unfinished, and {limit} are allowed. Finish one, send the file in one "
            "request, or try again later."
        )


def check_joins(grant: Grant, record: GrantRecord | None, holders: int) -> None:
    """SignatureUsed or SignatureRevoked by the grant's row; SignatureInUse when `holders`, the series that have it,
    will need all uses that are left."""
    check_usable(record, grant)
    if holders >= grant.max_uses - (record.uses if record else 0):
        raise SignatureInUse(
            "This signature belongs to another upload, which is not complete yet. Resume that upload, or ask for a "
            f"new signature. {WHY_SIGNATURES_COLLIDE}",
            retry_after=_IN_SERIES_SECONDS,
        )


def kept_until(grant: Grant, now: float) -> Grant:
    """Return the grant with a later end, so that the ledger can still say what became of a long upload."""
    return replace(grant, keep_until=max(grant.keep_until, int(now) + _TOLD_SECONDS))


def refuse_one_of(count: int, grant: Grant, refusal: GrantRefused) -> GrantRefused:
    """The refusal of an upload with so many grants for one of them, which it names."""
    if count == 1:
        return refusal
    return type(refusal)(
        f"{refusal.message} It is the signature of {utc(grant.timestamp)}, one of {count} of this upload."
    )


def series_gone() -> SeriesGone:
    return SeriesGone(
        "This upload is complete or was ended, so it takes no more bytes. To send another file, begin with a new "
        "signature."
    )
