"""The endpoints for operators and their tools: whether a server lives, whether it is ready, and its metrics."""

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from uponce.app.check import check_ready
from uponce.app.services import Services
from uponce.app.threads import in_a_thread
from uponce.core.errors import BadToken, DatabaseUnavailable, Unavailable
from uponce.web.errors import refusal
from uponce.web.request import Header, Request
from uponce.web.response import NO_SNIFF, NO_STORE, Response, json_response, length_header

_RETRY: Header = (b"retry-after", str(DatabaseUnavailable.retry_seconds).encode())
_CHALLENGE: Header = (b"www-authenticate", b'Bearer realm="uponce metrics"')
_COUNT_SECONDS = 1
_METRICS_TYPE: Header = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


async def healthz(_: Request) -> Response:
    """Return 200: this process runs."""
    return json_response({"status": "ok"})


async def readyz(services: Services, request: Request) -> Response:
    """Return 200 if the database, the blob store and the decoders work. 503 names the part that fails.

    With `?for=balancer`, 503 says that another server may do better. A server that is shutting down answers 503 without
    asking its parts. A balancer that must wait for a slow database would send uploads for too long.
    """
    checks: dict[str, str | None]
    if request.scope.get("state", {}).get("draining", bool)():
        checks = {"server": "Shutting down: this server accepts requests for a few more seconds."}
    else:
        for_balancer = ("for", "balancer") in request.query(services.limits)
        checks = await check_ready(services, for_balancer=for_balancer)
    ready = all(problem is None for problem in checks.values())
    body = {"status": "ok" if ready else "unavailable", "checks": {k: v or "ok" for k, v in checks.items()}}
    return json_response(body) if ready else json_response(body, status=503, headers=(_RETRY,))


@dataclass(frozen=True, slots=True)
class Scrape:
    """The token that opens the metrics, and a function that returns them in Prometheus' text format 0.0.4."""

    token: str
    text: Callable[[], bytes]


async def metrics(scrape: Scrape, services: Services, request: Request) -> Response:
    """Return the metrics, with the last counts if the database fails, or 401 without the right token."""
    if not _may_read(scrape, request.head.get("authorization")):
        error = BadToken("Send UPONCE_METRICS_TOKEN as Authorization: Bearer.")
        return refusal(request, error, headers=(_CHALLENGE,))
    with suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(_COUNT_SECONDS):
            services.metrics.waiting(await services.database.count_waiting())
    text = await in_a_thread(scrape.text)
    return Response(200, (_METRICS_TYPE, length_header(len(text)), NO_STORE, NO_SNIFF), text)


def _may_read(scrape: Scrape, authorization: str) -> bool:
    scheme, _, token = authorization.partition(" ")
    right = hmac.compare_digest(token.encode("latin-1"), scrape.token.encode())
    return right and scheme.lower() == "bearer"
