"""The file of an upload that a relay forwards: held in memory, sent while it arrives, or spooled first."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence

from uponce.app.authorise import Admitted
from uponce.app.relaying.chunks import Data, cut, cut_arriving
from uponce.app.relaying.relay import Relaying
from uponce.app.services import Services
from uponce.app.threads import in_a_thread
from uponce.core.errors import MalformedRequest
from uponce.core.relaying import Forwarded
from uponce.core.values import Digest

_QUICKLY_HASHED = 32 * 1024


class HeldFile:
    """A file that one request writes. A small file is held in memory, a larger one is sent while it arrives.

    Memory is bounded for all uploads together. If no memory is left, a small file is sent while it arrives too.
    """

    def __init__(self, services: Services, admitted: Admitted, length: int | None) -> None:
        """`length` is how many bytes the body of the request has, if that is known.

        A file with a name has at least `length` bytes, less what a form may have besides its file. The size of a file
        without a name is not certain: such a file may be text, which has fewer bytes after it is decoded.
        """
        self._services = services
        self._admitted = admitted
        self._in_chunks = length is None or length > services.limits.relay_whole_bytes
        self._least = 0
        if length is not None and admitted.filename is not None:
            self._least = length - services.limits.max_form_bytes
        self._most = services.limits.small_body_bytes
        self._memory = services.attempts.memory
        self._taken = 0
        self._parts: list[bytes] = []
        self._stream: Stream | None = None

    @property
    def size(self) -> int:
        return self._taken if self._stream is None else self._stream.size

    async def write(self, data: Data) -> None:
        if self._stream is None and self._has_room(len(data)):
            self._parts.append(bytes(data))
            self._taken += len(data)
            return
        if self._stream is None:
            self._stream = Stream(self._services, self._admitted, in_chunks=self._in_chunks, least=self._least)
            for part in self._parts:
                await self._stream.write(part)
            self._drop()
        await self._stream.write(data)

    def _has_room(self, size: int) -> bool:
        return max(self._taken + size, self._least) <= self._most and self._memory.take(size)

    async def seal(self) -> Digest:
        """End the writing, and return the digest."""
        if self._stream is not None:
            return await self._stream.seal()
        hashes = _Hashes(self._admitted)
        for part in self._parts:
            hashes.update(part)
        return hashes.digest()

    async def finish(self, digest: Digest) -> Forwarded:
        """Let the upload complete, after every check that may refuse it. Return the upstream's answer."""
        if self._stream is not None:
            return await self._stream.finish()
        relaying = Relaying(self._services, self._admitted)
        relaying.digest = digest
        return await relaying.send_small(_each(self._parts))

    async def discard(self) -> None:
        """Drop the bytes. End the upload unless `finish` was called. May be repeated."""
        self._drop()
        if self._stream is not None:
            await self._stream.discard()

    def _drop(self) -> None:
        self._memory.give_back(self._taken)
        self._taken = 0
        self._parts.clear()


async def _each(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class _Hashes:
    """The digest of a file that is passed on. Its SHA-256 is computed only if something is compared with it."""

    def __init__(self, admitted: Admitted) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        is_compared = admitted.spec.sha256 is not None or admitted.idempotency_key is not None
        self._sha256 = hashlib.sha256() if is_compared else None

    def update(self, data: Data) -> None:
        self._md5.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        return Digest(self.size, self._md5.hexdigest(), self._sha256.hexdigest() if self._sha256 is not None else "")


class Stream:
    """A file that is sent while it arrives. The upstream's pace is the client's pace.

    The upload is not complete before `finish`: the file ends, and the signature that must follow waits for `finish`. An
    error of the upstream ends the next write.
    """

    def __init__(self, services: Services, admitted: Admitted, *, in_chunks: bool, least: int = 0) -> None:
        self._relaying = Relaying(services, admitted)
        self._blocks: asyncio.Queue[Data | None] = asyncio.Queue(1)
        self._hashes = _Hashes(admitted)
        self._size = 0
        self._hashing: asyncio.Future[None] | None = None
        self._agreed = asyncio.get_running_loop().create_future()
        blocks = self._arriving()
        if in_chunks:
            chunks = cut_arriving(blocks, services.blobs, services.limits.relay_chunk_bytes, least)
            sending = self._relaying.send_chunks(chunks)
        else:
            sending = self._relaying.send(blocks)
        self._sending = asyncio.ensure_future(sending)
        self._sending.add_done_callback(self._make_room)

    @property
    def size(self) -> int:
        return self._size

    async def write(self, data: Data) -> None:
        self._size += len(data)
        await self._hash(data)
        await self._put(data)

    async def _hash(self, data: Data) -> None:
        """Hash the block while the next one arrives. Hashing a small block takes less time than using a thread."""
        await self._hashed()
        if len(data) <= _QUICKLY_HASHED:
            self._hashes.update(data)
        else:
            self._hashing = in_a_thread(lambda: self._hashes.update(data))

    async def _hashed(self) -> None:
        if self._hashing is not None:
            await self._hashing
            self._hashing = None

    async def seal(self) -> Digest:
        await self._hashed()
        self._relaying.digest = digest = self._hashes.digest()
        await self._put(None)
        return digest

    async def finish(self) -> Forwarded:
        """Let the upload complete, and return the answer. Call it after every check that may refuse the file."""
        self._agreed.set_result(None)
        return await asyncio.shield(self._sending)

    async def discard(self) -> None:
        """End the request unless `finish` was called. The upstream never gets a signature."""
        if self._agreed.done():
            return
        self._sending.cancel()
        await asyncio.wait([self._sending])
        if not self._sending.cancelled():
            self._sending.exception()  # marks it as seen: the client gets another error

    async def _put(self, block: Data | None) -> None:
        if not self._sending.done():
            await self._blocks.put(block)
        if self._sending.done():
            self._sending.result()
            raise MalformedRequest("The upstream ended the upload before its last byte.")

    def _make_room(self, _: object) -> None:
        """Empty the queue, so that a waiting block can enter. No reader takes blocks any more."""
        while not self._blocks.empty():
            self._blocks.get_nowait()

    async def _arriving(self) -> AsyncIterator[Data]:
        while (block := await self._blocks.get()) is not None:
            yield block
        await asyncio.shield(self._agreed)  # aiohttp cancels this when the connection breaks


async def send_spooled(
    services: Services, admitted: Admitted, digest: Digest, blocks: AsyncIterator[Data]
) -> Forwarded:
    """Pass on a file that has arrived, and return the answer. It must not end when its request is cancelled."""
    limits, relaying = services.limits, Relaying(services, admitted)
    relaying.digest = digest
    if digest.size <= limits.relay_whole_bytes:
        return await relaying.send(blocks, digest.size)
    return await relaying.send_chunks(cut(blocks, digest.size, limits.relay_chunk_bytes))
