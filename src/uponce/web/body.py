"""The request body as it comes from the wire, under an idle limit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from uponce.core.errors import MalformedRequest, RequestTooSlow

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Body:
    """Chunks of one request's body.

    A connection that ends early is MalformedRequest, one that is silent for `idle_seconds` RequestTooSlow.
    """

    def __init__(self, receive: Receive, idle_seconds: float) -> None:
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._first = b""
        self.complete = False

    async def first(self) -> bytes:
        """The first chunk, which `chunks` yields again. `complete` says whether it is the whole body."""
        self._first = await anext(self.chunks(), b"")
        return self._first

    async def chunks(self) -> AsyncIterator[bytes]:
        first, self._first = self._first, b""
        if first:
            yield first
        while not self.complete:
            message = await self._next()
            if message["type"] == "http.disconnect":
                self.complete = True
                raise MalformedRequest("The connection ended before the request was complete. Send the request again.")
            self.complete = not message.get("more_body", False)
            chunk = message.get("body", b"")
            if chunk:
                yield chunk

    async def read(self, limit: int) -> bytes:
        """The whole body of a small request."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > limit:
                raise MalformedRequest(f"The request body is larger than {limit} bytes. Send fewer or shorter fields.")
            parts.append(chunk)
        return b"".join(parts)

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await self._receive()
        except TimeoutError:
            raise RequestTooSlow(
                f"No byte of the body arrived for {self._idle_seconds:g} seconds. Send the request again."
            ) from None
