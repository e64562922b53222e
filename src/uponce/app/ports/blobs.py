"""The BlobStore port: bytes that arrive, whole or in pieces, and never change once they are published."""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from uponce.core.formats import BINARY
from uponce.core.series import StoredPart
from uponce.core.spans import Span
from uponce.core.values import Digest


class Stage(Protocol):
    """A private blob that is being written. Bytes become visible under `key` by `publish`, whole or not at all."""

    key: str

    @property
    def size(self) -> int:
        """Bytes accepted so far."""

    @property
    def path(self) -> str:
        """A local file with the sealed bytes, readable until `publish` or `discard`."""

    async def write(self, data: bytes | bytearray) -> None:
        """Append. StorageFull or StorageUnavailable spoil the stage; discard it."""

    async def seal(self) -> Digest:
        """No more bytes; all are in the file and hashed."""

    async def publish(self, media_type: str = BINARY) -> None:
        """Durable under `key` when this returns. StorageUnavailable when the stage was swept away.

        `media_type` is for stores that serve the bytes themselves.
        """

    async def discard(self) -> None:
        """Delete the bytes, published or not; repeating it, or discarding what is gone, is fine."""

    def blocks(self) -> AsyncIterator[bytes]:
        """The sealed bytes, in order, until `publish` or `discard`."""


class Piece(Protocol):
    """One request's hold on a span of a blob that arrives in pieces. Nobody else can write there meanwhile; of a shared
    blob nobody else in this process."""

    @property
    def size(self) -> int:
        """Bytes accepted so far."""

    def expect(self, present: Sequence[Span]) -> None:
        """Before the first write: which bytes are in the blob already. Those are compared and not written again."""

    async def write(self, data: bytes | bytearray) -> None:
        """The next bytes of the span. ChunkConflict when other ones are there; that and whatever else goes wrong spoil
        the piece; release it."""

    async def sync(self, recorded: Sequence[StoredPart] = (), key: str | None = None) -> Sequence[StoredPart]:
        """All bytes accepted so far are durable when this returns.

        Of a shared blob: those that were accepted since the last `keep`. They are compared with what is `recorded` of
        them, in order; the others come back, each in an object of its own, which counts as soon as it is recorded.
        With a `key` they are to belong to that blob instead. ChunkConflict when other bytes are recorded.
        """

    def keep(self) -> None:
        """Those bytes are recorded: they will never change."""

    async def wanted(self) -> bool:
        """Whether somebody asks for a part of the span."""

    async def release(self) -> None:
        """Let go of the span, whatever was written; repeating it is fine."""


class Assembly(Protocol):
    """The hold on a whole blob that arrived in pieces. No piece of it is held meanwhile."""

    key: str

    @property
    def path(self) -> str:
        """A local file with the sealed bytes, readable until `publish` or `release`."""

    async def seal(self, size: int, parts: AsyncIterable[StoredPart]) -> Digest:
        """The blob ends here; every byte up to `size` is hashed, and read anew where it did not come in order.

        `parts` are all that are recorded of a shared blob, in order; StorageUnavailable when they are not those bytes.
        """

    async def publish(self, media_type: str = BINARY) -> None:
        """Durable under `key` when this returns. May be repeated under another hold, whose `key` may be another one."""

    async def retract(self) -> None:
        """No commit will name what was published under this `key`: it may go, unless another one may name it."""

    async def discard(self) -> None:
        """Delete the bytes, published or not."""

    async def clear(self) -> None:
        """It is committed: what it was made of may go."""

    async def release(self) -> None:
        """Let go; what is published stays so, what is not stays an unfinished blob."""


class OpenBlob(Protocol):
    """An open blob. Close it.

    It stays readable after a deletion, or fails with StorageUnavailable: never other bytes. `block_bytes` is the
    length in which it is best read.
    """

    size: int
    block_bytes: int

    async def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only at the end of the blob."""

    def read_now(self, offset: int, into: memoryview) -> int:
        """Fill `into` with the bytes from `offset` on that can be had without waiting; how many these are."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A published or staged blob as the sweeper and fsck see it. `age` in seconds; `sha256` if the store keeps it."""

    key: str
    size: int
    age: float
    sha256: str | None = None


