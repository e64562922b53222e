"""Find the outcome of an upload that is pending in an upstream: look the asset up until the outcome is certain."""

import hmac
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from uponce.app.outbox import Later
from uponce.app.ports import Effect, UpstreamReply
from uponce.app.relaying.relay import forwarded, told
from uponce.app.services import Services
from uponce.core.errors import InvalidSignature, NotFound, UpstreamUnavailable
from uponce.core.policy import Limits
from uponce.core.relaying import (
    Forwarded,
    Found,
    GrantVerdict,
    Missing,
    Relay,
    dies_at,
    error_message,
    is_answer,
    is_of,
    judge_look_up,
    seconds_of,
)
from uponce.core.signature import sign
from uponce.core.upstream import MARKER
from uponce.core.values import Algorithm, Upstream

log = logging.getLogger("uponce")

_FIRST_SECONDS, _GROWTH = 10, 6
_MOST_SECONDS = 300  # after a look-up that the account did not answer
_QUOTA_SECONDS = 3600
# If the answer of the upload is on its way, the upload is not pending any more after this time.
_NOTIFIED_SECONDS = 5
_NOTIFICATION_SECONDS = 7200  # as long as SDKs accept one
_MOST_PAGES = 100


async def reconcile(services: Services, effect: Effect) -> Later | None:
    """Look a pending upload up, as its effect. Return None if its outcome is written, else when to look again."""
    relay = await services.database.find_relay(effect.subject)
    if relay is None:
        return None
    upstream = (await services.database.list_upstreams(relay.cloud)).get(relay.cloud)
    cure = f"set it again, or run `uponce outbox drop {effect.id} --spend`"
    if upstream is None:
        return Later(_MOST_SECONDS, f"the cloud {relay.cloud} has no upstream any more: {cure}")
    account = relay.target.account
    if upstream.account != account:  # the answers of another account prove nothing about this upload
        return Later(_MOST_SECONDS, f"passed on to {account}, the former account of the cloud {relay.cloud}: {cure}")
    look = await _look_up(services, upstream, relay)
    found, now = look.found, min(effect.now, look.began)
    judgement = judge_look_up(relay, found, now, services.limits)
    if judgement.verdict is GrantVerdict.SPENT and isinstance(found, Found):
        await _spend(services, relay, found)
        return None
    if judgement.verdict is GrantVerdict.FREE:
        await services.database.end_relay(relay, None)
        return None
    if judgement.misses != relay.misses:
        await services.database.note_misses(relay.id, judgement.misses)
    pause = _pause(relay, effect.tries, now, services.limits, found)
    return Later(look.wait or pause, look.why and f"the look-up failed: {look.why}")


async def give_up(services: Services, effect_id: int) -> Relay | None:
    """Record that the upload of a look-up has spent its grants. Return the upload, or None if none is pending.

    The account may have the asset, or store it later. Spent grants make no second one. No answer is stored for the
    Idempotency-Key.
    """
    effect = await services.database.find_effect(effect_id)
    relay = None if effect is None else await services.database.find_relay(effect.subject)
    if relay is None:
        return None
    return relay if await services.database.end_relay(*_without_answer(relay), "given_up") else None


async def _spend(services: Services, relay: Relay, found: Found) -> None:
    ending = (relay, found.forwarded) if is_answer(relay, found) else _without_answer(relay)
    await services.database.end_relay(*ending, "looked_up")


def _without_answer(relay: Relay) -> tuple[Relay, Forwarded]:
    return replace(relay, key_hash=None), Forwarded(0, "")


def _pause(relay: Relay, tries: int, now: float, limits: Limits, found: Found | Missing) -> int:
    """Return the seconds until the next look-up: more each time, but few if that one can decide.

    A look-up that finds nothing decides only after the bound, and the account counts it: so few come before the bound.
    The second one after the bound comes soon.
    """
    seconds: int = _FIRST_SECONDS * _GROWTH ** min(tries - 1, 4)
    if found is Missing.UNREADABLE:
        seconds = min(seconds, _MOST_SECONDS)
    left = math.ceil(dies_at(relay, limits) - now)
    if left > 0:
        return max(1, min(seconds, left + 1))
    return _FIRST_SECONDS if found is Missing.NOTHING else seconds


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification as it arrived: its body, and the two headers that prove where it comes from."""

    body: bytes
    timestamp: str
    signature: str


async def notified(services: Services, cloud: str, notification: Notification) -> None:
    """Look up soon the upload that the account says it has stored, if that upload is pending. The look-up decides.

    Raise NotFound if the cloud has no upstream. Raise InvalidSignature unless the account signed this in the last two
    hours.
    """
    upstream = (await services.database.list_upstreams(cloud)).get(cloud)
    if upstream is None:
        raise NotFound(f"Cloud {cloud[:64]} has no upstream, so no account sends notifications here.")
    _verify(notification, upstream, services.clock.now())
    names = _names_in(notification.body)
    if names:
        await services.database.hasten_relays(cloud, names, _NOTIFIED_SECONDS)


def _verify(notification: Notification, upstream: Upstream, now: float) -> None:
    timestamp, given = notification.timestamp, notification.signature.encode()
    content = notification.body + timestamp.encode()
    expected = [sign(content, upstream.secret, algorithm).encode() for algorithm in Algorithm]
    matches = any(hmac.compare_digest(each, given) for each in expected)
    # With an empty secret, one that was lost, anyone could sign.
    if not matches or not upstream.secret or not re.fullmatch("[0-9]{1,12}", timestamp):
        raise InvalidSignature("The notification is not signed with the API secret of the upstream account.")
    if int(timestamp) < now - _NOTIFICATION_SECONDS:
        raise InvalidSignature(f"The notification is older than {_NOTIFICATION_SECONDS} seconds.")


def _names_in(body: bytes) -> Sequence[str]:
    """Return the names of an upload that a notification gives: its public_id, and the marker in its context."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(document, dict) or document.get("notification_type") != "upload":
        return ()
    return [name for name in (document.get("public_id"), _marker_of(document)) if isinstance(name, str) and name]


