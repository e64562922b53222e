"""Calls of the relay's HTTP client: a file, a `sign` that can be held up, and a run that leaves nothing over."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.upstreams import StubUpstream
from uponce.adapters.upstream import Times
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.ports.relaying import UpstreamCall
from uponce.core.upstream import signed
from uponce.core.values import Upstream

FIELDS = {"public_id": "a/b", "overwrite": "false"}
CALL = UpstreamCall("image", FIELDS, "cat.png")
BYTES = bytes(range(256)) * 16
MD5 = hashlib.md5(BYTES).hexdigest()
KEY = ("image", "upload", "a/b")


async def pieces(data: bytes = BYTES, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(0)


async def turns() -> None:
    """Return when all that is on its way between client and stub has arrived: both are on this loop."""
    for _ in range(100):
        await asyncio.sleep(0)


class Clock:
    """The clock of the running loop, which a test can set forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop, self.ahead = asyncio.get_running_loop(), 0.0
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)


class Signer:
    """A `sign` that counts its calls, and waits before it returns."""

    def __init__(self, upstream: Upstream, fields: Mapping[str, str] = FIELDS, age: int = 3300) -> None:
        self.upstream, self.fields, self.age = upstream, fields, age
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.calls = self.ends = 0

    async def __call__(self) -> Mapping[str, str]:
        self.calls += 1
        self.begun.set()
        await self.go.wait()
        self.ends += 1
        return signed(self.upstream, self.fields, int(time.time()) - self.age)


def complete(upstream: Upstream, call: UpstreamCall = CALL) -> UpstreamCall:
    """The call with all fields before the file."""
    return replace(call, fields={**call.fields, **signed(upstream, call.fields, int(time.time()))})


@asynccontextmanager
async def world(times: Times | None = None, **options: Any) -> AsyncIterator[tuple[StubUpstream, HttpUpstream]]:
    client = HttpUpstream(times)
    try:
        async with StubUpstream(**options) as stub:
            yield stub, client
            await client.close()
    finally:
        await client.close()


Play = Callable[[StubUpstream, HttpUpstream], Awaitable[None]]


def run(play: Play, times: Times | None = None, **options: Any) -> None:
    """Play against a stub. Nothing may be left over: no task, no exception that no code retrieved."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with world(times, **options) as (stub, client):
            await play(stub, client)
        deadline = time.monotonic() + 60
        while len(asyncio.all_tasks()) > 1 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert complaints == []


def certificate(folder: Path) -> Path:
    """A file with a key and a certificate that it signed itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem = serialization.Encoding.PEM
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "server.pem"
    path.write_bytes(plain + built.sign(key, hashes.SHA256()).public_bytes(pem))
    return path
