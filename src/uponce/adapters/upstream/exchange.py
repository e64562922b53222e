"""HTTP requests and their answers, by aiohttp. Its exceptions never leave this module."""

import asyncio
import json
import math
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, Never, TypeVar

import aiohttp
import msgspec
from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from yarl import URL

from uponce.adapters.resolver import Resolver
from uponce.adapters.upstream import Times
from uponce.adapters.upstream.bodies import UpstreamBody
from uponce.app.ports.relaying import UpstreamReply
from uponce.core.errors import OutcomeUnknown, UpstreamUnavailable, without_queries
from uponce.core.relaying import seconds_of

T = TypeVar("T")

MOST_BYTES = 16 * 1024 * 1024  # in an unpacked answer; a list of 500 assets with their context has a few MB
# The headers that let a client wait, and know why. All others are about the upstream's connection or cookies.
_PASSED_ON = (
    "X-FeatureRateLimit-Limit",
    "X-FeatureRateLimit-Remaining",
    "X-FeatureRateLimit-Reset",
    "Retry-After",
    "X-Cld-Error",
)
_BROKEN = (aiohttp.ClientError, OSError, ValueError)
_MOST_DETAIL = 300
_PIECE_BYTES = 256 * 1024  # a transport copies bytes that it cannot send at once, again and again


class Sending(Payload):
    """The body of a request, in the form that aiohttp writes.

    `committed`: the upstream may be able to complete the request. `whole`: the tail was passed on too. `error` is what
    `file` or `tail` raised: aiohttp itself hides it in an error of its connection. `limit` is the deadline of the
    answer.
    """

    _autoclose = True

    def __init__(self, body: UpstreamBody, times: Times) -> None:
        super().__init__(body, content_type=body.content_type)
        self._size = body.size  # from which aiohttp makes Content-Length
        self._left = body.size
        self._body = body
        self._times = times
        self._tail: asyncio.Future[bytes] | None = None
        self._begun = self._stopped = False
        self._ended = asyncio.Event()
        self.committed = self.whole = False
        self.error: BaseException | None = None
        self.limit: asyncio.Timeout | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> Never:
        raise TypeError("a body is sent once, piece by piece")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the whole body. If that fails, end the connection at once: the upstream never gets the end."""
        assert isinstance(writer, StreamWriter)
        # Consumed: aiohttp repeats a DELETE or PUT on its own when a kept connection breaks, but no consumed body.
        self._begun = self._consumed = True
        complete = False
        try:
            await self._write(writer)
            complete = True
        finally:
            # Closing would first wait until the upstream has read the buffered bytes, perhaps for ever.
            if not complete and writer.transport is not None:
                writer.transport.abort()
            self._ended.set()

    async def _write(self, writer: StreamWriter) -> None:
        body = self._body
        self.committed = not body.withheld
        await self._put(writer, body.head)
        if body.file is not None:
            pieces = aiter(body.file)
            while (piece := await self._own(anext(pieces, None))) is not None:
                await self._put(writer, piece)
        if body.tail is not None:
            await self._unless_stopped()
            self._tail = asyncio.ensure_future(body.tail())
            await self._put(writer, await self._own(asyncio.shield(self._tail)), last=True)
        self._start_limit()

    async def _put(self, writer: StreamWriter, data: bytes | bytearray, *, last: bool = False) -> None:
        await self._unless_stopped()
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (last and self._left):
                raise ValueError(f"a body of {self._size} bytes would end {self._left} bytes before its end")
        for start in range(0, len(data), _PIECE_BYTES):
            # It raises before it passes any byte on, or passes all bytes on.
            await writer.write(memoryview(data)[start : start + _PIECE_BYTES], drain=False)
            self.whole = last
            self.committed = self.committed or last
            async with asyncio.timeout(self._times.stall):
                await writer.drain()

    async def _own(self, awaited: Awaitable[T]) -> T:
        try:
            return await awaited
        except Exception as error:
            self.error = error
            raise

    async def _unless_stopped(self) -> None:
        if self._stopped:
            await asyncio.Event().wait()  # until aiohttp has read the answer, and cancels this

    def _start_limit(self) -> None:
        if self.limit is not None:
            self.limit.reschedule(asyncio.get_running_loop().time() + self._times.reply)

    def stop(self) -> None:
        """Send no more, since the answer has begun. If `tail` was not called yet, it is never called."""
        self._stopped = True
        self._start_limit()

    async def settle(self) -> None:
        """Return when `file` and `tail` are not in use any more.

        A `tail` that has begun is not interrupted: its caller must know what it did.
        """
        if self._begun:
            await self._ended.wait()
        if self._tail is not None:
            await asyncio.wait([self._tail])
            self.error = self.error or (None if self._tail.cancelled() else self._tail.exception())


class _TooLarge(aiohttp.ClientPayloadError):
    """The answer has too many bytes to read. Its text is for clients."""


class Exchanges:
    """A pool of connections, as many as needed. Make it on the event loop that uses it, and close it."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._resolver = Resolver()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=times.idle, resolver=self._resolver),
            timeout=aiohttp.ClientTimeout(total=None, connect=times.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()
        await self._resolver.close()

    async def get(self, url: str, headers: Mapping[str, str], seconds: float, body: bytes = b"") -> UpstreamReply:
        """Return the answer, whatever its status. It must come within `seconds`."""
        limit = aiohttp.ClientTimeout(total=seconds, connect=self._times.connect)
        try:
            async with self._session.get(
                URL(url, encoded=True), headers=headers, data=body or None, timeout=limit, allow_redirects=False
            ) as answer:
                return await _read(answer)
        except _BROKEN as error:
            raise _unavailable(url, error) from None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: UpstreamBody) -> UpstreamReply:
        """Return the answer, whatever its status, also one that begins before the whole body is sent."""
        sending = Sending(body, self._times)
        lost: Exception | None = None
        try:
            reply = await self._send(method, url, headers, sending)
        except _BROKEN as error:
            lost = error
        finally:
            await sending.settle()
        if sending.error is not None:
            raise sending.error
        if lost is not None:
            raise _unknown(url, lost) if sending.committed else _unavailable(url, lost)
        return replace(reply, is_early=body.tail is not None and not sending.whole)

    async def _send(self, method: str, url: str, headers: Mapping[str, str], sending: Sending) -> UpstreamReply:
        address = URL(url, encoded=True)
        unset = () if sending.content_type else ("Content-Type",)  # aiohttp would send an empty one
        async with asyncio.timeout(None) as limit:
            sending.limit = limit
            try:
                async with self._session.request(
                    method, address, headers=headers, data=sending, allow_redirects=False, skip_auto_headers=unset
                ) as answer:
                    sending.stop()
                    return await _read(answer)
            finally:
                sending.limit = None