def _marker_of(document: Mapping[str, Any]) -> object:
    context = document.get("context")
    custom = context.get("custom") if isinstance(context, dict) else None
    return custom.get(MARKER) if isinstance(custom, dict) else None


@dataclass(frozen=True, slots=True)
class _Look:
    """The upload's asset, or the reason of its absence.

    `wait` is how many seconds the quota asks to wait, or 0. `why` says to the operator why the look-up failed. `began`
    is its beginning or earlier, by the upstream's clock, and infinite if no answer had a `Date`.
    """

    found: Found | Missing
    wait: int = 0
    why: str = ""
    began: float = math.inf


async def _look_up(services: Services, upstream: Upstream, relay: Relay) -> _Look:
    began = math.inf
    for kind, public_id in relay.target.names:
        asked, marker = monotonic(), None if public_id else relay.target.marker
        try:
            reply = await _ask(services, upstream, relay, kind, public_id, marker)
        except UpstreamUnavailable as error:
            return _Look(Missing.UNREADABLE, why=error.for_operator)
        if reply.date is not None:
            began = min(began, reply.date - (monotonic() - asked))
        if reply.status in (420, 429):
            why = f"the account's quota for the Admin API is used up, {told(reply)}"
            return _Look(Missing.UNREADABLE, _quota_wait(reply), why)
        document = _document(reply, by_marker=marker is not None)
        if document is not None:
            # Not every list by context has the newest assets.
            is_marked = relay.target.marker in (marker, _marker_of(document))
            found = _found(document, reply, relay, await services.database.moment(), is_marked=is_marked)
            if is_of(relay, found):
                return _Look(found)
        elif not _says_nothing(reply, by_marker=marker is not None):
            log.warning("relay %s: the look-up failed: %s", relay.id, told(reply))
            return _Look(Missing.UNREADABLE, why=told(reply))
    return _Look(Missing.NOTHING, began=began)


async def _ask(
    services: Services, upstream: Upstream, relay: Relay, kind: str, public_id: str, marker: str | None
) -> UpstreamReply:
    """Return the answer that has the asset, or the last one: a list by context may begin with empty pages."""
    client = services.upstream
    if marker is None:
        path = f"resources/{kind}/{relay.target.type}/{public_id}"
        return await client.get(upstream, path, {"media_metadata": "true"})
    query = {"key": MARKER, "value": marker}
    for _ in range(_MOST_PAGES):
        reply = await client.get(upstream, f"resources/{kind}/context", query)
        cursor = (reply.document or {}).get("next_cursor")
        if not isinstance(cursor, str) or _document(reply, by_marker=True) is not None:
            return reply
        query["next_cursor"] = cursor
    raise UpstreamUnavailable("The upstream has too many assets with a context to look through.")


def _says_nothing(reply: UpstreamReply, *, by_marker: bool) -> bool:
    """Return whether the upstream itself says that it has no such asset. A server in between cannot say so."""
    if reply.document is None:
        return False
    if by_marker:
        resources = reply.document.get("resources")
        return reply.status == 200 and isinstance(resources, list) and not resources
    return reply.status == 404 and error_message(reply.document) is not None


def _document(reply: UpstreamReply, *, by_marker: bool) -> Mapping[str, Any] | None:
    """Return the asset in an answer, or None."""
    if reply.status != 200 or reply.document is None:
        return None
    if not by_marker:
        return reply.document if "public_id" in reply.document else None
    resources = reply.document.get("resources")
    first = resources[0] if isinstance(resources, list) and resources else None
    return first if isinstance(first, dict) else None


def _found(document: Mapping[str, Any], reply: UpstreamReply, relay: Relay, now: float, *, is_marked: bool) -> Found:
    # An account with backups still shows a deleted asset. Then no bytes are there, and it is no answer.
    is_gone = document.get("placeholder") is True
    # An asset that only this grant can have made counts as this upload's, also if an earlier attempt made it.
    etag = "" if is_gone else str(document.get("etag", ""))
    etag = relay.digest.md5 if relay.target.is_own and is_marked else etag
    version = document.get("version")
    answer = forwarded(replace(reply, document=document, body=json.dumps(document)), relay.digest.size)
    upstream_now = now if reply.date is None else reply.date
    return Found(
        etag,
        version if isinstance(version, int) else 0,
        upstream_now,
        now,
        answer,
        is_foreign=not is_marked,
        is_gone=is_gone,
    )


def _quota_wait(reply: UpstreamReply) -> int:
    """Return how many seconds the upstream asks to wait, at most an hour: the quota counts by the hour."""
    headers = {name.lower(): value for name, value in reply.headers}
    if (after := headers.get("retry-after", "")).isdigit():
        return min(int(after), _QUOTA_SECONDS)
    reset = seconds_of(headers.get("x-featureratelimit-reset", ""))
    # Both times are by the upstream's clock. At a time that is over, the quota may be used up again.
    left = 0 if reset is None or reply.date is None else math.ceil(reset - reply.date)
    return min(left, _QUOTA_SECONDS) if left > 0 else _MOST_SECONDS
