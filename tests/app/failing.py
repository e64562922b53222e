"""Ports that fail on purpose: the real ones, with one call broken."""

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from uponce.app.ports import Spooled

Failures = Mapping[str, BaseException]


class Failing:
    """Named calls raise: `before` instead of the real call, `after` once it has really happened."""

    def __init__(self, real: Any, *, before: Failures | None = None, after: Failures | None = None) -> None:
        self._real = real
        self._before = before or {}
        self._after = after or {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in self._before and name not in self._after:
            return real

        async def call(*args: Any, **named: Any) -> Any:
            if name in self._before:
                raise self._before[name]
            await real(*args, **named)
            raise self._after[name]

        return call


class FailingSpool:
    """A blob store whose spooled files fail."""

    def __init__(self, real: Any, **failures: Failures) -> None:
        self._real = real
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def receive(self, key: str | None = None) -> Spooled:
        spooled: Any = Failing(await self._real.receive(key), **self._failures)
        return spooled  # type: ignore[no-any-return]


class Held:
    """A port whose named call waits, once it has been reached, until the test lets it go on."""

    def __init__(self, real: Any, name: str) -> None:
        self._real = real
        self._name = name
        self.waiting = 0
        self.reached = asyncio.Event()
        self.release = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name != self._name:
            return real

        async def call(*args: Any, **named: Any) -> Any:
            self.waiting += 1
            self.reached.set()
            await self.release.wait()
            return await real(*args, **named)

        return call


class Tripwire:
    """Counts the awaited calls of all ports it guards, and cancels a task at the one with a given number."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.victim: asyncio.Task[Any] | None = None
        self.tripped = ""

    def guard(self, real: Any) -> Any:
        return _Guarded(real, self)

    def step(self, name: str) -> None:
        self._left -= 1
        if self._left == 0:
            assert self.victim is not None
            self.tripped = name
            self.victim.cancel()


class _Guarded:
    def __init__(self, real: Any, wire: Tripwire) -> None:
        self._real = real
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not inspect.iscoroutinefunction(real):
            return real

        async def call(*args: Any, **named: Any) -> Any:
            self._wire.step(name)
            result = await real(*args, **named)
            return _Guarded(result, self._wire) if name == "receive" else result

        return call
