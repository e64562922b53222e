"""What the use cases need from the outside world.

Ports speak domain values. "Not found" is None where it is ordinary. No HTTP type and no driver's exception
crosses a port: what goes wrong arrives as an error of core/errors.py.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from uponce.app.ports.blobs import (
    PLACES,
    Assembly,
    BlobStore,
    Body,
    FrontServer,
    GroupStore,
    HeldPart,
    OpenBlob,
    Parts,
    Presigner,
    SharedParts,
    Spooled,
    SpooledChunk,
    StoredBlob,
)
from uponce.app.ports.commits import AfterCommit, Candidate, Committed, Draft, Effect, Outbox, Refusal, Reply, Waiting
from uponce.app.ports.database import (
    CONTEXT_WINDOW,
    Catalog,
    Database,
    Glance,
    Keys,
    Ledger,
    OpenSeries,
    Page,
    Prepare,
    Records,
    Rule,
    Upkeep,
)
from uponce.app.ports.moving import MovableDatabase, Row, Table
from uponce.app.ports.relaying import AdminCall, Relays, Sign, UpstreamCall, UpstreamClient, UpstreamReply
from uponce.core.values import MediaFacts, Payer, ResourceType


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds."""


class Ids(Protocol):
    def hex(self, length: int) -> str:
        """`length` random hex digits."""

    def base36(self, length: int) -> str:
        """`length` random characters of `[a-z0-9]`."""

    def dated_hex(self) -> str:
        """32 hex digits that begin with the time, so that an index of them grows at one end; 74 bits are random."""


class Inspector(Protocol):
    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
        """Return what the file at `path` is, by its bytes alone. The payer is charged for the decoder's time.

        `requested` is the type that it was uploaded as. None is `auto`: image or video where the format is supported,
        raw otherwise. `raw` takes anything. Raises InvalidMedia if the bytes are not what was requested, or a decoder
        failed, crashed or timed out, or the grant's refused files used too much time; MediaTooLarge if the header
        claims more than a limit; ServerBusy if no decoder becomes free in time.
        """

    async def ping(self) -> None:
        """Return when the decoders answer."""


class Metrics(Protocol):
    """How many and how long, for the operator, and nothing about any client.

    Nothing here waits or raises. Label values come from code, never from clients, so their number is bounded.
    """

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request is over. `route` is a template; `status` is 0 when there was no answer."""

    def sending(self) -> AbstractContextManager[object]:
        """Around a request that sends an upload, or a part of one."""

    def received(self, size: int) -> None:
        """Bytes of such a request's body."""

    def refused(self, code: str) -> None:
        """Such a request was refused, by the code of an error."""

    def committing(self) -> AbstractContextManager[object]:
        """Around the commit of an upload."""

    def stored(self) -> None:
        """An upload was committed."""

    def swept(self, blobs: int, size: int, grants: int, now: float) -> None:
        """A sweep ended and removed that many; `size` in bytes."""

    def sweep_failed(self) -> None:
        """A sweep of a running server failed."""

    def waiting(self, waiting: Waiting) -> None:
        """What the database says now of pending uploads and of the outbox."""


class NoMetrics:
    """Metrics of a server that counts nothing."""

    def answered(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def sending(self) -> AbstractContextManager[object]:
        return nullcontext()

    def received(self, size: int) -> None: ...

    def refused(self, code: str) -> None: ...

    def committing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def stored(self) -> None: ...

    def swept(self, blobs: int, size: int, grants: int, now: float) -> None: ...

    def sweep_failed(self) -> None: ...

    def waiting(self, waiting: Waiting) -> None: ...
