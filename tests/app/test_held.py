"""A file that is sent while it arrives, when the connection to the upstream breaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from uponce.app.relaying import held
from uponce.app.relaying.held import Stream
from uponce.core.errors import UpstreamUnavailable


def test_a_connection_that_breaks_while_the_signature_is_awaited_is_an_unavailable_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The HTTP client then cancels what reads the file."""
    asyncio.run(_break(monkeypatch))


async def _break(monkeypatch: pytest.MonkeyPatch) -> None:
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
    stream = Stream(nothing, nothing, in_chunks=False)
    await stream.write(b"the whole file")
    await stream.seal()
    await broken.wait()
    with pytest.raises(UpstreamUnavailable):
        await stream.finish()


async def _read(blocks: AsyncIterator[bytes]) -> None:
    async for _ in blocks:
        pass
