"""A server whose cloud has a misbehaving upstream, for the tests of this folder."""

import hashlib
from collections.abc import AsyncIterable, Mapping
from typing import Any

from tests.asgi import Answer
from tests.world import QuickWorld
from uponce.adapters.upstream import Times
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.ports.relaying import AdminCall, Query, Sign, UpstreamCall, UpstreamReply
from uponce.core.policy import Limits
from uponce.core.values import Upstream

LIMITS = Limits(
    max_failed_credentials=1_000_000,
    small_body_bytes=4096,
    relay_whole_bytes=100_000,
    relay_chunk_bytes=40_000,
    max_form_bytes=20_000,  # so that of a file of three chunks one is certain to be whole, and sent as it arrives
)


class EachOnItsLoop:
    """The real client, on a new event loop for each request, as the tests of this folder make it."""

    def __init__(self, times: Times | None = None) -> None:
        self.times = times or Times(connect=60, reply=60, look=60)

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        client = HttpUpstream(self.times)
        try:
            return await client.upload(upstream, call, file, sign)
        finally:
            await client.close()

    async def get(self, upstream: Upstream, path: str, query: Query = ()) -> UpstreamReply:
        client = HttpUpstream(self.times)
        try:
            return await client.get(upstream, path, query)
        finally:
            await client.close()

    async def call(self, upstream: Upstream, path: str, asked: AdminCall) -> UpstreamReply:
        client = HttpUpstream(self.times)
        try:
            return await client.call(upstream, path, asked)
        finally:
            await client.close()

    async def post(self, upstream: Upstream, path: str, fields: Query) -> UpstreamReply:
        client = HttpUpstream(self.times)
        try:
            return await client.post(upstream, path, fields)
        finally:
            await client.close()


class Sized(QuickWorld):
    """A server whose clients say how long their forms are, as browsers and SDKs do."""

    def post(self, *body: bytes, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        length = {"content-length": str(sum(map(len, body)))}
        return super().post(*body, headers={**length, **(headers or {})}, **more)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
