"""A server that dies at a chosen step: ports that do nothing any more from one of their calls on."""

import inspect
from typing import Any

from tests.world import World

_MAKERS = ("hold", "assembly", "receive")  # what they return is a port too


class Dead(BaseException):
    """Nothing happens any more."""


class Life:
    """Ends at the step with this number, before what is done there or after it."""

    def __init__(self, steps: int, after: bool) -> None:
        self._left = steps
        self.after = after
        self.dead = False

    def step(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.dead = True

    def check(self) -> None:
        if self.dead:
            raise Dead


class Mortal:
    """A port, or what a port made: its awaited calls are the steps of the life."""

    def __init__(self, real: Any, life: Life) -> None:
        self._real = real
        self._life = life

    def __getattr__(self, name: str) -> Any:
        real, life = getattr(self._real, name), self._life
        if name == "parts":
            return Mortal(real, life)
        if not inspect.iscoroutinefunction(real):
            return real

        async def call(*args: Any, **named: Any) -> Any:
            life.check()
            life.step()
            if not life.after:
                life.check()
            result = await real(*args, **named)
            life.check()
            return Mortal(result, life) if name in _MAKERS else result

        return call


def make_mortal(world: World, life: Life) -> None:
    """From now on the world's ports are steps of this life."""
    assert all(hasattr(world.blobs, name) or hasattr(world.blobs.parts, name) for name in _MAKERS)
    world.swap(
        database=Mortal(world.database, life),
        blobs=Mortal(world.blobs, life),
        inspector=Mortal(world.services.inspector, life),
    )
