"""Uploads whose file comes before its signature, and uploads that are slow: how many, how fast, how long."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.app.failing import Failing
from tests.app.uploads import (
    THIEF,
    Crowd,
    attempt,
    drip,
    elsewhere,
    form,
    live_attempts,
    outcome,
    pass_time,
    send,
    stream,
)
from tests.asgi import END, FORM, call, part, parts_of
from tests.world import PNG, World, assert_refused
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.core.errors import RequestTooSlow, ServerBusy
from uponce.core.policy import Limits
from uponce.core.values import Caller


def test_files_before_their_signature_are_bounded_together_and_the_slowest_ends(world: World) -> None:
    world.swap(limits=Limits(max_unverified_uploads=3))

    async def play() -> list[str]:
        crowd = Crowd(world)
        reached = asyncio.Event()
        slow = asyncio.create_task(send(world, stream(drip({}), hold=asyncio.Event(), reached=reached)))
        await reached.wait()
        for number in range(2):
            await crowd.begin(fast_file_first(world), elsewhere(number))
        with world.untouched():
            await crowd.begin(fast_file_first(world), elsewhere(9))
            with pytest.raises(ServerBusy) as refused:
                await slow
        assert refused.value.retry_after
        assert "3 uploads in all" in refused.value.message
        assert re.search(r"10 bytes in \d+ seconds", refused.value.message)
        assert "Send the fields before the file" in refused.value.message
        assert await outcome(world, form(world.sign())) == "ok"  # fields first: not one of them
        return await crowd.finish()

    assert asyncio.run(play()) == ["ok", "ok", "ok"]
    assert live_attempts(world) == 0


def fast_file_first(world: World) -> list[Event]:
    file = PNG + bytes(60_000)
    return [FileStart("cat.png"), file, *form(world.sign())[:-3]]


def test_one_address_has_a_share_of_the_unverified_uploads(world: World) -> None:
    """However fast its uploads are, those of others stay."""
    world.swap(limits=Limits(max_unverified_uploads=4, max_unverified_per_address=2))

    async def play() -> tuple[list[str], list[str]]:
        crowd = Crowd(world)
        honest = [await crowd.begin(form(world.sign(), file_first=True), elsewhere(n)) for n in range(2)]
        strangers = [await crowd.begin(fast_file_first(world), THIEF) for _ in range(6)]
        await crowd.finish()
        return await asyncio.gather(*honest), await asyncio.gather(*strangers)

    honest, strangers = asyncio.run(play())
    assert honest == ["ok", "ok"]
    assert strangers.count("server_busy") == 4


def test_callers_without_an_address_have_no_share(world: World) -> None:
    world.swap(limits=Limits(max_unverified_uploads=4, max_unverified_per_address=1))

    async def play() -> list[str]:
        crowd = Crowd(world)
        for _ in range(4):
            await crowd.begin(form(world.sign(), file_first=True), Caller("", "request"))
        return await crowd.finish()

    assert asyncio.run(play()) == ["ok"] * 4


def test_the_honest_get_in_beside_strangers_that_hold_every_place(world: World) -> None:
    """As the keyless do it: a file begins, and then a byte comes now and then."""

    async def play() -> list[str]:
        crowd = Crowd(world)
        for number in range(40):
            await crowd.begin(drip({}, 1), elsewhere(number))
        return [await outcome(world, form(world.sign(), file_first=True)) for _ in range(5)]

    assert asyncio.run(play()) == ["ok"] * 5


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
    assert message.startswith(f"File size too large. Got at least {len(PNG)}. Maximum is {len(PNG) - 1}. ")
    assert "Send the fields before the file" in message


def test_a_file_that_is_too_large_in_any_order_does_not_name_that_cure(world: World) -> None:
    limit = len(PNG) - 1
    world.swap(limits=Limits(max_image_bytes=limit))
    answer = world.post(part("file", PNG, "cat.png"), parts_of(world.sign()), END, kind="image")
    assert answer.json["error"]["message"] == f"File size too large. Got at least {len(PNG)}. Maximum is {limit}."


def test_a_wrong_signature_before_a_large_file_is_told_as_such(world: World) -> None:
    """Not as a file that is too large: a field behind the file could have made it right, up to that size."""
    world.swap(limits=Limits(max_unverified_bytes=len(PNG) - 1))
    with world.untouched():
        assert attempt(world, world.sign() | {"tags": "forged"}) == "invalid_signature"


SECONDS = 60  # more than a stall of the machine takes


async def endless(events: list[Event]) -> AsyncIterator[Event]:
    """The events, and when their time is over a drop of file now and then, for ever."""
    for event in events:
        yield event
    pass_time(SECONDS + 1)
    while True:
        await asyncio.sleep(0.01)
        yield b"."


@pytest.mark.parametrize(
    ("limits", "file_first"),
    [
        (Limits(max_upload_seconds=SECONDS), False),
        (Limits(unverified_seconds=SECONDS), True),
        (Limits(rate_seconds=SECONDS, least_rate=1_000_000), True),
    ],
    ids=["verified", "unverified", "unverified and slow"],
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


@pytest.mark.parametrize(
    "limits",
    [Limits(unverified_seconds=SECONDS), Limits(rate_seconds=SECONDS, least_rate=1_000_000)],
    ids=["too long", "too slow"],
)
def test_a_slow_upload_with_a_wrong_signature_before_its_file_gets_that_refusal(world: World, limits: Limits) -> None:
    """Not one that asks the client to send the fields first."""
    world.swap(limits=limits)
    with world.untouched():
        assert asyncio.run(outcome(world, endless(form(world.sign() | {"tags": "forged"})))) == "invalid_signature"
    assert live_attempts(world) == 0


def test_a_displaced_upload_with_a_wrong_signature_before_its_file_gets_that_refusal(world: World) -> None:
    """Not one that asks the client to try again."""
    world.swap(limits=Limits(max_unverified_uploads=1))

    async def play() -> str:
        crowd = Crowd(world)
        forged = await crowd.begin(drip(world.sign() | {"tags": "forged"}))
        await crowd.begin(fast_file_first(world), elsewhere(1))
        await crowd.finish()
        return await forged

    assert asyncio.run(play()) == "invalid_signature"


def test_an_unverified_upload_that_stalls_is_too_slow_and_told_the_rate(world: World) -> None:
    """Without another byte: its time is up when its rate falls below the least one."""
    world.swap(limits=Limits(rate_seconds=SECONDS, least_rate=200))

    async def play() -> RequestTooSlow:
        reached = asyncio.Event()
        stalling = asyncio.create_task(send(world, stream(drip({}, 100), hold=asyncio.Event(), reached=reached)))
        await reached.wait()
        pass_time(SECONDS + 1)
        with pytest.raises(RequestTooSlow) as refused:
            await stalling
        return refused.value

    with world.untouched():
        error = asyncio.run(play())
    assert "100 bytes arrived" in error.message
    assert "200 bytes per second" in error.message
    assert "Send the fields before the file" in error.message


def test_a_verified_upload_may_be_slow(world: World) -> None:
    world.swap(limits=Limits(rate_seconds=SECONDS, least_rate=1_000_000))

    async def play() -> str:
        crowd = Crowd(world)
        slow = await crowd.begin(form(world.sign()))
        pass_time(10 * SECONDS)
        await asyncio.sleep(0.01)
        await crowd.finish()
        return await slow

    assert asyncio.run(play()) == "ok"


def test_fields_that_never_end_are_cut_off_as_unverified(world: World) -> None:
    """A stranger's connection may not last as long as an upload."""
    world.swap(limits=Limits(unverified_seconds=SECONDS))

    async def fields() -> AsyncIterator[Event]:
        pass_time(SECONDS - 0.1)
        while True:
            await asyncio.sleep(0.01)
            yield Field("tags", "x")

    assert asyncio.run(outcome(world, fields())) == "request_too_slow"


def test_a_silent_connection_is_cut_off_in_time(world: World) -> None:
    fields, healthy = world.sign(), world.services
    world.swap(limits=replace(Limits(), idle_seconds=SECONDS))
    body = parts_of(fields)

    async def silent() -> AsyncIterator[bytes]:
        yield body
        asyncio.get_running_loop().call_soon(pass_time, SECONDS + 1)
        await asyncio.Event().wait()

    with world.untouched():
        answer = asyncio.run(call(world.app, "POST", world.route(), headers=FORM, chunks=silent()))
        assert_refused(answer, 400, "request_too_slow")
    world.use(healthy)
    assert attempt(world, fields) == "ok"


def test_the_deadline_covers_the_body_not_the_decoder(world: World) -> None:
    """A decoder has its own limit; an upload that has arrived in time is not cut off while it is inspected."""
    world.swap(limits=replace(Limits(), unverified_seconds=SECONDS))

    class Slow(Failing):
        async def inspect(self, *args: Any) -> Any:
            pass_time(SECONDS + 1)
            await asyncio.sleep(0.01)
            return await self._real.inspect(*args)

    world.swap(inspector=Slow(world.services.inspector))
    assert asyncio.run(outcome(world, form(world.sign(), file_first=True))) == "ok"
