"""A large file in the chunks in which an upstream takes it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from uponce.app.ports import BlobStore, SpooledChunk

Data = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a file, and their place in it as Content-Range says it."""

    span: str
    size: int
    blocks: AsyncIterator[Data]
    is_last: bool


class _Cut:
    """Cuts a stream of blocks into pieces of given sizes."""

    def __init__(self, blocks: AsyncIterator[Data]) -> None:
        self._blocks = blocks
        self._rest: Data = b""

    async def take(self, size: int) -> AsyncIterator[Data]:
        """Yield the next `size` bytes, fewer at the end."""
        while size > 0 and not await self.has_ended():
            block, self._rest = self._rest[:size], self._rest[size:]
            size -= len(block)
            yield block

    async def has_ended(self) -> bool:
        while not self._rest:
            try:
                self._rest = await anext(self._blocks)
            except StopAsyncIteration:
                return True
        return False


async def cut(blocks: AsyncIterator[Data], size: int, chunk_bytes: int) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of a file of known size. The blocks of each must be read before the next one."""
    file = _Cut(blocks)
    for start in range(0, size, chunk_bytes):
        end = min(start + chunk_bytes, size)
        yield Chunk(f"bytes {start}-{end - 1}/{size}", end - start, file.take(end - start), end == size)


async def cut_arriving(blocks: AsyncIterator[Data], blobs: BlobStore, chunk_bytes: int) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of a file that is still arriving. The spool has at most two of them: one that is sent, and one
    that arrives."""
    file, start = _Cut(blocks), 0
    arriving = asyncio.ensure_future(_spool(file, blobs, chunk_bytes))
    try:
        while True:
            spooled, is_last = await arriving
            if not is_last:
                arriving = asyncio.ensure_future(_spool(file, blobs, chunk_bytes))
            end = start + spooled.size
            try:
                span = f"bytes {start}-{end - 1}/{end if is_last else -1}"
                yield Chunk(span, spooled.size, spooled.blocks(), is_last)
            finally:
                await spooled.discard()
            if is_last:
                return
            start = end
    finally:
        await _drop(arriving)


async def _spool(file: _Cut, blobs: BlobStore, size: int) -> tuple[SpooledChunk, bool]:
    """Return the next chunk, and whether it is the last one."""
    spooled = await blobs.receive_chunk()
    try:
        async with aclosing(file.take(size)) as blocks:  # type: ignore[type-var]
            async for block in blocks:
                await spooled.write(block)
        await spooled.flush()
        return spooled, await file.has_ended()
    except BaseException:
        await spooled.discard()
        raise


async def _drop(arriving: "asyncio.Future[tuple[SpooledChunk, bool]]") -> None:
    """Delete a chunk that is not sent."""
    if not arriving.done():
        arriving.cancel()
    try:
        spooled, _ = await arriving
    except (asyncio.CancelledError, Exception):
        return
    await spooled.discard()
