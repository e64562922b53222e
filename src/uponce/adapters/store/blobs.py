"""The BlobStore port: a spool for what arrives, and a store for what is complete."""

from collections.abc import AsyncIterator, Collection
from typing import Protocol

from uponce.adapters.spool.spool import Spool
from uponce.adapters.spool.uploads import Destination
from uponce.app.ports import FrontServer, GroupStore, OpenBlob, Presigner, SharedParts, StoredBlob
from uponce.core.values import Digest


class Store(Destination, Protocol):
    """Keeps complete blobs. The methods that BlobStore also has do what BlobStore promises."""

    @property
    def group_store(self) -> GroupStore | None: ...

    def prepare(self, spool: Spool) -> None:
        """Make the folders, also that of the spool. Raise SettingRefused if they cannot be used."""

    def close(self) -> None: ...

    def describe(self) -> str:
        """Return how blobs are stored, in words for an operator. Blocks."""

    def front(self, prefix: str) -> FrontServer | None:
        """Return how a web server reads the blobs, or None if it cannot."""

    def presigner(self, seconds: int) -> Presigner | None:
        """Return what makes URLs of the store itself, or None if it has no URLs."""

    async def open(self, key: str) -> OpenBlob | None: ...

    def open_now(self, key: str) -> OpenBlob | None: ...

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]: ...

    async def digest(self, key: str) -> Digest | None: ...

    async def owner(self) -> str | None: ...

    async def set_owner(self, owner: str, *, replace: bool = False) -> None: ...

    async def sweep(self) -> None:
        """Remove packs and other places that hold no blob any more."""

    async def ping(self) -> None: ...


class Blobs:
    """The BlobStore of a spool and a store. Call `open_store` before use and `close` after."""

    def __init__(self, spool: Spool, store: Store, shared: SharedParts | None = None) -> None:
        self.spool = spool
        self.store = store
        self.shared = shared
        self.group_store = store.group_store
        self.receive, self.receive_chunk = spool.receive, spool.receive_chunk
        self.begin, self.hold = spool.begin, spool.hold
        self.assembly, self.asking, self.spooled = spool.assembly, spool.asking, spool.spooled
        self.open, self.open_now = store.open, store.open_now
        self.published, self.digest = store.published, store.digest
        self.owner, self.set_owner = store.owner, store.set_owner

    def open_store(self) -> None:
        """Make the folders. Raise SettingRefused if they cannot be used."""
        self.store.prepare(self.spool)

    def close(self) -> None:
        self.store.close()
        self.spool.disk.close()

    async def delete(self, key: str) -> None:
        await self.spool.drop(key)
        await self.store.withdraw(key)

    async def sweep_spool(self, older_than: float, spare: Collection[str] = ()) -> int:
        await self.store.sweep()
        return await self.spool.sweep(older_than, spare)

    async def ping(self) -> None:
        await self.spool.ping()
        await self.store.ping()
