"""A whole server without its sockets: real database, real blob store, a clock that the test moves."""

import asyncio
import os
import sqlite3
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from urllib.parse import urlencode

from cloudinary.utils import api_sign_request

from tests import samples
from tests.asgi import END, FORM, Answer, Chunks, call, part, parts_of
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.files import shard_of
from uponce.adapters.media.sniff import HEAD_BYTES, admit
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.packs import Packs
from uponce.adapters.system import RandomIds
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.manage_keys import new_key, set_up
from uponce.app.owner import claim_storage
from uponce.app.services import Services
from uponce.app.unbroken import finish_unbroken
from uponce.core.errors import InvalidMedia, StorageUnavailable
from uponce.core.policy import Limits
from uponce.core.values import ApiKey, MediaFacts, Payer, ResourceType
from uponce.web.operators import Scrape
from uponce.web.routes import create_app
from uponce.wiring import group_putter

T = TypeVar("T")

START = 1_767_225_600
PNG = samples.png(1, 16, 16)
OTHER_PNG = samples.png(2, 16, 16)


@dataclass
class MovableClock:
    time: float = START

    def now(self) -> float:
        return self.time


class Sniffer:
    """Decides by the first bytes alone, as the real inspector does before it asks a decoder."""

    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
        try:
            with Path(path).open("rb") as file:
                head = file.read(HEAD_BYTES)
        except OSError as error:
            raise StorageUnavailable("The spooled file is gone.") from error
        format_ = admit(head, requested)
        if format_ is None:
            return MediaFacts(ResourceType.RAW)
        return MediaFacts(format_.kind, format_.name, 16, 16, 1)

    async def ping(self) -> None:
        return


def sniff_whole(file: bytes | memoryview, requested: ResourceType | None, _: Limits) -> MediaFacts | None:
    """Answer as the Sniffer does."""
    try:
        format_ = admit(bytes(file[:HEAD_BYTES]), requested)
    except InvalidMedia:
        return None
    return MediaFacts(format_.kind, format_.name, 16, 16, 1) if format_ else MediaFacts(ResourceType.RAW)


@dataclass(frozen=True, slots=True)
class Traces:
    """What a request can leave behind: files, and rows of each table."""

    spooled: frozenset[str]
    blobs: frozenset[str]
    assets: int
    grants: int
    audit: int


