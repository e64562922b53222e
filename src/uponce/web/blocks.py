"""The bytes of a blob, as pieces of an answer. What waits in memory for slow readers has a bound.

A file is read in blocks of 1 MiB: with 64 KiB, a range over a large one got 0.7 times as many bytes a second. A bucket
is read in blocks of 2 MiB, since each block costs a request. Up to 16 readers get whole blocks, which costs the least.
When there are more, each of them gets its block in pieces of 64 KiB.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from uponce.app.ports import OpenBlob
from uponce.core.errors import StorageUnavailable
from uponce.core.spans import Span

Block = bytes | bytearray

_PIECE_BYTES = 64 * 1024
_WHOLE_BLOCKS = 16
_MOST_BYTES = 32 * 1024 * 1024


class Blocks:
    """The rests of blocks that the readers of this process have not taken yet: at most `most` bytes.

    When there are more, the rest of the reader that has waited longest goes, and that reader reads it again. So readers
    that stall take neither memory nor speed from the others.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[object, Block] = OrderedDict()  # by reader; the one that has waited longest first
        self._readers = 0
        self.size = 0

    @contextmanager
    def reader(self) -> Iterator[object]:
        """Yield the key of one more reader."""
        key = object()
        self._readers += 1
        try:
            yield key
        finally:
            self._readers -= 1
            self._drop(key)

    def keep(self, reader: object, block: Block) -> None:
        self._kept[reader] = block
        self.size += len(block)
        while self.size > self._most and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def take(self, reader: object, offset: int) -> Block:
        """Return the piece at this offset of the reader's block. Return no bytes if the block has ended or is gone."""
        block = self._kept.get(reader, b"")
        end = len(block) if self._readers <= _WHOLE_BLOCKS else offset + _PIECE_BYTES
        if end < len(block):
            self._kept.move_to_end(reader)
        else:
            self._drop(reader)
        return block[offset:end] if offset or end < len(block) else block  # a slice of a bytearray is always a copy

    def _drop(self, reader: object) -> None:
        self.size -= len(self._kept.pop(reader, b""))


BLOCKS = Blocks(_MOST_BYTES)


async def first_block(blob: OpenBlob, key: str, range_: Span) -> Block:
    """Return the first bytes of the range, for `pieces_of`. Raise StorageUnavailable, which a client can still get."""
    if not range_.size:
        return b""
    with _naming(key):
        return _checked(await blob.read(range_.start, min(blob.first_bytes, range_.size)), range_.start)


async def pieces_of(blob: OpenBlob, key: str, range_: Span, first: Block = b"") -> AsyncIterator[Block]:
    """Yield the bytes in pieces. `first` is the first block, if it has been read. Raise StorageUnavailable.

    The first block is small, and each whole block doubles the next one: a client that reads little costs little.
    """
    offset, left, most = range_.start, range_.size, blob.first_bytes
    with _naming(key), BLOCKS.reader() as reader:
        while left:
            block = first or _checked(await blob.read(offset, min(most, left)), offset)
            first = b""
            size, taken = len(block), 0
            BLOCKS.keep(reader, block)
            del block
            while piece := BLOCKS.take(reader, taken):
                taken += len(piece)
                yield piece
            most = min(2 * most, blob.block_bytes) if taken == size else blob.first_bytes
            offset, left = offset + taken, left - taken


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Add the key of the blob to the detail of a failure."""
    try:
        yield
    except StorageUnavailable as error:
        raise StorageUnavailable(error.message, detail=f"blob {key}: {error.for_operator}") from error


def _checked(block: Block, offset: int) -> Block:
    """Return the block. Raise StorageUnavailable if the blob ends before it."""
    if not block:
        raise StorageUnavailable("The stored bytes cannot be read.", detail=f"it ends at {offset}")
    return block