async def _read(answer: aiohttp.ClientResponse) -> UpstreamReply:
    body = bytearray()
    async for block in answer.content.iter_any():
        body += block
        if len(body) > MOST_BYTES:
            raise _TooLarge(f"The answer of the upstream has more than {MOST_BYTES} bytes. Ask for fewer results.")
    return UpstreamReply(
        status=answer.status,
        document=_object(body),
        body=body.decode(errors="replace"),
        headers=tuple((name, _plain(answer.headers[name])) for name in _PASSED_ON if name in answer.headers),
        date=seconds_of(answer.headers.get("Date", "")),
    )


def _object(body: bytearray) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        document = _tolerant(body)
    return document if isinstance(document, dict) else None


def _tolerant(body: bytearray) -> Any:
    """Return what an answer says that other parsers read: with a byte order mark, half a character or a number too
    large. Return None if it is no JSON. Without this, the outcome of an upload that succeeded would stay unknown.
    """
    try:
        return _storable(json.loads(body.decode("utf-8-sig", "replace")))
    except (ValueError, RecursionError):
        return None


def _storable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_storable(name): _storable(each) for name, each in value.items()}
        case list():
            return [_storable(each) for each in value]
        case float():
            return value if math.isfinite(value) else None
    return value


def _plain(value: str) -> str:
    """Return a header that any client can receive: aiohttp keeps bytes that are no text as lone surrogates."""
    return value.encode("ascii", "replace").decode()


def _detail(url: str, error: Exception) -> str:
    path = url.partition("://")[2].partition("?")[0].partition("/")[2]
    said = without_queries(str(error))  # aiohttp repeats the URL
    return f"/{path}: {type(error).__name__} {said}"[:_MOST_DETAIL]


def _unavailable(url: str, error: Exception) -> UpstreamUnavailable:
    message = "The upstream cannot be reached, and nothing was done there. Send the request again in 5 seconds."
    return UpstreamUnavailable(str(error) if isinstance(error, _TooLarge) else message, detail=_detail(url, error))


def _unknown(url: str, error: Exception) -> OutcomeUnknown:
    what = str(error) if isinstance(error, _TooLarge) else "No answer came back."
    return OutcomeUnknown(
        f"The request was passed on to the upstream. {what} It may have been carried out. Wait 10 seconds, then ask "
        "for the signature's status, or send the request again.",
        detail=_detail(url, error),
        retry_after=10,
    )
