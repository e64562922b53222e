"""How many uploads may run at a time, and how long: bounds on waste that cost the honest holder nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.app.failing import Failing, Held
from tests.app.uploads import attempt, form, live_attempts, outcome, send, stream
from tests.asgi import END, FORM, call, part, parts_of
from tests.world import PNG, World, assert_refused
from uponce.app.intake import Event
from uponce.core.errors import ServerBusy, SignatureInUse
from uponce.core.policy import Limits


class Crowd:
    """Uploads that have begun and wait before their last event."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._hold = asyncio.Event()
        self._tasks: list[asyncio.Task[str]] = []

    async def begin(self, events: list[Event]) -> None:
        reached = asyncio.Event()
        held = stream(events, hold=self._hold, reached=reached)
        self._tasks.append(asyncio.create_task(outcome(self._world, held)))
        await reached.wait()

    async def finish(self) -> list[str]:
        self._hold.set()
        return await asyncio.gather(*self._tasks)


def test_a_third_live_attempt_is_told_to_wait_and_costs_nothing(world: World) -> None:
    fields = world.sign()

    async def play() -> list[str]:
        crowd = Crowd(world)
        for _ in range(2):
            await crowd.begin(form(fields))
        with world.untouched(), pytest.raises(SignatureInUse, match="in use by 2 uploads") as refused:
            await send(world, form(fields))
        assert refused.value.retry_after
        return await crowd.finish()

    assert sorted(asyncio.run(play())) == ["ok", "signature_used"]
    assert live_attempts(world) == 0
    traces = world.traces()
    assert (traces.assets, len(traces.blobs), traces.staged) == (1, 1, frozenset())


def test_a_file_first_upload_counts_once_its_signature_is_known(world: World) -> None:
    fields = world.sign()

    async def play() -> str:
        crowd = Crowd(world)
        for _ in range(2):
            await crowd.begin(form(fields))
        answer = await outcome(world, form(fields, file_first=True))
        await crowd.finish()
        return answer

    assert asyncio.run(play()) == "signature_in_use"
    assert live_attempts(world) == 0


def test_stalled_attempts_never_lock_out_another_signature(world: World) -> None:
    stalled, other = world.sign(), world.sign()

    async def play() -> tuple[str, list[str]]:
        crowd = Crowd(world)
        for _ in range(2):
            await crowd.begin(form(stalled))
        return await outcome(world, form(other)), await crowd.finish()

    answer, _ = asyncio.run(play())
    assert answer == "ok"


def test_a_place_is_free_again_when_an_attempt_ends_badly(world: World) -> None:
    fields = world.sign({"max_bytes": len(PNG)})
    for _ in range(5):
        assert attempt(world, fields, PNG + b"x") == "file_too_large"
    assert live_attempts(world) == 0
    assert attempt(world, fields) == "ok"


@pytest.mark.parametrize(("key", "params", "fit"), [("server", {}, 8), ("browser", {"max_uses": 3}, 4)])
def test_signatures_of_more_uses_may_run_more_often(
    world: World, key: str, params: dict[str, object], fit: int
) -> None:
    """An unlimited one is not capped; one of three uses has room for three winners and the one spare attempt."""
    fields = world.sign(params, key=getattr(world, key))

    async def play() -> list[str]:
        crowd = Crowd(world)
        for _ in range(fit):
            await crowd.begin(form(fields))
        return await crowd.finish()

    answers = asyncio.run(play())
    assert answers.count("ok") == (fit if key == "server" else 3)
    assert set(answers) <= {"ok", "signature_used"}


def test_one_attempt_more_than_its_uses_allow_is_refused(world: World) -> None:
    fields = world.sign({"max_uses": 3})

    async def play() -> str:
        crowd = Crowd(world)
        for _ in range(4):
            await crowd.begin(form(fields))
        answer = await outcome(world, form(fields))
        await crowd.finish()
        return answer

    assert asyncio.run(play()) == "signature_in_use"


def test_files_before_their_signature_are_capped_together(world: World) -> None:
    world.swap(limits=Limits(max_unverified_uploads=2))

    async def play() -> list[str]:
        crowd = Crowd(world)
        for _ in range(2):
            await crowd.begin(form(world.sign(), file_first=True))
        with world.untouched(), pytest.raises(ServerBusy, match="Send the fields before the file") as refused:
            await send(world, form(world.sign(), file_first=True))
        assert refused.value.retry_after
        assert await outcome(world, form(world.sign())) == "ok"  # fields first: not one of them
        return await crowd.finish()

    assert asyncio.run(play()) == ["ok", "ok"]
    assert live_attempts(world) == 0


