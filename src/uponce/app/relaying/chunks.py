"""Cut a large file into the chunks that an upstream accepts."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from uponce.app.ports import BlobStore, SpooledChunk

Data = bytes | bytearray

_LEAST_BYTES = 5 * 1024 * 1024  # of each chunk but the last; Cloudinary refuses smaller ones


@dataclass(frozen=True, slots=True)
class RelayChunk:
    """Bytes of a file, and their place in it as Content-Range writes it."""

    span: str
    size: int
    blocks: AsyncIterator[Data]
    is_last: bool


class _Cut:
    """Cuts a stream of blocks into parts of given sizes."""

    def __init__(self, blocks: AsyncIterator[Data]) -> None:
        self._blocks = blocks
        self._rest: Data = b""

    async def take(self, size: int) -> AsyncIterator[Data]:
        """Yield the next `size` bytes, or fewer at the end of the file."""
        while size > 0 and not await self.has_ended():
            block, self._rest = self._rest, b""
            if len(block) > size:
                block, self._rest = block[:size], block[size:]
            size -= len(block)
            yield block

    async def has_ended(self) -> bool:
        while not self._rest:
            try:
                self._rest = await anext(self._blocks)
            except StopAsyncIteration:
                return True
        return False


async def cut(blocks: AsyncIterator[Data], size: int, chunk_bytes: int) -> AsyncGenerator[RelayChunk, None]:
    """Yield the chunks of a file of known size. Read the blocks of each chunk before the next one."""
    file = _Cut(blocks)
    for start in range(0, size, chunk_bytes):
        end = min(start + chunk_bytes, size)
        yield RelayChunk(f"bytes {start}-{end - 1}/{size}", end - start, file.take(end - start), end == size)


async def cut_arriving(
    blocks: AsyncIterator[Data], blobs: BlobStore, chunk_bytes: int, least: int = 0
) -> AsyncGenerator[RelayChunk, None]:
    """Yield the chunks of a file that is still arriving, and will have `least` bytes or more.

    Content-Range gives the end of a chunk before its first byte. So a chunk is sent while it arrives only if it is
    certain to be whole, and a byte follows it. The other chunks are in the spool, two at a time: one is sent, and one
    arrives.
    """
    file, start = _Cut(blocks), 0
    while (size := min(chunk_bytes, least - start - 1)) >= min(chunk_bytes, _LEAST_BYTES):
        yield RelayChunk(f"bytes {start}-{start + size - 1}/-1", size, file.take(size), is_last=False)
        start += size
    sent, other = await blobs.receive_chunk(), await blobs.receive_chunk()
    arriving = asyncio.ensure_future(_fill(sent, file, chunk_bytes))
    try:
        while True:
            is_last = await arriving
            if not is_last:
                arriving = asyncio.ensure_future(_fill(other, file, chunk_bytes))
            end = start + sent.size
            span = f"bytes {start}-{end - 1}/{end if is_last else -1}"
            yield RelayChunk(span, sent.size, sent.blocks(), is_last)
            if is_last:
                return
            await sent.discard()
            start, sent, other = end, other, await blobs.receive_chunk()
    finally:
        arriving.cancel()
        await asyncio.gather(arriving, return_exceptions=True)
        await asyncio.gather(sent.discard(), other.discard())


async def _fill(spooled: SpooledChunk, file: _Cut, size: int) -> bool:
    """Spool the next chunk, and return whether it is the last one."""
    async with aclosing(file.take(size)) as blocks:  # type: ignore[type-var]
        async for block in blocks:
            await spooled.write(block)
    await spooled.flush()
    return await file.has_ended()
