"""A line to an S3 server that breaks at one of its requests: it is not passed on, or its reply is not."""

import threading
import time
from collections import Counter
from contextlib import ExitStack

from proof.faults.wire import Cut, Side
from tests.stores.sick import Illness, sick

_SECONDS = 60
_BROKEN = {"request": Illness.DROPPED, "reply": Illness.EATEN}


class StoreWire:
    """Listens at `endpoint`. What it has passed on, the store does to the end."""

    def __init__(self, target: str) -> None:
        self._stack = ExitStack()
        self._proxy = self._stack.enter_context(sick(target))
        self._proxy.rule = self._rule
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self.endpoint = self._proxy.endpoint
        self.passed: Counter[Side] = Counter()
        self.broke = False

    def arm(self, cut: Cut | None) -> None:
        """Count from here."""
        with self._lock:
            self._cut, self.broke, self.passed = cut, False, Counter()

    def settle(self) -> None:
        """Return when the store has done whatever it was sent; mended then."""
        self.arm(None)
        deadline = time.monotonic() + _SECONDS
        while self._proxy.under_way:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def close(self) -> None:
        self._stack.close()

    def _rule(self, method: str, path: str) -> Illness:
        with self._lock:
            self.passed.update(["request", "reply"])
            cut = self._cut
            if cut is None or (self.broke and not cut.lasting):
                return Illness.NONE
            if self.broke:
                return Illness.DROPPED
            if self.passed[cut.side] != cut.number:
                return Illness.NONE
            self.broke = True
            return _BROKEN[cut.side]