PLACES = tuple(f"{start}{number:02x}" for start in ("", "p") for number in range(256))
"""Each blob key begins with one of these: `p` is for the keys of blobs that came into packs."""


class Pieces(Protocol):
    """Blobs that arrive in pieces."""

    async def begin(self) -> str:
        """The key of a new unfinished blob without bytes, which is durably there; `delete` it, or let it be swept.

        A shared one is nowhere until a part of it is.
        """

    async def piece(self, key: str, span: Span) -> Piece:
        """Hold a span of an unfinished blob. ChunkInProgress when somebody holds a part of it.

        Whether the blob may still be written has to be asked after this: it cannot be published as long as a piece of
        it is held.
        """

    async def assembly(self, key: str) -> Assembly:
        """Hold all of an unfinished blob. ChunkInProgress when somebody holds it, or a part of it."""

    def asking(self, key: str, span: Span | None) -> AbstractAsyncContextManager[None]:
        """Meanwhile every piece that is held of the span, or of the whole blob, is `wanted`, in any server process; of
        a shared blob in this one."""


class SharedPieces(Pieces, Protocol):
    """Blobs whose pieces are objects that every server can read.

    No server holds anything that another one could miss. What counts is recorded in the database, and nothing else.
    """

    async def drop(self, key: str) -> None:
        """All objects of a blob are gone when this returns, recorded or not; dropping what is not there is fine."""

    def listed(self) -> AsyncIterator[StoredBlob]:
        """Every object, by the key of the blob that it is a part of, in no order."""


class BlobStore(Pieces, Protocol):
    """Immutable bytes under random keys; a public_id never becomes a path.

    `shared` is there when new blobs that arrive in pieces are to be shared; then its own pieces are those of uploads
    that were begun when it was not.
    """

    @property
    def shared(self) -> SharedPieces | None: ...

    async def stage(self, key: str | None = None) -> Stage:
        """A new blob; `key` is for a copy of one that has its key in another store."""

    async def open(self, key: str) -> OpenBlob | None: ...

    def open_now(self, key: str) -> OpenBlob | None:
        """The same if it takes no waiting: None does not say that there is no such blob."""

    async def delete(self, key: str) -> None:
        """Gone when this returns, published or staged; deleting what is not there is fine."""

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]:
        """Every published blob whose key begins with `prefix`, in no order."""

    def staged(self) -> AsyncIterator[StoredBlob]:
        """Every staged blob, in no order; `age` since it was last written to."""

    async def digest(self, key: str) -> Digest | None:
        """Read a published blob anew; StorageUnavailable when its bytes cannot be read."""

    async def sweep_stages(self, older_than: float, spare: Collection[str] = ()) -> int:
        """Delete staged blobs untouched for so many seconds, but for those keys; how many."""

    async def ping(self) -> None:
        """Return when the store can be written."""


Data = bytes | bytearray | memoryview
Body = tuple[Data, Digest, str]  # with its digest and media type


class GroupStore(Protocol):
    """The power of some blob stores to make many small blobs durable at once."""

    def put_group(self, bodies: Sequence[Body]) -> Sequence[str]:
        """The keys, in order; the bytes of all are durable when this returns. It blocks, and one thread calls it.

        StorageFull or StorageUnavailable: none of the group counts.
        """


class FrontServer(Protocol):
    """A web server in front of this one that reads published blobs by itself."""

    def location_of(self, key: str) -> str | None:
        """Where it finds the blob, in its own words, also of a blob that is not there. None if it cannot read it."""


class Presigner(Protocol):
    """The power of some blob stores to serve the bytes themselves."""

    @property
    def seconds(self) -> int:
        """How long a URL is good."""

    async def url_of(self, key: str) -> str:
        """Where anybody may read the blob for so long; also of a blob that is not there."""