class World:
    """`browser` signs for one use each, `server` is unlimited with scope all; `foreign` is of another cloud.

    With `whole_bodies` every body comes in one message, so small uploads go through the pipeline.
    """

    def __init__(self, root: Path, *, limits: Limits | None = None, blobs: Blobs | None = None) -> None:
        self.clock = MovableClock()
        self.whole_bodies = False
        self._signed = 0
        self.path = root / "uponce.db"
        self.media = root / "media"
        self.database = SqliteDatabase(self.path, clock=self.clock, secrets=AesSecretBox(bytes(32)))
        self.blobs = blobs or LocalBlobs(self.media, ids=RandomIds())
        self.database.open()
        self.blobs.open_store()
        self.services = Services(
            database=self.database,
            blobs=self.blobs,
            inspector=Sniffer(),
            read_ordinary=sniff_whole,
            clock=self.clock,
            ids=RandomIds(),
            upstream=HttpUpstream(),
            put_group=group_putter(self.database, self.blobs, alone=True),
            limits=limits or Limits(max_failed_credentials=1_000_000),  # a whole file of tests has one address
        )
        keys = asyncio.run(self._begin())
        self.browser, self.server, self.foreign = keys["browser"], keys["server"], keys["foreign"]
        self.use(self.services)

    async def _begin(self) -> dict[str, ApiKey]:
        """The keys by name; made unless the folder has them already."""
        if await set_up(self.services, "demo"):
            await create_key(self.services, "elsewhere", name="foreign")
        await claim_storage(self.database, self.blobs)
        return {key.name: key for key in await self.database.list_keys()}

    def close(self) -> None:
        self.blobs.close()
        self.database.close()

    def use(self, services: Services, scrape: Scrape | None = None) -> None:
        """Serve with these from now on."""
        self.services = services
        self.app = create_app(services, _no_lifespan, None, scrape)

    def swap(self, **ports: Any) -> None:
        """Serve with other ports or limits from now on."""
        self.use(replace(self.services, **ports))

    def sign(
        self, params: Mapping[str, object] | None = None, *, key: ApiKey | None = None, **more: Any
    ) -> dict[str, str]:
        """The fields to post, signed by the official SDK; `more` goes to its api_sign_request."""
        signer = key or self.browser
        self._signed += 1
        fields = {"timestamp": int(self.clock.time), "nonce": self._signed, **(params or {})}
        signature = api_sign_request(fields, signer.secrets[0], **more)
        texts = {name: str(value) for name, value in fields.items()}
        return {**texts, "signature": signature, "api_key": signer.api_key}

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        chunks: Chunks = (),
        torn: bool = False,
    ) -> Answer:
        return run(call(self.app, method, target, headers=headers, chunks=chunks, torn=torn, whole=self.whole_bodies))

    def get(self, target: str, **headers: str) -> Answer:
        return self.request("GET", target, headers={n.replace("_", "-"): value for n, value in headers.items()})

    def post(
        self,
        *body: bytes,
        kind: str = "auto",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        torn: bool = False,
    ) -> Answer:
        """A form of these parts; the final boundary is part of the body."""
        return self.request(
            "POST", self.route(kind, query), headers={**FORM, **(headers or {})}, chunks=body, torn=torn
        )

    def put(self, data: bytes, fields: Mapping[str, str], *, kind: str = "auto") -> Answer:
        return self.request("PUT", self.route(kind, fields), chunks=[data])

    def upload(
        self,
        fields: Mapping[str, str],
        file: bytes = PNG,
        *,
        kind: str = "auto",
        filename: str = "cat.png",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """As every SDK does it: the fields, then the file."""
        return self.post(parts_of(fields), part("file", file, filename), END, kind=kind, headers=headers)

    def route(self, kind: str = "auto", query: Mapping[str, str] | None = None) -> str:
        return f"/v1_1/demo/{kind}/upload" + (f"?{urlencode(query)}" if query else "")

    def traces(self) -> Traces:
        spooled, blobs = (
            frozenset(name for _, _, names in os.walk(folder) for name in names)  # pathlib takes five times as long
            for folder in (self.media / "spool", self.media / "blobs")
        )
        if (self.media / "packs").is_dir():
            blobs |= {blob.key for blob in Packs(self.media / "packs", RandomIds(), 0, lambda _: ()).records()}
        return Traces(spooled, blobs, *(self.sql(f"SELECT count(*) FROM {t}") for t in ("assets", "grants", "audit")))

    def sql(self, statement: str) -> int:
        """Run one statement on the file, as an operator would; the first number of what it gives."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            row = connection.execute(statement).fetchone()
        finally:
            connection.close()
        return int(row[0]) if row else 0

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """The block stores, spends and notes nothing: no file comes or goes, and all rows stay as they are."""
        traces, rows = self.traces(), self.rows()
        yield
        assert self.traces() == traces, f"{traces} became {self.traces()}"
        assert self.rows() == rows, sorted({*rows} ^ {*self.rows()})

    def rows(self) -> list[str]:
        """Each row of each table, as SQL."""
        with closing(sqlite3.connect(self.path)) as connection:
            return list(connection.iterdump())


class QuickWorld(World):
    """The same with two shards in place of 512: to make and remove so many folders takes most of the time of a test.

    For tests that put no blobs under their own keys. Its keys are the same in the whole process of the tests.
    """

    def __init__(self, root: Path, *, limits: Limits | None = None) -> None:
        if not (root / "uponce.db").exists():
            (root / "media").mkdir()
            for name, data in first_start().items():
                (root / name).write_bytes(data)
            (root / "uponce.reserve").mkdir()
            for number in range(16):  # as large as those of a start, in no time
                with (root / "uponce.reserve" / str(number)).open("wb") as part:
                    part.truncate(64 * 1024)
        super().__init__(root, limits=limits, blobs=_two_shards(root))


@cache
def first_start() -> Mapping[str, bytes]:
    """The files of a server that has started once. Call it first where no test has patched anything."""
    with TemporaryDirectory() as folder:
        World(Path(folder), blobs=_two_shards(Path(folder))).close()
        assert {path.name for path in Path(folder).iterdir()} == {"uponce.db", "uponce.reserve", "media"}
        return {name: (Path(folder) / name).read_bytes() for name in ("uponce.db", "media/owner")}


def _two_shards(root: Path) -> Blobs:
    return _TwoShards(root / "media", ids=_FirstShards())


class _TwoShards(LocalBlobs):
    def _shards(self, prefix: str = "") -> Iterator[Path]:
        return (self._blobs / place for place in ("00", "p00") if place.startswith(shard_of(prefix)))


class _FirstShards(RandomIds):
    """Keys of the two shards."""

    def hex(self, length: int) -> str:
        return f"00{super().hex(length - 2)}"


async def create_key(services: Services, cloud: str, **policy: Any) -> ApiKey:
    key = new_key(services, cloud, **policy)
    await services.database.add_key(key)
    return key


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns, once the server has also done what no client waits for."""

    async def play() -> T:
        result = await work
        await finish_unbroken(60)
        return result

    return asyncio.run(play())


@asynccontextmanager
async def _no_lifespan(_: object) -> Any:
    yield


def assert_refused(answer: Answer, status: int, code: str) -> None:
    """The shape every refusal has."""
    assert (answer.status, answer.code) == (status, code), answer.body
    assert answer.headers["x-cld-error"]
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["cache-control"] == "no-store"


def assert_accepted(answer: Answer) -> Answer:
    assert answer.status == 200, answer.body
    return answer
