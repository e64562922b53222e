"""The input of a commit, its result, and the work that it leaves for later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from uponce.core.errors import GrantRefused, IdempotencyKeyReused
from uponce.core.relaying import Forwarded
from uponce.core.values import Asset, Caller, Grant


@dataclass(frozen=True, slots=True)
class NewEffect:
    """Work that a transaction leaves for later: `name` is its kind, and `details` is what its handler needs to know.

    Effects of one `receiver` leave places for those of others. It is never empty.
    """

    name: str
    receiver: str
    details: str = ""


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
class Reply:
    """The answer to an upload with an Idempotency-Key, and the SHA-256 of its bytes. Its asset may be gone by now."""

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


@dataclass(frozen=True, slots=True)
class Effect:
    """A NewEffect that was written: `subject` is its object. Times in Unix seconds.

    Effects of one subject run one after the other. A `dead` effect waits for an operator. A claim notes its moment
    `now`, by the database's clock, and how many seconds the effect had `waited` since it was due.
    """

    id: int
    name: str
    receiver: str
    subject: str
    due_at: int
    tries: int
    created_at: int
    error: str = ""
    dead: bool = False
    now: int = 0
    waited: int = 0
    details: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many uploads are pending in an upstream, and how many effects wait for a server or for an operator."""

    pending: int
    live: int
    dead: int


class Outbox(Protocol):
    """Effects, each run at least once."""

    async def list_receivers(self, name: str, after: str, most: int) -> Sequence[str]:
        """Return receivers of due effects of this name, in order: those after the receiver `after`, then the others."""

    async def claim_effects(self, name: str, shares: Mapping[str, int], lease: int) -> Sequence[Effect]:
        """Take due effects of this name: of each receiver at most its share, oldest first, one of each subject.

        No other claim gets them for `lease` seconds. Each claim counts as a try.
        """

    async def finish_effect(self, effect_id: int) -> None: ...

    async def postpone_effect(self, effect: Effect, seconds: int, error: str = "", *, dead: bool = False) -> None:
        """Run a claimed effect again after so many seconds. If it is `dead`, run it only when an operator asks for it.

        Do nothing if the effect was made due during its run, or was claimed again.
        """

    async def hasten_effect(self, subject: str) -> None:
        """Make the effects of a subject due now."""

    async def find_effect(self, effect_id: int) -> Effect | None: ...

    async def list_effects(self, limit: int) -> Sequence[Effect]:
        """Return the effects, dead ones first, then in the order of their time."""

    async def count_waiting(self) -> Waiting: ...

    async def retry_effects(self, effect_id: int | None = None) -> int:
        """Make one effect, or all dead ones, due now and alive. Return their number.

        For all, this takes many transactions. Other writes go on between them.
        """

    async def drop_dead_effects(self, name: str, effect_id: int | None = None) -> int:
        """Delete the dead effects of this name, or one of them. Return their number.

        Transactions as for `retry_effects`. Never drop look-ups of a relay: each holds a pending signature.
        """
