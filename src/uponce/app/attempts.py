"""Live attempts of this process, counted: what bounds the bytes that losers waste. No part of the safety argument."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from uponce.core.errors import ServerBusy, SignatureInUse
from uponce.core.values import UNLIMITED_USES, Grant

_RETRY_SECONDS = 5
_REFUSALS_AT_ONCE = 4


class Attempts:
    """How many uploads are running, per grant and unverified.

    Whoever writes down that a reuse was refused holds `refusing` meanwhile: of a flood only a few do at a time, and the
    others wait at no cost, so that uploads keep their share. Measured with 16 flooders: 9 % more refusals a second, and
    honest uploads at half load keep 0.97 of their rate instead of 0.94.
    """

    def __init__(self) -> None:
        self.refusing = asyncio.Semaphore(_REFUSALS_AT_ONCE)
        self._per_grant: Counter[bytes] = Counter()
        self._unverified = 0

    @contextmanager
    def of_grant(self, grant: Grant, limit: int) -> Iterator[None]:
        """Count one attempt; SignatureInUse when `limit` more than the grant's other uses are running."""
        allowed = UNLIMITED_USES if grant.max_uses >= UNLIMITED_USES else limit + grant.max_uses - 1
        running = self._per_grant[grant.key]
        if running >= allowed:
            raise SignatureInUse(
                f"This signature is in use by {running} uploads that are still running, {allowed} are allowed at "
                "a time. Wait for one to end, or sign again.",
                retry_after=_RETRY_SECONDS,
            )
        self._per_grant[grant.key] += 1
        try:
            yield
        finally:
            self._per_grant[grant.key] -= 1
            if not self._per_grant[grant.key]:
                del self._per_grant[grant.key]

    @contextmanager
    def unverified(self, limit: int) -> Iterator[None]:
        """Count one upload whose file came before the fields that sign it."""
        if self._unverified >= limit:
            raise ServerBusy(
                f"{limit} uploads that send the file before its signature are running, no more are allowed at a "
                "time. Send the fields before the file, or try again.",
                retry_after=_RETRY_SECONDS,
            )
        self._unverified += 1
        try:
            yield
        finally:
            self._unverified -= 1
