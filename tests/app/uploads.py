"""Uploads without HTTP: events in, an outcome out."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from tests.world import PNG, World, run
from uponce.app.authorise import UploadRequest
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.app.uploading.pipeline import Arrival, Pipeline, Uploaded
from uponce.app.uploading.streamed import upload
from uponce.core.errors import UponceError
from uponce.core.values import Caller, MediaFacts, ResourceType

CALLER = Caller("192.0.2.9", "request-1")
THIEF = Caller("198.51.100.7", "request-2")


def form(fields: Mapping[str, str], file: bytes = PNG, *, file_first: bool = False) -> list[Event]:
    signed: list[Event] = [Field(name, value) for name, value in fields.items()]
    media: list[Event] = [FileStart("cat.png"), file[:10], file[10:]]
    return media + signed if file_first else signed + media


async def stream(
    events: Iterable[Event], *, hold: asyncio.Event | None = None, reached: asyncio.Event | None = None
) -> AsyncIterator[Event]:
    """The events; before the last one it says that it got so far, and waits to be let go on."""
    *early, last = events
    for event in early:
        yield event
    if reached is not None:
        reached.set()
    if hold is not None:
        await hold.wait()
    yield last


async def send(
    world: World, events: AsyncIterator[Event] | list[Event], key: str | None = None, caller: Caller = CALLER
) -> Uploaded:
    """`key` is the Idempotency-Key."""
    request = UploadRequest("demo", None, (), None, caller, key)
    uploaded = await upload(world.services, request, stream(events) if isinstance(events, list) else events)
    assert isinstance(uploaded, Uploaded)
    return uploaded


async def send_whole(world: World, fields: Mapping[str, str], file: bytes) -> Uploaded:
    """Upload a raw file whose bytes are in memory. It takes its steps with the group of all that wait."""
    request = UploadRequest("demo", None, (), None, CALLER)
    arrival = Arrival(request, tuple(fields.items()), "cat.bin", file, MediaFacts(ResourceType.RAW))
    return await Pipeline(world.services).upload(arrival)


async def outcome(
    world: World, events: AsyncIterator[Event] | list[Event], key: str | None = None, caller: Caller = CALLER
) -> str:
    """`ok`, `replayed`, or the code of the refusal."""
    try:
        uploaded = await send(world, events, key, caller)
    except UponceError as error:
        return error.code
    return "replayed" if uploaded.committed.replayed else "ok"


def attempt(world: World, fields: Mapping[str, str], file: bytes = PNG, key: str | None = None) -> str:
    return run(outcome(world, form(fields, file), key))


def pass_time(seconds: float) -> None:
    """Put the clock of the running loop so far ahead: deadlines come at once, and none comes of a slow machine."""
    loop = asyncio.get_running_loop()
    now = loop.time
    loop.time = lambda: now() + seconds  # type: ignore[method-assign]


def live_attempts(world: World) -> int:
    """How many uploads are counted as running, of any kind."""
    return sum(map(len, world.services.attempts._running.values()))


class Crowd:
    """Uploads that have begun and wait before their last event. Each comes from the address it is begun with."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hold = asyncio.Event()
        self.tasks: list[asyncio.Task[str]] = []

    async def begin(self, events: list[Event], caller: Caller = CALLER) -> asyncio.Task[str]:
        reached = asyncio.Event()
        held = stream(events, hold=self._hold, reached=reached)
        self.tasks.append(asyncio.create_task(outcome(self._world, held, caller=caller)))
        await reached.wait()
        await asyncio.sleep(0)  # until the event before the last one is taken
        return self.tasks[-1]

    async def finish(self) -> list[str]:
        self._hold.set()
        return await asyncio.gather(*self.tasks)


def elsewhere(number: int) -> Caller:
    return Caller(f"203.0.113.{number}", f"request-{number}")


def drip(fields: dict[str, str], size: int = 10) -> list[Event]:
    """A form with `size` bytes of its file, then one more that never comes."""
    return [*form(fields)[:-2], bytes(size), b"."]
