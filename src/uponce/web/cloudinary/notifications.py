"""Notifications of uploads, as Cloudinary sends them: the answer of the upload, signed by the key that signed it.

uponce sends its own notifications. A relay receives those of the account behind it.
"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from uponce.app.manage_keys import PLAYGROUND
from uponce.app.outbox import Later
from uponce.app.ports import AfterCommit, Effect, NewEffect
from uponce.app.relaying.reconcile import Notification, notified
from uponce.app.services import Services
from uponce.app.uploading.pipeline import Uploaded
from uponce.core.parameters import UploadSpec
from uponce.core.signature import Signer, sign
from uponce.web.cloudinary.answers import Bases, Json, upload_answer
from uponce.web.cloudinary.forms import small_body
from uponce.web.request import Request
from uponce.web.response import Response, json_response

NOTIFY = "notify"  # the name of the effect

_FIRST_SECONDS = 10
_MOST_SECONDS = 3600
_DAY = 86_400  # from the upload on; a later try that fails is the last one
_FAILURES = 24  # in a row: more than are under way to one receiver
_MOST_RECEIVERS = 1024

_DETAILS = msgspec.json.Decoder(AfterCommit)  # made at import, by one thread: see adapters/database/commits.py


class Receivers(Protocol):
    """The servers that get notifications."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        """Return "" if the receiver accepted the notification, else the reason."""


class Notifications:
    """Posts the notifications in the outbox. `base` is that of URLs.

    `default` receives the answers of uploads that sign no URL. If it is empty, these answers are not posted.
    """

    def __init__(self, receivers: Receivers, base: str, default: str = "") -> None:
        self._receivers = receivers
        self._bases = Bases(base, base)
        self._default = default
        self._failures = Counter[str]()  # of each receiver, since it last accepted a notification
        self._posting = Counter[str]()  # to each receiver

    def effect_of(self, spec: UploadSpec, cloud: str) -> NewEffect | None:
        """Return the notification that the upload leaves. Its details are the URL.

        The default is not for the playground: the receiver cannot check a signature of its key.
        """
        url = spec.notification_url or (self._default if cloud != PLAYGROUND else "")
        return NewEffect(NOTIFY, _host_of(url), url) if url else None

    async def send(self, services: Services, effect: Effect) -> Later | None:
        """Post one notification. Return None if the receiver accepted it, else when to try again."""
        if self._is_late(effect):
            return Later(0, "it waited a day for its turn, and the receiver accepts none", dead=True)
        after = _DETAILS.decode(effect.details)
        key = await services.database.find_key(after.api_key)
        if key is None:
            return Later(_MOST_SECONDS, f"there is no API key {after.api_key} to sign the notification with", dead=True)
        signer = Signer.of(key)
        body = msgspec.json.encode(self._body(after, signer, effect.created_at))
        now = int(services.clock.now())
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "uponce",
            "X-Cld-Timestamp": str(now),
            "X-Cld-Signature": sign(body + str(now).encode(), signer.secret, signer.algorithm),
        }
        self._posting[effect.receiver] += 1
        try:
            problem = await self._receivers.post(after.details, headers, body)
        finally:
            self._posting -= Counter((effect.receiver,))  # keeps no zero
        if not problem:
            del self._failures[effect.receiver]
            return None
        if len(self._failures) > _MOST_RECEIVERS:
            self._failures.clear()  # some of them are of the past
        self._failures[effect.receiver] += 1
        pause = min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** min(effect.tries - 1, 10))
        return Later(pause, problem, dead=effect.now - effect.created_at > _DAY)

    def _is_late(self, effect: Effect) -> bool:
        """Return whether to give the effect up: it waited a day, its receiver fails, and another one is tried now.

        Else more would come than a receiver without answers has tries for. One is always tried, to see if it accepts.
        """
        untried = not effect.error and effect.now - effect.created_at > _DAY  # behind others of its asset
        failing = self._failures[effect.receiver] >= _FAILURES and self._posting[effect.receiver] > 0
        return failing and (untried or effect.waited > _DAY)

    def _body(self, after: AfterCommit, signer: Signer, created_at: int) -> Json:
        answer = upload_answer(Uploaded(after.committed, signer), self._bases)
        del answer["api_key"]
        moment = datetime.fromtimestamp(created_at, UTC).isoformat()
        return {
            "notification_type": "upload",
            "timestamp": moment,
            "request_id": after.request_id,
            **answer,
            "notification_context": {"triggered_at": moment, "triggered_by": {"source": "api", "id": signer.api_key}},
            "signature_key": signer.api_key,
        }


def _host_of(url: str) -> str:
    """Return the host and port. A password in the URL is no part of them."""
    host = re.split("[/?#]", url.partition("//")[2], maxsplit=1)[0].rpartition("@")[2]
    return host.lower() or "-"


async def notified_by_upstream(services: Services, request: Request) -> Response:
    """Accept a notification of the account behind a relay. Refuse it unless the account's secret signed it."""
    body, head = await small_body(request), request.head
    notification = Notification(body, head.get("x-cld-timestamp"), head.get("x-cld-signature"))
    await notified(services, request.params["cloud"], notification)
    return json_response({"result": "ok"})
