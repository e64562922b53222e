"""`/metrics`, and what is noted for it about each request."""

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp

from uponce.app.ports import Metrics
from uponce.core.errors import BadToken
from uponce.web.body import Message, Receive, Scope, Send
from uponce.web.request import read_head
from uponce.web.respond import REFUSED, Header, send_error

INTERNAL_ERROR = "internal_error"

_METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS".split())
_SENDING = frozenset(("POST", "PUT", "PATCH"))
_CHALLENGE: Header = (b"www-authenticate", b'Bearer realm="uponce metrics"')


@dataclass(frozen=True, slots=True)
class Scrape:
    """Who may read the metrics, and how: their text of this moment, in Prometheus' text format 0.0.4."""

    token: str
    text: Callable[[], bytes]


class MetricsEndpoint:
    """`/metrics`"""

    def __init__(self, scrape: Scrape) -> None:
        self._scrape = scrape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._may_read(read_head(scope).get("authorization")):
            error = BadToken("Send UPONCE_METRICS_TOKEN as Authorization: Bearer.")
            await send_error(scope, receive, send, error, body_complete=False, headers=(_CHALLENGE,))
            return
        text = await asyncio.to_thread(self._scrape.text)
        headers = [
            (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})

    def _may_read(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        right = hmac.compare_digest(token.encode("latin-1"), self._scrape.token.encode())
        return right and scheme.lower() == "bearer"


class CountedUploads:
    """Around an endpoint that takes uploads: what arrives at it, and what it refuses."""

    def __init__(self, endpoint: ASGIApp, metrics: Metrics) -> None:
        self._endpoint = endpoint
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _SENDING:
            await self._endpoint(scope, receive, send)
            return

        async def counted() -> Message:
            message = await receive()
            if body := message.get("body"):
                self._metrics.received(len(body))
            return message

        with self._metrics.sending():
            try:
                await self._endpoint(scope, counted, send)
            except Exception:
                self._metrics.refused(INTERNAL_ERROR)
                raise
        if REFUSED in scope["state"]:
            self._metrics.refused(scope["state"][REFUSED])


def note(metrics: Metrics, scope: Scope, status: int, seconds: float) -> None:
    """A request is over. Whatever a client can make up counts as one."""
    route = scope.get("route")
    method = scope["method"]
    template = "unmatched" if route is None else route.path_format
    metrics.answered(template, method if method in _METHODS else "other", status, seconds)
