"""Bodies that are read whole before anything is verified: in time, and counted while they arrive."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from uponce.app.attempts import Attempt, network_of
from uponce.app.uploading.intake import FORM_BYTES
from uponce.core.errors import RequestTooSlow
from uponce.web.request import Request

T = TypeVar("T")

_SECONDS = 60


async def in_time(request: Request, reading: Awaitable[T]) -> T:
    """Return what is read. What the body holds counts among the forms of this process that are not verified.

    Raise RequestTooSlow if it takes more than a minute, ServerBusy if it is the oldest form and there are too many.
    """
    forms, limits = request.common.forms, request.common.limits
    attempt = Attempt(network_of(request.address), asyncio.get_running_loop().time())

    def hold(size: int) -> None:
        if size > FORM_BYTES:
            forms.hold(attempt, size, limits)
        if attempt.refusal is not None:
            raise attempt.refusal

    request.body.hold = hold
    try:
        async with asyncio.timeout(_SECONDS) as deadline:
            with attempt.receiving(deadline):
                return await reading
    except TimeoutError:
        text = f"The request took longer than {_SECONDS} seconds. Send it again."
        raise attempt.refusal or RequestTooSlow(text, retry_after=1) from None
    finally:
        forms.release(attempt)
        attempt.refusal = None  # its traceback would keep these frames, and the body, until a garbage collection
