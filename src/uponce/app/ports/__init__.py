"""The ports: what the use cases need from the outside world.

Ports use domain values. "Not found" is None where it is ordinary. No HTTP type and no driver's exception crosses a
port: a failure arrives as an error of core/errors.py.
"""

from typing import Protocol

from uponce.app.ports.blobs import (
    PLACES,
    Assembly,
    BlobStore,
    Body,
    HeldPart,
    HoldSmall,
    LateGroup,
    LocationOf,
    OpenBlob,
    Parts,
    Presigner,
    Publishable,
    PutGroup,
    Spooled,
    SpooledChunk,
    StoredBlob,
)
from uponce.app.ports.commits import AfterCommit, Candidate, Committed, Draft, Refusal, StoredReply
from uponce.app.ports.database import CONTEXT_WINDOW, Database, MovedRow, Page, Prepare, Records, Table
from uponce.app.ports.outbox import Effect, NewEffect, Outbox, Waiting
from uponce.app.ports.relaying import AdminCall, Sign, UpstreamCall, UpstreamClient, UpstreamReply
from uponce.app.ports.upkeep import Fault, Rule
from uponce.core.values import MediaFacts, Payer, ResourceType


class Clock(Protocol):
    def now(self) -> float:
        """Return the time in Unix seconds."""


class Ids(Protocol):
    def hex(self, length: int) -> str:
        """Return `length` random hex digits."""

    def base36(self, length: int) -> str:
        """Return `length` random characters of `[a-z0-9]`."""

    def dated_hex(self) -> str:
        """Return 32 hex digits that begin with the time: an index of them grows at one end. 74 bits are random."""


class Inspector(Protocol):
    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
        """Return what the file at `path` is, by its bytes alone. The decoder's time is charged to the payer.

        `requested` is the type that the file was uploaded as. None is `auto`: image or video where the format is
        supported, raw otherwise. `raw` accepts any bytes. Raise InvalidMedia if the bytes are not what was requested,
        if a decoder failed, crashed or timed out, or if the grant's refused files used too much time. Raise
        MediaTooLarge if the header claims more than a limit, ServerBusy if no decoder becomes free in time.
        """

    async def ping(self) -> None:
        """Return when the decoders answer."""
