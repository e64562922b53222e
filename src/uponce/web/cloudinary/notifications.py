"""Notifications of uploads, as Cloudinary sends them: the answer of the upload, signed by the key that signed it.

uponce sends its own notifications. A relay receives those of the account behind it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from uponce.app.manage_keys import PLAYGROUND
from uponce.app.outbox import Later
from uponce.app.ports import AfterCommit, Effect
from uponce.app.relaying.reconcile import Notification, notified
from uponce.app.services import Services
from uponce.app.uploading.pipeline import Uploaded
from uponce.core.parameters import UploadSpec
from uponce.core.signature import Signer, sign
from uponce.web.cloudinary.answers import Bases, Json, upload_answer
from uponce.web.cloudinary.forms import small_body
from uponce.web.request import Request
from uponce.web.response import Response, json_response

NOTIFY = "notify"  # the name of the effect, whose details are the URL

_FIRST_SECONDS = 10
_MOST_SECONDS = 3600
_DAY = 86_400  # from the upload on; a later try that fails is the last one
_TRIES_OF_A_DAY = 33  # their pauses are a day
_BUSY = "the receiver answers too slowly; another notification is tried first"
_RETRIED = f"after a retry: {_BUSY}"

_DETAILS = msgspec.json.Decoder(AfterCommit)  # made at import, by one thread: see adapters/database/commits.py


class Receivers(Protocol):
    """The servers that get notifications."""

    def is_busy(self, url: str) -> bool:
        """Return whether the receiver is slow, and another notification is on its way to it."""

    def wait_for(self, url: str) -> int:
        """Return 0 if the receiver may have a notification now, else the seconds until the turn of this one."""

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

    def url_for(self, spec: UploadSpec, cloud: str) -> str | None:
        """Return the URL to which the answer of the upload is posted, or None.

        The default is not for the playground: the receiver cannot check a signature of its key.
        """
        return spec.notification_url or (self._default if cloud != PLAYGROUND else "") or None

    async def send(self, services: Services, effect: Effect) -> Later | None:
        """Post one notification. Return None if the receiver accepted it, else when to try again."""
        after = _DETAILS.decode(effect.details)
        pause = min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** min(effect.tries - 1, 10))
        too_old = effect.now - effect.created_at > _DAY
        if (later := self._later(after.details, effect, pause, too_old=too_old)) is not None:
            return later
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
        if (later := self._later(after.details, effect, pause, too_old=too_old)) is not None:
            return later  # others of the same burst got their key first
        problem = await self._receivers.post(after.details, headers, body)
        return Later(pause, problem, dead=too_old) if problem else None

    def _later(self, url: str, effect: Effect, pause: int, *, too_old: bool) -> Later | None:
        """Return when to try again if the receiver has no place for another notification now, else None."""
        if self._receivers.is_busy(url):
            return _behind_another(effect, pause, too_old=too_old)
        wait = self._receivers.wait_for(url)
        return Later(wait, effect.error, untried=True) if wait else None

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


def _behind_another(effect: Effect, pause: int, *, too_old: bool) -> Later:
    """Return when to try a notification again whose receiver is busy with another one."""
    # `retry` made an old one alive, and left its error. It waits a day more for its turn.
    retried = too_old and effect.error and (effect.tries == 1 or effect.error == _RETRIED)
    dead = effect.tries >= _TRIES_OF_A_DAY if retried else too_old
    return Later(pause, _RETRIED if retried else _BUSY, dead=dead)


async def notified_by_upstream(services: Services, request: Request) -> Response:
    """Accept a notification of the account behind a relay. Refuse it unless the account's secret signed it."""
    body, head = await small_body(request), request.head
    notification = Notification(body, head.get("x-cld-timestamp"), head.get("x-cld-signature"))
    await notified(services, request.params["cloud"], notification)
    return json_response({"result": "ok"})
