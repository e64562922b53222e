"""Liveness and readiness."""

from uponce.app.check import check_ready
from uponce.app.services import Services
from uponce.core.errors import DatabaseUnavailable
from uponce.web.body import Receive, Scope, Send
from uponce.web.respond import Header, send_json

_RETRY: Header = (b"retry-after", str(DatabaseUnavailable.retry_seconds).encode())


class HealthEndpoint:
    """`/healthz`: this process runs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(scope, send, 200, {"status": "ok"})


class ReadyEndpoint:
    """`/readyz`: the database, the blob store and the decoders work, and the server is not shutting down. 503 names the
    part that fails. A server that is shutting down says so at once, without asking its parts: a balancer that has to
    wait for a slow database would go on sending uploads until it is too late."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        checks: dict[str, str | None]
        if scope.get("state", {}).get("draining", _never)():
            checks = {"server": "Shutting down: this server accepts requests for a few more seconds."}
        else:
            checks = await check_ready(self._services)
        ready = all(problem is None for problem in checks.values())
        body = {"status": "ok" if ready else "unavailable", "checks": {k: v or "ok" for k, v in checks.items()}}
        status, headers = (200, ()) if ready else (503, (_RETRY,))
        await send_json(scope, send, status, body, headers)


def _never() -> bool:
    return False
