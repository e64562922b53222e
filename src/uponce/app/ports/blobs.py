"""The BlobStore port: bytes that arrive, whole or in parts, and never change once they are published."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from uponce.core.formats import BINARY
from uponce.core.series import StoredPart
from uponce.core.spans import Span
from uponce.core.values import Digest


class SpooledChunk(Protocol):
    """Bytes on the disk of this server that one request writes, then reads, then deletes. They are never durable."""

    @property
    def size(self) -> int:
        """Return how many bytes were accepted so far."""

    async def write(self, data: bytes | bytearray) -> None:
        """Append. After StorageFull or StorageUnavailable the caller must `discard`."""

    async def flush(self) -> None:
        """End the writing. Then all bytes are in the file."""

    def blocks(self) -> AsyncIterator[bytes]:
        """Yield the bytes in order. Possible until `discard`."""

    async def discard(self) -> None:
        """Delete the bytes. Does nothing if they are gone."""


class Publishable(Protocol):
    """The complete bytes of a private blob. `publish` makes it visible under `key`, whole or not at all."""

    key: str

    async def publish(self, media_type: str = BINARY) -> None:
        """Make the bytes durable under `key`. Raise StorageUnavailable if the sweeper has deleted the spooled file.

        `media_type` is for stores that serve the bytes themselves.
        """

    async def discard(self) -> None:
        """Delete the blob, also if it is published. Does nothing if it is gone."""


class Spooled(SpooledChunk, Publishable, Protocol):
    """A private blob that one request writes. Its bytes are complete when it is sealed.

    `blocks` are the sealed bytes, until `publish` or `discard`.
    """

    @property
    def path(self) -> str:
        """Return the path of a local file with the sealed bytes, readable until `publish` or `discard`."""

    async def seal(self) -> Digest:
        """End the writing, and return the digest. Then all bytes are in the file."""


class HeldPart(Protocol):
    """A span of a blob that arrives in parts, held by one request. No other request can write there until `release`.

    If servers share the blob, only the other requests of this process are kept out.
    """

    @property
    def size(self) -> int:
        """Return how many bytes were accepted so far."""

    def expect(self, present: Sequence[Span]) -> None:
        """Name the bytes that the blob has, before any `write`. It compares them instead of writing them again."""

    async def write(self, data: bytes | bytearray) -> None:
        """Write the next bytes. Raise ChunkConflict for other bytes there. After any error, `release` the span."""

    async def sync(self, recorded: Sequence[StoredPart] = (), key: str | None = None) -> Sequence[StoredPart]:
        """Make all bytes accepted so far durable. For a shared blob, return their parts.

        For a shared blob, this means the bytes since the last `keep`. Bytes that are already `recorded`, in order, are
        compared. The others are returned, each part in its own object. An object counts when the database records it.
        With a `key` the bytes belong to that blob instead. Raise ChunkConflict if other bytes are recorded.
        """

    def keep(self) -> None:
        """Note that the synced bytes are recorded. They never change from now on."""

    async def wanted(self) -> bool:
        """Return whether another request asks for some of these bytes."""

    async def release(self) -> None:
        """Release the span, whatever was written. May be repeated."""


class Assembly(Protocol):
    """A whole blob that arrived in parts, held by one request. No request holds a part of it at the same time."""

    key: str

    @property
    def path(self) -> str:
        """Return the path of a local file with the sealed bytes, readable until `publish` or `release`."""

    async def seal(self, size: int, parts: AsyncIterable[StoredPart]) -> Digest:
        """End the blob at `size`, and return its digest. Bytes that did not arrive in order are read again.

        `parts` are all recorded parts of a shared blob, in order. Raise StorageUnavailable if their bytes differ.
        """

    def blocks(self) -> AsyncIterator[bytes]:
        """Yield the sealed bytes in order. Possible until `publish` or `release`."""

    async def publish(self, media_type: str = BINARY) -> None:
        """Make the bytes durable under `key`. Another request may repeat it, perhaps under another `key`."""

    async def retract(self) -> None:
        """Delete the published blob, which no commit will name, unless another request may publish it too."""

    async def discard(self) -> None:
        """Delete the bytes, published or not."""

    async def clear(self) -> None:
        """Delete the parts that the committed blob was made of."""

    async def release(self) -> None:
        """Release the blob, published or unfinished. Its bytes stay."""


class OpenBlob(Protocol):
    """An open blob. The caller must close it.

    After a deletion it is still readable, or it raises StorageUnavailable. It never shows other bytes. `block_bytes` is
    the best length for one read. `first_bytes` is that of the first one, whose bytes a client may never take.
    """

    size: int
    first_bytes: int
    block_bytes: int

    async def read(self, offset: int, length: int) -> bytes | bytearray:
        """Return `length` bytes from `offset`; fewer only at the end of the blob."""

    def read_now(self, offset: int, into: memoryview) -> int:
        """Fill `into` with bytes from `offset` that are in memory. Return how many."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A published or spooled blob as the sweeper and fsck see it. `age` in seconds; `sha256` if the store keeps it."""

    key: str
    size: int
    age: float
    sha256: str | None = None