def test_an_unverified_file_has_a_smaller_limit(world: World) -> None:
    world.swap(limits=Limits(max_unverified_bytes=len(PNG) - 1))
    fields = world.sign()
    with world.untouched():
        assert asyncio.run(outcome(world, form(fields, file_first=True))) == "file_too_large"
    assert attempt(world, fields) == "ok"


def test_a_file_that_is_too_large_only_because_it_came_first_names_the_cure(world: World) -> None:
    world.swap(limits=Limits(max_unverified_bytes=len(PNG) - 1))
    answer = world.post(part("file", PNG, "cat.png"), parts_of(world.sign()), END)
    message = answer.json["error"]["message"]
    assert message.startswith(f"File size too large. Got {len(PNG)}. Maximum is {len(PNG) - 1}. ")
    assert "Send the fields before the file" in message


def test_a_file_that_is_too_large_in_any_order_does_not_name_that_cure(world: World) -> None:
    limit = len(PNG) - 1
    world.swap(limits=Limits(max_image_bytes=limit))
    answer = world.post(part("file", PNG, "cat.png"), parts_of(world.sign()), END, kind="image")
    assert answer.json["error"]["message"] == f"File size too large. Got {len(PNG)}. Maximum is {limit}."


def test_a_wrong_signature_before_a_large_file_is_told_as_such(world: World) -> None:
    """Not as a file that is too large: a field behind the file could have made it right, up to that size."""
    world.swap(limits=Limits(max_unverified_bytes=len(PNG) - 1))
    with world.untouched():
        assert attempt(world, world.sign() | {"tags": "forged"}) == "invalid_signature"


# Settings are whole seconds; these cases need not wait for one.
INSTANT = cast(int, 0.05)


async def endless(events: list[Event]) -> AsyncIterator[Event]:
    """The events, then a drop of file now and then, for ever."""
    for event in events:
        yield event
    while True:
        await asyncio.sleep(0.01)
        yield b"."


@pytest.mark.parametrize(
    ("limits", "file_first"),
    [(Limits(max_upload_seconds=INSTANT), False), (Limits(unverified_seconds=INSTANT), True)],
    ids=["verified", "unverified"],
)
def test_an_upload_that_drips_is_cut_off_in_time(world: World, limits: Limits, file_first: bool) -> None:
    fields, healthy = world.sign(), world.services
    world.swap(limits=limits)
    events = form({}, PNG) if file_first else form(fields)
    with world.untouched():
        assert asyncio.run(outcome(world, endless(events))) == "request_too_slow"
    assert live_attempts(world) == 0
    world.use(healthy)
    assert attempt(world, fields) == "ok"


def test_a_silent_connection_is_cut_off_in_time(world: World) -> None:
    fields, healthy = world.sign(), world.services
    world.swap(limits=replace(Limits(), idle_seconds=INSTANT))
    body = parts_of(fields)

    async def silent() -> AsyncIterator[bytes]:
        yield body
        await asyncio.Event().wait()

    async def play() -> Any:
        return await asyncio.wait_for(call(world.app, "POST", world.route(), headers=FORM, chunks=silent()), timeout=10)

    with world.untouched():
        assert_refused(asyncio.run(play()), 400, "request_too_slow")
    world.use(healthy)
    assert attempt(world, fields) == "ok"


def test_the_deadline_covers_the_body_not_the_decoder(world: World) -> None:
    """A decoder has its own limit; an upload that has arrived in time is not cut off while it is inspected."""
    world.swap(limits=replace(Limits(), unverified_seconds=INSTANT))

    class Slow(Failing):
        async def inspect(self, *args: Any) -> Any:
            await asyncio.sleep(0.1)
            return await self._real.inspect(*args)

    world.swap(inspector=Slow(world.services.inspector))
    assert asyncio.run(outcome(world, form(world.sign(), file_first=True))) == "ok"


def test_of_a_flood_of_refusals_a_few_are_written_down_at_a_time(world: World) -> None:
    fields = world.sign()
    assert attempt(world, fields) == "ok"

    async def flood() -> tuple[int, list[str]]:
        held = Held(world.database, "record_refusal")
        world.swap(database=held)
        flooders = [asyncio.create_task(outcome(world, form(fields))) for _ in range(20)]
        await held.reached.wait()
        await asyncio.sleep(0.1)  # for the others to come as far as they get
        waiting = held.waiting
        held.release.set()
        return waiting, await asyncio.gather(*flooders)

    waiting, answers = asyncio.run(flood())
    assert waiting == 4
    assert answers == ["signature_used"] * 20
