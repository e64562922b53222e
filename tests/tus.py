"""Uploads by tus, without sockets: what a client of the protocol sends."""

import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.asgi import Answer, call
from tests.world import World, run

VERSION = {"tus-resumable": "1.0.0"}
BYTES = {"content-type": "application/offset+octet-stream"}


def metadata(pairs: Mapping[str, str]) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())


class Client:
    """Sends one file, begun with one signature; `url` is where, once it is created."""

    def __init__(self, world: World, data: bytes, *, fields: Mapping[str, str] | None = None, name: str = "film.bin"):
        self.world = world
        self.data = data
        self.fields = world.sign() if fields is None else fields
        self.name = name
        self.url = ""

    async def create(
        self, *, length: object = None, headers: Mapping[str, str] | None = None, body: Any = (), torn: bool = False
    ) -> Answer:
        """POST; `length` is the file's unless it is given, and "later" defers it."""
        size = {"upload-defer-length": "1"} if length == "later" else {"upload-length": str(length or len(self.data))}
        told = {"upload-metadata": metadata({**self.fields, "filename": self.name})}
        sent = {**VERSION, **size, **told, **(BYTES if body else {}), **(headers or {})}
        answer = await self.send("POST", "/tus/demo/", sent, body, torn)
        self.url = answer.headers.get("location", self.url).removeprefix("https://media.example")
        return answer

    async def patch(
        self,
        offset: int,
        end: int | None = None,
        *,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        torn: bool = False,
    ) -> Answer:
        """The bytes from `offset` up to `end`, or other ones."""
        body = [self.data[offset : len(self.data) if end is None else end]] if data is None else data
        sent = {**VERSION, **BYTES, "upload-offset": str(offset), **(headers or {})}
        return await self.send("PATCH", self.url, sent, body, torn)

    async def head(self) -> Answer:
        return await self.send("HEAD", self.url, VERSION)

    async def get(self) -> Answer:
        return await self.send("GET", self.url, {})

    async def delete(self) -> Answer:
        return await self.send("DELETE", self.url, VERSION)

    async def go_on(self) -> Answer:
        """As clients do after any failure: ask for the offset, or create the upload again; send the rest; ask again."""
        state = await self.head() if self.url else await self.create()
        if state.status == 404:
            state = await self.create()
        offset = int(state.headers["upload-offset"])
        if offset < len(self.data):
            await self.patch(offset)
        return await self.head()

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: Any = (), torn: bool = False
    ) -> Answer:
        return await call(self.world.app, method, target, headers=headers, chunks=body, torn=torn)


def play(*steps: Callable[[], Awaitable[Answer]]) -> list[Answer]:
    async def each() -> list[Answer]:
        return [await step() for step in steps]

    return run(each())


def assert_state(answer: Answer, status: int, offset: int | None) -> None:
    assert (answer.status, answer.headers.get("upload-offset")) == (status, None if offset is None else str(offset)), (
        answer
    )
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["cache-control"] == "no-store"


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer.body
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["x-cld-error"] == answer.message.encode("ascii", "replace").decode()


def stored(world: World, url: str) -> bytes:
    delivered = world.get(url.removeprefix("https://media.example"))
    assert delivered.status == 200
    return delivered.body
