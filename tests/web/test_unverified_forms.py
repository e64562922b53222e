"""Forms that a stranger begins and leaves: all of them together take little memory, and honest forms get in."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

import pytest

from tests.asgi import BOUNDARY, FORM, Answer, call, part, parts_of
from tests.web.test_bodies import JSON, URLENCODED, as_json
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.app.attempts import Forms
from uponce.core.policy import MIB, Limits

MOST = 2 * MIB
# One such letter makes Python keep each letter of a text in four bytes.
LARGE = "😀" + "a" * 65_000
TAGS = ",".join(f"{number:0200}" for number in range(200))
UPLOAD, DESTROY = "/v1_1/demo/auto/upload", "/v1_1/demo/image/destroy"
FORMS: dict[str, tuple[str, Mapping[str, str], bytes]] = {
    "form": (UPLOAD, FORM, parts_of(dict.fromkeys("abc", LARGE))),
    "form, amid a field": (UPLOAD, FORM, part("a", LARGE)[:-4]),
    "form, its file first": (UPLOAD, FORM, part("file", PNG, "a.png") + parts_of(dict.fromkeys("abc", LARGE))),
    "urlencoded": (UPLOAD, URLENCODED, b"a=" + quote(LARGE).encode()),
    "urlencoded, ended fields": (UPLOAD, URLENCODED, b"a=" + quote(LARGE).encode() + b"&b="),
    "JSON": (UPLOAD, JSON, b'{"a":"' + LARGE.encode()),
    "JSON, its file begun": (UPLOAD, JSON, as_json({"a": "a" * 65_000, "file": "data:;base64,AAAA"})[:-2]),
    "JSON, behind its file": (UPLOAD, JSON, as_json({"file": "data:;base64,AAAA", "a": "a" * 65_000})[:-2]),
    "deletion as form": (DESTROY, FORM, parts_of(dict.fromkeys("abc", LARGE))),
    "deletion as JSON": (DESTROY, JSON, b'{"a":"' + LARGE.encode()),
}


@pytest.fixture
def world(world: World) -> World:
    """Few other bounds, so that this one counts."""
    world.swap(
        limits=Limits(max_unverified_form_bytes=MOST, max_unverified_uploads=999, max_unverified_per_address=999)
    )
    return world


def forms(world: World) -> Forms:
    return world.services.attempts.forms


class Strangers:
    """Forms that have begun and stay silent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.tasks: list[asyncio.Task[Answer]] = []

    async def begin(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        silent = asyncio.Event()

        async def chunks() -> AsyncIterator[bytes]:
            yield body
            silent.set()
            await asyncio.Event().wait()

        self.tasks.append(asyncio.create_task(call(self._world.app, "POST", path, headers=headers, chunks=chunks())))
        await silent.wait()

    async def end(self) -> list[Answer]:
        """The answers of those that were refused."""
        answers = [task.result() for task in self.tasks if task.done()]
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return answers


def test_two_hundred_forms_stay_below_the_limit(world: World) -> None:
    """Each took 750 KB, and with more fields 3.6 MB, for as long as it was not quite silent."""

    async def play() -> int:
        strangers = Strangers(world)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            await strangers.begin(*FORMS["form"])
        await asyncio.sleep(0)
        held = tracemalloc.get_traced_memory()[0] - before
        await strangers.end()
        return held

    tracemalloc.start()
    try:
        assert asyncio.run(play()) < 10 * MOST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", FORMS)
def test_every_kind_of_form_counts_and_the_oldest_ends(world: World, name: str) -> None:
    async def play() -> list[Answer]:
        strangers = Strangers(world)
        for _ in range(50):
            await strangers.begin(*FORMS[name])
            assert forms(world).size <= MOST
        async with asyncio.timeout(60):
            while forms(world).size <= MOST * 0.8 or not all(task.done() for task in strangers.tasks[:10]):
                await asyncio.sleep(0.01)
        assert not any(task.done() for task in strangers.tasks[-8:])
        return await strangers.end()

    with world.untouched():
        refused = asyncio.run(play())
    for answer in refused:
        assert_refused(answer, 503, "server_busy")
        assert answer.headers["retry-after"] == "5"
        assert f"more than {MOST} bytes, which UPONCE_MAX_UNVERIFIED_FORM_BYTES allows" in answer.message
        assert "This one was the oldest: " in answer.message
    assert forms(world).size == 0


def test_an_honest_form_gets_in_beside_strangers(world: World) -> None:
    fields = world.sign({"tags": TAGS})
    body = parts_of(fields) + part("file", PNG, "cat.png") + f"--{BOUNDARY}--\r\n".encode()

    async def play() -> Answer:
        strangers = Strangers(world)

        async def slowly() -> AsyncIterator[bytes]:
            for at in range(0, len(body), 5000):
                yield body[at : at + 5000]
                await strangers.begin(*FORMS["form, amid a field"])

        for _ in range(20):
            await strangers.begin(*FORMS["form"])
        answer = await call(world.app, "POST", UPLOAD, headers=FORM, chunks=slowly())
        await strangers.end()
        return answer

    assert_accepted(asyncio.run(play()))
    assert forms(world).size == 0


def test_a_verified_upload_counts_no_more(world: World) -> None:
    fields = world.sign({"tags": TAGS})

    async def play() -> tuple[int, Answer]:
        strangers, counted = Strangers(world), []

        async def chunks() -> AsyncIterator[bytes]:
            yield parts_of(fields) + part("file", PNG, "cat.png")[:-9]
            counted.append(forms(world).size)
            for _ in range(50):
                await strangers.begin(*FORMS["form"])
            yield part("file", PNG, "cat.png")[-9:] + f"--{BOUNDARY}--\r\n".encode()

        answer = await call(world.app, "POST", UPLOAD, headers=FORM, chunks=chunks())
        await strangers.end()
        return counted[0], answer

    counted, answer = asyncio.run(play())
    assert counted == 0
    assert_accepted(answer)


def test_a_form_above_the_limit_alone_is_refused(world: World) -> None:
    world.swap(limits=Limits(max_unverified_form_bytes=60_000))
    for path in (UPLOAD, DESTROY):
        answer = world.request("POST", path, headers=FORM, chunks=[part("a", LARGE), b""])
        assert_refused(answer, 503, "server_busy")
    assert forms(world).size == 0


def test_small_forms_do_not_count(world: World) -> None:
    async def play() -> None:
        strangers = Strangers(world)
        await strangers.begin(UPLOAD, FORM, parts_of(world.sign({"context": f"alt={'a' * 3000}"})))
        assert forms(world).size == 0
        await strangers.end()

    asyncio.run(play())
