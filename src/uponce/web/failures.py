"""A limit on wrong credentials per address: passwords, api_keys, signatures, tokens."""

from collections import OrderedDict

from uponce.app.attempts import network_of
from uponce.app.ports import Clock
from uponce.core import errors
from uponce.core.errors import TooManyFailures, UponceError
from uponce.core.policy import Limits

_MAX_ADDRESSES = 10_000
_COUNTED = (
    errors.UnknownCloud,
    errors.UnknownApiKey,
    errors.InvalidSignature,
    errors.BadCredentials,
    errors.BadToken,
    errors.DeliveryDenied,
)


class FailedCredentials:
    """Counts failures of each address, in the memory of this process.

    Only a request that has already failed is counted or limited. So correct credentials always pass, also from an
    address that many clients share.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limit = limits.max_failed_credentials
        self._seconds = limits.failed_credentials_seconds
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def judge(self, address: str, error: UponceError) -> UponceError:
        """Return the error for the client: the given one, or TooManyFailures above the limit."""
        if not isinstance(error, _COUNTED):
            return error
        origin, now = network_of(address), self._clock.now()
        since, count = self._counts.pop(origin, (now, 0))
        if not 0 <= now - since < self._seconds:
            since, count = now, 0
        self._counts[origin] = since, count + 1
        if len(self._counts) > _MAX_ADDRESSES:
            self._counts.popitem(last=False)
        if count < self._limit:
            return error
        wait = max(1, round(since + self._seconds - now))
        return TooManyFailures(
            f"{self._limit} requests with wrong credentials came from {origin or 'your address'} within "
            f"{self._seconds} seconds. Wait {wait} seconds, or send correct credentials.",
            detail=error.code,  # not the message, which shows a signature that may be live
            retry_after=wait,
        )
