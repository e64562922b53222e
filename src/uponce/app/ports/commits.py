"""The input of a commit, its result, and what it stores for later."""

from dataclasses import dataclass, replace

from uponce.app.ports.outbox import NewEffect
from uponce.core.errors import GrantRefused, IdempotencyKeyReused
from uponce.core.relaying import Forwarded
from uponce.core.values import Asset, Caller, Grant


@dataclass(frozen=True, slots=True)
class Draft:
    """An asset that is about to be committed. The commit decides its `version` and `created_at`: here they are 0.

    Its `asset_id` is used if the name is new; an overwritten asset keeps its own. `overwrite` decides what happens if
    the name exists: replace the asset, or keep it and answer with it. `idempotency_key` is the client's; the commit
    stores the answer under it. The commit writes `effects` to the outbox.
    """

    asset: Asset
    overwrite: bool
    idempotency_key: str | None = None
    effects: tuple[NewEffect, ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a commit: the stored asset, and how it was stored.

    `unneeded_blob` is a blob that no row names any more: the bytes of the replaced version, or the new bytes if the
    asset existed and was not overwritten. The caller deletes it, or else the sweeper. `replayed`: nothing was stored;
    this is the answer of an earlier upload with the same Idempotency-Key. `received` is the number of bytes that the
    client sent, or None if they are those of the asset.
    """

    asset: Asset
    existing: bool = False
    overwritten: bool = False
    unneeded_blob: str | None = None
    replayed: bool = False
    received: int | None = None


@dataclass(frozen=True, slots=True)
class AfterCommit:
    """The details of an effect that a commit left: those of the draft, and the result. `api_key` signed the upload."""

    details: str
    api_key: str
    request_id: str
    committed: Committed


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The answer to an upload with an Idempotency-Key, and the SHA-256 of its bytes. Its asset may be gone by now.

    If the asset existed before, the answer's `unneeded_blob` has the bytes of the upload. Else the asset has them.
    """

    answer: Committed | Forwarded
    sha256: str

    def repeat(self, sha256: str) -> Committed | Forwarded:
        """Return the answer to an upload of these bytes. Raise IdempotencyKeyReused if they are other bytes."""
        if sha256 != self.sha256:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was already sent with this signature, for a file with other bytes than this one "
                f"(SHA-256 {sha256}). Repeat with the same file, or upload this one with a new signature and a new key."
            )
        return replace(self.answer, replayed=True)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An upload whose bytes are durable. Only its commit is left."""

    grant: Grant
    draft: Draft
    caller: Caller


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused use of a genuine signature, to be written to the audit."""

    grant: Grant
    caller: Caller
    error: GrantRefused
