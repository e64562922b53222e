"""Uploads in chunks, without sockets: what a client of Cloudinary's chunked protocol sends."""

import random
from collections.abc import Mapping
from typing import Any

from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.world import World

CHUNK = 1000


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def spans(size: int, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """First and last byte of each chunk."""
    return [(first, min(first + chunk, size) - 1) for first in range(0, size, chunk)]


def headers(first: int, last: int, total: object, upload_id: str) -> dict[str, str]:
    return {"x-unique-upload-id": upload_id, "content-range": f"bytes {first}-{last}/{total}"}


def form(
    fields: Mapping[str, str], data: bytes, *, file_first: bool = False, filename: str = "film.bin"
) -> list[bytes]:
    parts = [parts_of(fields), part("file", data, filename)]
    return [*(reversed(parts) if file_first else parts), END]


class Client:
    """Sends one file in chunks of `CHUNK` bytes, all under one signature unless it is given another."""

    def __init__(
        self,
        world: World,
        data: bytes,
        *,
        fields: Mapping[str, str] | None = None,
        upload_id: str = "abc.123",
        kind: str = "raw",
    ) -> None:
        self.world = world
        self.data = data
        self.fields = world.sign() if fields is None else fields
        self.upload_id = upload_id
        self.kind = kind

    async def chunk(
        self,
        first: int,
        last: int,
        *,
        total: object = None,
        fields: Mapping[str, str] | None = None,
        data: bytes | None = None,
        torn: bool = False,
        file_first: bool = False,
        chunks: Any = None,
    ) -> Answer:
        """One chunk; `total` is the real one unless something else is said."""
        body = self.data[first : last + 1] if data is None else data
        length = len(self.data) if total is None else total
        return await call(
            self.world.app,
            "POST",
            self.world.route(self.kind),
            headers={**FORM, **headers(first, last, length, self.upload_id)},
            chunks=chunks or form(self.fields if fields is None else fields, body, file_first=file_first),
            torn=torn,
        )

    @property
    def spans(self) -> list[tuple[int, int]]:
        return spans(len(self.data))

    async def all_of(self) -> list[Answer]:
        """Every chunk, one after the other."""
        return [await self.chunk(*span) for span in self.spans]


def stored(world: World, answer: Answer) -> bytes:
    """The bytes behind the URL of an answer."""
    assert answer.status == 200, answer.body
    url: str = answer.json["secure_url"]
    delivered = world.get(url.removeprefix("https://media.example"))
    assert delivered.status == 200, delivered.body
    return delivered.body


def rows(world: World) -> dict[str, int]:
    """How many series there are, how many spans of recorded bytes, how many grants of series."""
    return {
        "series": world.sql("SELECT count(*) FROM series"),
        "spans": world.sql("SELECT coalesce(sum(json_array_length(spans)), 0) FROM series"),
        "series_grants": world.sql("SELECT count(*) FROM series_grants"),
    }


NO_ROWS = {"series": 0, "spans": 0, "series_grants": 0}


def orders(size: int) -> list[list[tuple[int, int]]]:
    """The chunks ascending, descending and shuffled."""
    ordered = spans(size)
    return [ordered, ordered[::-1], random.Random(3).sample(ordered, len(ordered))]
