"""The record of each request: one line in the log, and one count in the metrics.

The log says what the request did, with which key, to which asset, and from where. Endpoints note facts while they work,
and `record_request` writes them once the request is over. Neither a path nor a query is written: they can hold live
signatures.
"""

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from uponce.app.ports import Metrics
from uponce.app.uploading.intake import Event, Field
from uponce.app.uploading.pipeline import Uploaded
from uponce.core.errors import Unavailable, UponceError
from uponce.core.relaying import Forwarded
from uponce.core.series import Series
from uponce.web.request import Request, Scope

log = logging.getLogger("uponce")

_NOTED = {"api_key": "key", "public_id": "public_id"}
_WRITING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS".split())


def note_fields(request: Request, fields: Iterable[tuple[str, str]]) -> None:
    """Note the API key and the public_id that a client sent. The first of each counts, not verified."""
    for name, value in fields:
        if name in _NOTED:
            request.facts.setdefault(_NOTED[name], value)


async def noting(request: Request, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Yield the events of an upload, and note the API key and the public_id among its fields."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Field):
                note_fields(request, [(event.name, event.value)])
            yield event


def note_outcome(request: Request, outcome: Uploaded | Forwarded | Series) -> None:
    """Note what an upload did: it stored an asset here or upstream, repeated a lost answer, or brought a part."""
    if isinstance(outcome, Forwarded):
        request.facts.update(event="repeated" if outcome.replayed else "relayed", public_id=outcome.public_id)
        return
    if isinstance(outcome, Series):
        request.facts.update(event="part", key=outcome.api_key, received=outcome.received)
        return
    asset, replayed = outcome.committed.asset, outcome.committed.replayed
    request.facts.update(
        event="repeated" if replayed else "stored",
        key=outcome.signer.api_key,
        public_id=asset.name.public_id,
        bytes=asset.digest.size,
    )


def note_event(request: Request, event: str) -> None:
    """Note in one word what the request did."""
    request.facts["event"] = event


def note_error(request: Request, error: UponceError) -> None:
    """Note a refusal by its code. Its detail is for the operator alone."""
    event = "failed" if isinstance(error, Unavailable) else "refused"
    request.facts.update(event=event, code=error.code)
    if error.detail:
        request.facts["detail"] = error.detail


def record_request(
    metrics: Metrics,
    scope: Scope,
    request_id: str,
    route: str | None,
    facts: Mapping[str, Any],
    status: int,
    seconds: float,
    failure: BaseException | None = None,
) -> None:
    """Count the request and write its line. `route` is the route's path, or None without a route.

    Level `info` has uploads, deletions and refusals, `error` the failures of the server, `debug` all other requests.
    """
    method = scope["method"]
    # Label values come from code, never from clients, so their number is bounded.
    metrics.answered(route or "unmatched", method if method in _METHODS else "other", status, seconds)
    event = facts.get("event", "answered" if status else "aborted")
    level = _level(event, method, failure)
    if not log.isEnabledFor(level):
        return
    client = scope.get("client")
    shown = {name: value for name, value in facts.items() if name != "event"} | {
        "status": status,
        "ms": round(seconds * 1000),
        "address": client[0] if client else "-",
        "method": method,
        "route": route or "-",
    }
    what = "failed" if failure is not None else event
    log.log(level, what, exc_info=failure, extra={"request_id": request_id, "facts": shown})


def _level(event: str, method: str, failure: BaseException | None) -> int:
    if failure is not None or event == "failed":
        return logging.ERROR
    if event == "answered" or (event == "aborted" and method not in _WRITING):
        return logging.DEBUG
    return logging.INFO
