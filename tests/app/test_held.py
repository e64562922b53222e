"""A file that is sent while it arrives, when the connection to the upstream breaks."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from uponce.app.attempts import Memory
from uponce.app.relaying import held
from uponce.app.relaying.chunks import Data
from uponce.app.relaying.held import HeldFile, Stream
from uponce.core.errors import UpstreamUnavailable
from uponce.core.policy import Limits

PASSING: Any = SimpleNamespace(spec=SimpleNamespace(sha256=None), idempotency_key=None)


def test_a_connection_that_breaks_while_the_signature_is_awaited_is_an_unavailable_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The HTTP client then cancels what reads the file."""
    asyncio.run(_break(monkeypatch, Stream))


class Unshielded(Stream):
    """The mutant: what cancels the reader cancels the request's own future, too."""

    async def _arriving(self) -> AsyncIterator[Data]:
        while (block := await self._blocks.get()) is not None:
            yield block
        await self._agreed


def test_control_a_reader_that_cancels_the_future_it_waits_for_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(asyncio.InvalidStateError):
        asyncio.run(_break(monkeypatch, Unshielded))


async def _break(monkeypatch: pytest.MonkeyPatch, kind: type[Stream]) -> None:
    broken = asyncio.Event()

    class Breaking:
        def __init__(self, *_: Any) -> None: ...

        async def send(self, blocks: AsyncIterator[bytes]) -> None:
            reading = asyncio.ensure_future(_read(blocks))
            while not getattr(self, "digest", None):  # the file has ended
                await asyncio.sleep(0)
            await asyncio.wait([reading], timeout=0.01)  # the reader now waits for the end of the request
            reading.cancel()
            await asyncio.wait([reading])
            broken.set()
            raise UpstreamUnavailable("The connection broke.")

    monkeypatch.setattr(held, "Relaying", Breaking)
    nothing: Any = None
    stream = kind(nothing, PASSING, in_chunks=False)
    await stream.write(b"the whole file")
    await stream.seal()
    await broken.wait()
    try:
        with pytest.raises(UpstreamUnavailable):
            await stream.finish()
    finally:
        await asyncio.wait([stream._sending])
        stream._sending.exception()


def test_writes_end_when_the_upstream_has_ended_the_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the write that waits at this moment, and those after it."""

    class Ending:
        def __init__(self, *_: Any) -> None: ...

        async def send(self, blocks: AsyncIterator[bytes]) -> None:
            await anext(blocks)
            await asyncio.sleep(0.01)
            raise UpstreamUnavailable("The connection broke.")

    async def write() -> None:
        nothing: Any = None
        stream = Stream(nothing, PASSING, in_chunks=False)
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable):
                while True:
                    await stream.write(bytes(100_000))

    monkeypatch.setattr(held, "Relaying", Ending)
    asyncio.run(asyncio.wait_for(write(), 60))


async def _read(blocks: AsyncIterator[bytes]) -> None:
    async for _ in blocks:
        pass


@pytest.mark.parametrize(
    ("filename", "length", "sent"),
    [("a.bin", None, 0), ("a.bin", 20, 0), ("a.bin", 1200, 0), ("a.bin", 1201, 10), (None, 1201, 0)],
)
def test_a_file_that_is_certainly_large_is_not_gathered(
    monkeypatch: pytest.MonkeyPatch, filename: str | None, length: int | None, sent: int
) -> None:
    """Of 64 such files that begin at a time, up to 8 MiB would be held, and then sent all the same.

    A file without a name may be text that is decoded, so its size is not certain.
    """
    taken: list[bytes | bytearray] = []

    class Recording:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        async def write(self, data: Data) -> None:
            taken.append(data)

    monkeypatch.setattr(held, "Stream", Recording)
    limits = Limits(small_body_bytes=1000, max_form_bytes=200)
    services: Any = SimpleNamespace(limits=limits, attempts=SimpleNamespace(memory=Memory(8 * 1024 * 1024)))
    passing: Any = SimpleNamespace(filename=filename)
    asyncio.run(HeldFile(services, passing, length).write(b"0123456789"))
    assert sum(map(len, taken)) == sent
