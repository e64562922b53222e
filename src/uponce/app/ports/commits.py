"""What goes into a commit, what comes out of it, and the work that it leaves for later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from uponce.core.errors import GrantRefused, IdempotencyKeyReused
from uponce.core.relaying import Forwarded
from uponce.core.values import Asset, AssetName, Caller, Digest, Grant, MediaFacts


@dataclass(frozen=True, slots=True)
class Draft:
    """An asset that is about to be committed: everything but what the commit itself decides.

    `asset_id` is used when the name is new; an overwritten asset keeps its own. `overwrite` says what happens
    when the name exists: replace it, or leave it and answer with it. `idempotency_key` is the one that the client
    sent, if any: under it the answer is stored. The commit writes `effects` to the outbox.
    An effect has a name, and the details that its handler needs.
    """

    name: AssetName
    asset_id: str
    version_id: str
    blob_key: str
    digest: Digest
    facts: MediaFacts
    tags: tuple[str, ...]
    context: tuple[tuple[str, str], ...]
    original_filename: str | None
    overwrite: bool
    idempotency_key: str | None = None
    effects: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit made: the stored asset and how it came about.

    `unneeded_blob` is a blob that no row names any more: the bytes of the replaced version, or the spooled ones
    when the asset existed and was not to be overwritten. Deleting it is left to the caller, and to the sweeper.
    `replayed`: nothing was made, this is what an earlier upload with the same Idempotency-Key was answered.
    """

    asset: Asset
    existing: bool = False
    overwritten: bool = False
    unneeded_blob: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class AfterCommit:
    """The details of an effect that a commit left: what the draft said, and what came of it. `api_key` signed it."""

    details: str
    api_key: str
    request_id: str
    committed: Committed


@dataclass(frozen=True, slots=True)
class Reply:
    """What an upload with an Idempotency-Key was answered, and the SHA-256 of its bytes.

    A record of the past: the asset may have been overwritten or deleted since.
    """

    answer: Committed | Forwarded
    sha256: str

    def repeat(self, sha256: str) -> Committed | Forwarded:
        """The answer to an upload of these bytes; IdempotencyKeyReused when they are other bytes."""
        if sha256 != self.sha256:
            raise IdempotencyKeyReused(
                "This Idempotency-Key was already sent with this signature, for a file with other bytes than this one "
                f"(SHA-256 {sha256}). Repeat with the same file, or upload this one with a new signature and a new key."
            )
        return replace(self.answer, replayed=True)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An upload whose bytes are durable and that only has to be committed."""

    grant: Grant
    draft: Draft
    caller: Caller


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused use of a genuine signature, which the audit has to note."""

    grant: Grant
    caller: Caller
    error: GrantRefused


@dataclass(frozen=True, slots=True)
class Effect:
    """Work that a transaction left for later. `name` says which, `subject` on what. Times in Unix seconds.

    `details` is what the work needs to know, in a form of its own. Effects of one subject run one after the other. A
    `dead` one waits for an operator. `now` is the moment of the claim, by the database's clock.
    """

    id: int
    name: str
    subject: str
    due_at: int
    tries: int
    created_at: int
    error: str = ""
    dead: bool = False
    now: int = 0
    details: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many uploads are pending in an upstream, and how many effects wait for an operator."""

    pending: int
    dead: int


class Outbox(Protocol):
    """Effects, each run at least once."""

    async def claim_effects(self, name: str, most: int, lease: int) -> Sequence[Effect]:
        """Take effects of this name that are due, oldest first, and of each subject its first only. No other claim
        gets them for `lease` seconds. Each claim counts as a try."""

    async def finish_effect(self, effect_id: int) -> None: ...

    async def postpone_effect(self, effect_id: int, seconds: int, error: str = "", *, dead: bool = False) -> None:
        """Run it again after so many seconds, or when an operator says so if it is `dead`."""

    async def hasten_effect(self, subject: str) -> None:
        """The effects of a subject are due now."""

    async def list_effects(self, limit: int) -> Sequence[Effect]:
        """Dead ones first, then by their time."""

    async def count_waiting(self) -> Waiting: ...

    async def retry_effects(self, effect_id: int | None = None) -> int:
        """Make one, or all that are dead, due now and alive. Return how many.

        All are many transactions, between which other writes go on.
        """

    async def drop_dead_effects(self, name: str, effect_id: int | None = None) -> int:
        """Delete the dead effects of this name, or one of them. Return how many. Transactions as for `retry_effects`.

        Never drop look-ups of a relay: each holds a pending signature.
        """
