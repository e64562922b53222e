"""A body that ends too early costs nothing, wherever it is cut."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.app.failing import Held
from tests.asgi import END, FORM, Answer, Chunks, call, part, parts_of
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.app.unbroken import finish_unbroken

FILE = part("file", PNG, "cat.png")
CUTS: dict[str, Callable[[bytes], int]] = {
    "in the first boundary": lambda body: 9,
    "in the headers of a part": lambda body: body.index(b"form-data"),
    "between headers and value": lambda body: body.index(b"\r\n\r\n") + 2,
    "in a field": lambda body: body.index(b"cats") + 2,
    "before the first byte of the file": lambda body: body.index(PNG),
    "after the first byte of the file": lambda body: body.index(PNG) + 1,
    "in the middle of the file": lambda body: body.index(PNG) + len(PNG) // 2,
    "after the last byte of the file": lambda body: body.index(PNG) + len(PNG),
    "before the final boundary": lambda body: len(body) - len(END),
    "in the final boundary": lambda body: len(body) - len(END) + 7,
    "between the last dashes": lambda body: len(body) - 3,
}


@pytest.mark.parametrize("ending", ["lost connection", "end of body"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("order", ["fields first", "file first"])
def test_a_torn_body_is_free(shared: World, cut: str, order: str, ending: str) -> None:
    fields = shared.sign({"folder": "cats"})
    form = [parts_of(fields), FILE] if order == "fields first" else [FILE, parts_of(fields)]
    body = b"".join([*form, END])
    with shared.untouched():
        answer = shared.post(body[: CUTS[cut](body)], torn=ending == "lost connection")
    assert_refused(answer, 400, "malformed_request")
    assert_accepted(shared.post(body))


def test_a_connection_lost_before_the_last_line_end_is_torn_too(world: World) -> None:
    """The form is complete, the request is not: Content-Length promised two bytes more."""
    fields = world.sign()
    with world.untouched():
        answer = world.post(parts_of(fields), FILE, END[:-2], torn=True)
    assert_refused(answer, 400, "malformed_request")
    assert_accepted(world.upload(fields))


def test_a_form_without_its_last_line_end_is_complete(world: World) -> None:
    """RFC 2046 wants no line end after the final boundary."""
    assert_accepted(world.post(parts_of(world.sign()), FILE, END[:-2]))


def test_a_torn_put_is_free(world: World) -> None:
    fields = world.sign()
    with world.untouched():
        answer = world.request("PUT", world.route(query=fields), chunks=[PNG[:-1]], torn=True)
    assert_refused(answer, 400, "malformed_request")
    assert_accepted(world.put(PNG, fields))


def test_a_server_that_shuts_down_in_the_middle_leaves_nothing(world: World) -> None:
    """The server's own cancellation is one more way to be torn. A page of another origin can read the answer."""
    fields = world.sign()

    async def play() -> Answer:
        reached = asyncio.Event()

        async def stalled() -> AsyncIterator[bytes]:
            yield parts_of(fields) + FILE[:-10]
            reached.set()
            await asyncio.Event().wait()

        return await cancelled(world, stalled(), reached)

    with world.untouched():
        answer = asyncio.run(play())
    assert_refused(answer, 503, "server_busy")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["access-control-allow-origin"] == "*"
    assert_accepted(world.upload(fields))


def test_a_server_that_shuts_down_in_a_commit_does_not_know_the_outcome(world: World) -> None:
    """The commit goes on."""

    async def play() -> Answer:
        database = Held(world.database, "commit")
        world.swap(database=database)
        answer = await cancelled(world, [parts_of(world.sign()), FILE, END], database.reached)
        database.release.set()
        await finish_unbroken(60)
        return answer

    answer = asyncio.run(play())
    assert_refused(answer, 503, "outcome_unknown")
    assert "The upload may be stored or not." in answer.message
    assert world.traces().assets == 1


def test_a_server_that_shuts_down_in_a_deletion_speaks_of_no_upload(world: World) -> None:
    asset = assert_accepted(world.upload(world.sign())).json
    fields = world.sign({"public_id": asset["public_id"]}, key=world.server)

    async def play() -> Answer:
        database = Held(world.database, "delete")
        world.swap(database=database)
        answer = await cancelled(world, [parts_of(fields) + END], database.reached, "/v1_1/demo/image/destroy")
        database.release.set()
        await finish_unbroken(60)
        return answer

    answer = asyncio.run(play())
    assert_refused(answer, 503, "outcome_unknown")
    assert "The request may have taken effect or not." in answer.message
    assert "upload" not in answer.message


async def cancelled(world: World, chunks: Chunks, reached: asyncio.Event, target: str = "") -> Answer:
    """Return the answer to a request, an upload without a target, that is cancelled at that moment."""
    headers = {**FORM, "origin": "https://app.example"}
    task = asyncio.create_task(call(world.app, "POST", target or world.route(), headers=headers, chunks=chunks))
    await reached.wait()
    task.cancel()
    return await task
