"""A large file in chunks: which are sent while they arrive, and which are spooled first."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from uponce.app.relaying.chunks import RelayChunk, cut, cut_arriving

MIB = 1024 * 1024


class Spooled:
    """A SpooledChunk in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    async def write(self, data: bytes) -> None:
        self.data += data

    async def flush(self) -> None: ...

    async def blocks(self) -> AsyncIterator[bytes]:
        yield bytes(self.data)

    async def discard(self) -> None: ...


class Spool:
    """The one method of a BlobStore that chunks use."""

    def __init__(self) -> None:
        self.received: list[Spooled] = []

    async def receive_chunk(self) -> Spooled:
        self.received.append(Spooled())
        return self.received[-1]


async def blocks_of(file: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(file), size):
        yield file[start : start + size]


async def read(chunk: RelayChunk) -> bytes:
    return b"".join([bytes(block) async for block in chunk.blocks])


async def sent(file: bytes, chunk_bytes: int, least: int, spool: Spool | None = None) -> list[tuple[str, int, bool]]:
    """Cut the file; return span, size and whether it is the last of each chunk, whose bytes are the file's."""
    chunks, at = [], 0
    async for chunk in cut_arriving(blocks_of(file, 1000), spool or Spool(), chunk_bytes, least):  # type: ignore[arg-type]
        data = await read(chunk)
        assert 0 < chunk.size == len(data) and data == file[at : at + chunk.size]
        assert chunk.span.startswith(f"bytes {at}-{at + chunk.size - 1}/")
        chunks.append((chunk.span, chunk.size, chunk.is_last))
        at += chunk.size
    assert at == len(file)
    return chunks


@pytest.mark.parametrize("unknown", [0, 1, 500, 4000, 6000, 10_000])
@pytest.mark.parametrize("size", [10_500, 12_000, 12_001, 14_999])
def test_whatever_is_known_of_its_size_the_chunks_are_the_file(size: int, unknown: int) -> None:
    """Of a file of 12,000 bytes, all of them known, the last 4,000 are still the chunk that is known to be the last."""
    file = bytes(number % 251 for number in range(size))
    chunks = asyncio.run(sent(file, 4000, size - unknown))
    assert [is_last for *_, is_last in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(length == 4000 for _, length, is_last in chunks if not is_last)
    starts = [4000 * number for number in range(len(chunks))]
    ends = [*(start - 1 for start in starts[1:]), size - 1]
    totals = [-1] * (len(chunks) - 1) + [size]
    assert [span for span, *_ in chunks] == [f"bytes {s}-{e}/{t}" for s, e, t in zip(starts, ends, totals, strict=True)]


def test_only_what_may_be_the_end_is_spooled() -> None:
    spool = Spool()
    file = bytes(30 * MIB)
    chunks = asyncio.run(sent(file, 10 * MIB, len(file) - MIB, spool))
    # 19 MiB are certain, and one byte must be left for the chunk that is known to be the last one.
    assert [size for _, size, _ in chunks] == [10 * MIB, 10 * MIB, 9 * MIB - 1, MIB + 1]
    assert sum(spooled.size for spooled in spool.received) == MIB + 1


def test_no_chunk_but_the_last_is_smaller_than_an_account_takes() -> None:
    file = bytes(25 * MIB)
    sizes = [size for _, size, _ in asyncio.run(sent(file, 10 * MIB, len(file) - MIB))]
    assert sizes == [10 * MIB, 10 * MIB, 5 * MIB]
    assert min(sizes[:-1]) >= 5 * MIB


def test_a_chunk_that_is_certain_leaves_while_it_arrives() -> None:
    async def look() -> list[str]:
        seen: list[str] = []

        async def arriving() -> AsyncIterator[bytes]:
            for number in range(4):
                seen.append(f"arrived {number}")
                yield bytes(1000)

        async for chunk in cut_arriving(arriving(), Spool(), 2000, 4000):  # type: ignore[arg-type]
            async for block in chunk.blocks:
                seen.append(f"sent {len(block)}")
        return seen

    assert asyncio.run(look()) == [
        "arrived 0",
        "sent 1000",
        "arrived 1",
        "sent 1000",
        "arrived 2",
        "arrived 3",
        "sent 2000",
    ]


def test_a_file_of_known_size_is_cut_without_a_spool() -> None:
    async def chunks() -> list[tuple[str, bytes, bool]]:
        parts = cut(blocks_of(b"0123456789", 3), 10, 4)
        return [(chunk.span, await read(chunk), chunk.is_last) async for chunk in parts]

    assert asyncio.run(chunks()) == [
        ("bytes 0-3/10", b"0123", False),
        ("bytes 4-7/10", b"4567", False),
        ("bytes 8-9/10", b"89", True),
    ]
