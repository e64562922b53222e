"""One line in the log for each request: what it did, with which key, to which asset, and from where.

Endpoints note facts in the request's state while they work, and `log_request` writes them once the request is over.
Neither a path nor a query is written: they can hold live signatures.
"""

import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from uponce.app.uploading.intake import Event, Field
from uponce.app.uploading.pipeline import Uploaded
from uponce.core.errors import Unavailable, UponceError
from uponce.core.series import Series
from uponce.web.body import Scope

log = logging.getLogger("uponce")

_FACTS = "log"
_NOTED = {"api_key": "key", "public_id": "public_id"}
_WRITING = frozenset(("POST", "PUT", "PATCH", "DELETE"))


def note_fields(scope: Scope, fields: Iterable[tuple[str, str]]) -> None:
    """Note the API key and the public_id that a client sent. The first of each counts, as sent and not verified."""
    for name, value in fields:
        if name in _NOTED:
            _facts(scope).setdefault(_NOTED[name], value)


async def noting(scope: Scope, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """Yield the events of an upload, and note the API key and the public_id among its fields."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Field):
                note_fields(scope, [(event.name, event.value)])
            yield event


def note_outcome(scope: Scope, outcome: Uploaded | Series) -> None:
    """Note what an upload did: it stored an asset, repeated a lost answer, or brought a part of a series."""
    if isinstance(outcome, Series):
        _facts(scope).update(event="part", key=outcome.api_key, received=outcome.received)
        return
    asset, replayed = outcome.committed.asset, outcome.committed.replayed
    _facts(scope).update(
        event="repeated" if replayed else "stored",
        key=outcome.signer.api_key,
        public_id=asset.name.public_id,
        bytes=asset.digest.size,
    )


def note_event(scope: Scope, event: str) -> None:
    """Note in one word what the request did."""
    _facts(scope)["event"] = event


def note_error(scope: Scope, error: UponceError) -> None:
    """Note a refusal by its code, and for the operator alone its detail."""
    event = "failed" if isinstance(error, Unavailable) else "refused"
    _facts(scope).update(event=event, code=error.code)
    if error.detail:
        _facts(scope)["detail"] = error.detail


def log_request(scope: Scope, status: int, seconds: float, failure: BaseException | None = None) -> None:
    """Write the one line of this request.

    Level `info` has uploads, deletions and refusals, `error` what the server could not do, `debug` all the rest.
    """
    facts, writing = dict(_facts(scope)), scope["method"] in _WRITING
    event = facts.pop("event", "answered" if status else "aborted")
    if failure is not None or event == "failed":
        level = logging.ERROR
    elif event == "answered" or (event == "aborted" and not writing):
        level = logging.DEBUG
    else:
        level = logging.INFO
    if not log.isEnabledFor(level):
        return
    route, client = scope.get("route"), scope.get("client")
    facts |= {
        "status": status,
        "ms": round(seconds * 1000),
        "address": client[0] if client else "-",
        "method": scope["method"],
        "route": "-" if route is None else route.path_format,
    }
    what = "failed" if failure is not None else event
    log.log(level, what, exc_info=failure, extra={"request_id": scope["state"]["request_id"], "facts": facts})


def _facts(scope: Scope) -> dict[str, Any]:
    facts: dict[str, Any] = scope.setdefault("state", {}).setdefault(_FACTS, {})
    return facts
