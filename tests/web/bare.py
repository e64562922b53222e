"""Requests and refusals without the application around them."""

from collections.abc import Iterable

from tests.world import MovableClock
from uponce.app.attempts import Forms
from uponce.core.errors import UponceError
from uponce.core.policy import Limits
from uponce.web.errors import refusal
from uponce.web.failures import FailedCredentials
from uponce.web.request import Common, Header, Receive, Request, Scope, Send
from uponce.web.response import send_response


def request(scope: Scope, receive: Receive, *, complete: bool = False) -> Request:
    """A request whose body was read to its end if `complete`."""
    common = Common(None, FailedCredentials(Limits(), MovableClock()), Limits(), Forms())
    bare = Request({"path": "/", **scope}, receive, common, "f" * 32)
    bare.body.complete = complete
    return bare


async def send_error(
    scope: Scope,
    receive: Receive,
    send: Send,
    error: UponceError,
    *,
    body_complete: bool,
    status: int | None = None,
    headers: Iterable[Header] = (),
) -> None:
    """Refuse the request."""
    asked = request(scope, receive, complete=body_complete)
    await send_response(asked, refusal(asked, error, status=status, headers=headers), send)