PLACES = tuple(f"{start}{number:02x}" for start in ("", "p") for number in range(256))
"""Each blob key begins with one of these. `p` is for blobs that were stored in packs."""


class Parts(Protocol):
    """Blobs that arrive in parts: each in a file of this server, or in objects that every server can read.

    If they are `shared`, no server holds bytes that another server needs. Only what the database records counts.
    """

    shared: bool

    async def begin(self) -> str:
        """Make an empty unfinished blob, durable, and return its key. Delete it, or leave it to the sweeper.

        A shared blob takes no space before its first part.
        """

    async def hold(self, key: str, span: Span) -> HeldPart:
        """Hold a span of an unfinished blob. Raise ChunkInProgress if another request holds some of it.

        Check only after this whether the blob may still be written: no request can publish it while a part is held.
        """

    async def assembly(self, key: str) -> Assembly:
        """Hold all of an unfinished blob. Raise ChunkInProgress if another request holds it, or a part of it."""

    def asking(self, key: str, span: Span | None) -> AbstractAsyncContextManager[None]:
        """Ask for the span, or for the whole blob. Inside, its held parts are `wanted`.

        They are so in all processes of this server, those of a shared blob only in this process.
        """

    async def drop(self, key: str) -> None:
        """Delete the bytes of a blob, recorded or not. Do nothing if it has none."""

    def listed(self) -> AsyncIterator[StoredBlob]:
        """Yield every object, under the key of its blob, in no order. A file is a spooled blob instead."""


class Spool(Protocol):
    """Receives files on the disk of this server."""

    async def receive(self, key: str | None = None) -> Spooled:
        """Return a new blob to write. `key` is for a copy from another store; it deletes what an earlier try left."""

    async def receive_chunk(self) -> SpooledChunk:
        """Return a file for bytes that only pass through. They have no digest and never become a blob."""

    def spooled(self) -> AsyncIterator[StoredBlob]:
        """Yield every spooled blob, in no order. Its `age` counts from the last write."""

    async def sweep_spool(self, older_than: float, spare: Collection[str] = ()) -> int:
        """Delete spooled blobs not written for `older_than` seconds. Return their number. Keep the keys in `spare`."""


class BlobStore(Spool, Protocol):
    """Immutable bytes under random keys; a public_id never becomes a path. Files arrive on the disk of this server."""

    parts: Parts

    @property
    def is_remote(self) -> bool:
        """Return whether each call is a request to another machine, which may take seconds."""

    async def open(self, key: str) -> OpenBlob | None: ...

    def open_now(self, key: str) -> OpenBlob | None:
        """Return the open blob if that needs no waiting. None does not mean that the blob does not exist."""

    async def delete(self, key: str) -> None:
        """Delete the blob, published or spooled. Does nothing if it does not exist."""

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]:
        """Yield the published blobs whose key begins with `prefix`, in no order, except what the disk cannot read."""

    def listings(self, first: str) -> Iterable[AsyncIterator[StoredBlob]]:
        """Yield listings that together yield every published blob, beginning at the place `first`, one of PLACES.

        After a listing that failed, the others still work. They are for sweeps: a local store deletes its empty packs
        as it lists them, since a separate look would read every pack once more.
        """

    async def digest(self, key: str) -> Digest | None:
        """Read a published blob and return its digest. Raise StorageUnavailable if the bytes cannot be read."""

    async def owner(self) -> str | None:
        """Return the owner that the store has noted, or None. See app/owner.py."""

    async def set_owner(self, owner: str, *, replace: bool = False) -> None:
        """Note the owner durably. An owner that is already noted stays, unless `replace`."""

    async def ping(self) -> None:
        """Return if the store can be written. Raise if not."""


Data = bytes | bytearray | memoryview
Body = tuple[Data, Digest]

# Makes the bytes of all bodies durable, and returns their keys in order. It blocks, and only one thread calls it. After
# StorageFull or StorageUnavailable no blob of the group counts.
PutGroup = Callable[[Sequence[Body]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class LateGroup:
    """Stores small blobs in groups too, but makes them durable in a second step, `seal`.

    `put` starts to write them. While the disk does so, the transaction that names them runs its statements. It calls
    `seal` just before it commits. After StorageFull or StorageUnavailable of either, no blob that was put since the
    last `seal` counts. If the transaction fails, it calls `abandon`, which frees the space of what is not sealed.
    What is sealed stays: a COMMIT without an answer may name it. One thread calls all.
    """

    put: PutGroup
    seal: Callable[[], None]
    abandon: Callable[[], None]


# Returns a small body in memory as a private blob. It never gets into the spool.
HoldSmall = Callable[[Body], Publishable]

# Returns the name that a web server in front has for a blob, even a missing one, or None if it cannot read the blob.
LocationOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Presigner:
    """A blob store that can serve the bytes itself. `url_of` returns a URL by which any client may read a blob.

    It does so also if the blob does not exist. The URL works for so many `seconds`.
    """

    seconds: int
    url_of: Callable[[str], Awaitable[str]]
