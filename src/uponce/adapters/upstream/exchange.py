"""HTTP requests and their answers, by aiohttp. Its exceptions end here."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from uponce.adapters.upstream import Times
from uponce.adapters.upstream.bodies import Body
from uponce.adapters.upstream.sending import Sending
from uponce.app.ports.upstream import UpstreamReply
from uponce.core.errors import OutcomeUnknown, UpstreamUnavailable

MOST_BYTES = 1024 * 1024  # of an answer, unpacked; a list of 500 assets has about 300 KB
# What a client needs to wait, and to know why. All other headers speak of the upstream's connection or cookies.
_PASSED_ON = (
    "X-FeatureRateLimit-Limit",
    "X-FeatureRateLimit-Remaining",
    "X-FeatureRateLimit-Reset",
    "Retry-After",
    "X-Cld-Error",
)
_BROKEN = (aiohttp.ClientError, OSError, ValueError)
_MOST_DETAIL = 300


class Exchanges:
    """A pool of connections. Make it on the event loop that uses it, and close it."""

    def __init__(self, times: Times, connections: int) -> None:
        self._times = times
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=times.idle),
            timeout=aiohttp.ClientTimeout(total=None, connect=times.connect),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, url: str, headers: Mapping[str, str]) -> UpstreamReply:
        """Return the answer, whatever its status."""
        limit = aiohttp.ClientTimeout(total=self._times.connect + self._times.reply, connect=self._times.connect)
        try:
            address = URL(url, encoded=True)
            async with self._session.get(address, headers=headers, timeout=limit, allow_redirects=False) as answer:
                return await _read(answer)
        except _BROKEN as error:
            raise _unavailable(_detail(url, error)) from None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> UpstreamReply:
        """Return the answer, whatever its status, also one that begins before the body has left."""
        sending = Sending(body, self._times)
        reply, lost = None, ""
        try:
            reply = await self._send(method, url, headers, sending)
        except _BROKEN as error:
            lost = _detail(url, error)
        finally:
            await sending.settle()
        if sending.error is not None:
            raise sending.error
        if reply is None:
            raise _unknown(lost) if sending.committed else _unavailable(lost)
        return replace(reply, is_early=not sending.committed)

    async def _send(self, method: str, url: str, headers: Mapping[str, str], sending: Sending) -> UpstreamReply:
        address = URL(url, encoded=True)
        async with asyncio.timeout(None) as limit:
            sending.limit = limit
            try:
                async with self._session.request(
                    method, address, headers=headers, data=sending, allow_redirects=False
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
            raise aiohttp.ClientPayloadError(f"the answer has more than {MOST_BYTES} bytes")
    return UpstreamReply(
        status=answer.status,
        document=_object(body),
        body=body.decode(errors="replace"),
        headers=tuple((name, _plain(answer.headers[name])) for name in _PASSED_ON if name in answer.headers),
        date=_seconds(answer.headers.get("Date", "")),
    )


def _object(body: bytearray) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _plain(value: str) -> str:
    """Return a header that any client can receive: aiohttp keeps bytes that are no text as lone surrogates."""
    return value.encode("ascii", "replace").decode()


def _seconds(date: str) -> float | None:
    try:
        moment: datetime = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _detail(url: str, error: Exception) -> str:
    path = url.partition("://")[2].partition("?")[0].partition("/")[2]
    return f"/{path}: {type(error).__name__} {error}"[:_MOST_DETAIL]


def _unavailable(detail: str) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        "The upstream cannot be reached, and nothing was done there. Send the request again in 5 seconds.",
        detail=detail,
    )


def _unknown(detail: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        "The request was passed on to the upstream, and no answer came back. It may have been carried out. Wait 10 "
        "seconds, then ask for the signature's status, or send the request again.",
        detail=detail,
        retry_after=10,
    )
