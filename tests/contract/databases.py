"""What the Database suite is written with: back ends to run on, and values to run with."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from tests import postgres
from uponce.adapters.database.postgres import PostgresDatabase, pool, session
from uponce.adapters.database.sqlite import SqliteDatabase, connection
from uponce.app.ports import Committed, Database, Draft, Effect
from uponce.core.errors import UponceError
from uponce.core.relaying import Relay
from uponce.core.signature import dated, keep_until
from uponce.core.upstream import Target
from uponce.core.values import (
    ApiKey,
    Asset,
    AssetName,
    Caller,
    DeliveryType,
    Digest,
    Grant,
    KeyScope,
    KeyUses,
    MediaFacts,
    ResourceType,
)

T = TypeVar("T")

START = 1_767_225_600
WINDOW = 3600
SKEW = 300
MAX_UPLOAD = 3600
CALLER = Caller("192.0.2.1", "request-1")
KEY = ApiKey("111", "demo", ("the-secret",), KeyUses.ONCE, KeyScope.UPLOAD, WINDOW, name="browser", created_at=START)
OTHER = replace(KEY, api_key="222", name="server", secrets=("another",), uses=KeyUses.UNLIMITED, scope=KeyScope.ALL)


@dataclass
class SteppedClock:
    """A clock that a test moves, also backwards."""

    time: float = START

    def now(self) -> float:
        return self.time


class PlainBox:
    """Hides nothing, but holds its users to the right context."""

    def make_key(self) -> None: ...

    def encrypt(self, plain: str, context: str) -> bytes:
        return f"{context}|{plain[::-1]}".encode()

    def decrypt(self, cipher: bytes, context: str) -> str:
        found, _, reversed_ = cipher.decode().partition("|")
        assert found == context
        return reversed_[::-1]


class ExactRow(sqlite3.Row):
    """Its columns have no name in another letter case, as those of PostgreSQL have none."""

    def __getitem__(self, name: Any, /) -> Any:
        if isinstance(name, str) and name not in self.keys():
            raise IndexError(name)
        return super().__getitem__(name)


def _connect_exactly(path: Path) -> connection.Connection:
    opened = connection.connect(path)
    opened.row_factory = ExactRow
    return opened


def open_sqlite(path: Path, clock: SteppedClock | None = None) -> SqliteDatabase:
    database = SqliteDatabase(path, clock=clock or SteppedClock(), secrets=PlainBox(), connect=_connect_exactly)
    database.open()
    return database


def open_postgres(url: str, clock: SteppedClock | None = None) -> PostgresDatabase:
    """It waits longer than a machine stalls."""
    database = PostgresDatabase(url, clock=clock or SteppedClock(), secrets=PlainBox(), seconds=60, slack=0)
    database.open()
    return database


def prepared(url: str) -> str:
    """The same URL: its data set now has KEY. On a slow machine that may take longer than an impatient server waits."""
    database = open_postgres(url)
    run(database.add_key(KEY))
    database.close()
    return url


Opened = SqliteDatabase | PostgresDatabase


@dataclass
class Backend:
    """One data set and the servers that share it. `recipe` opens a server in another process."""

    connect: Callable[[SteppedClock], Opened]
    recipe: Callable[[], Opened]
    clock: SteppedClock = field(default_factory=SteppedClock)
    servers: list[Opened] = field(default_factory=list)

    def server(self) -> Database:
        self.servers.append(self.connect(self.clock))
        return self.servers[-1]

    def stop(self) -> None:
        while self.servers:
            self.servers.pop().close()


def sqlite_backend(folder: Path) -> Backend:
    path = folder / "data" / "uponce.db"
    return Backend(partial(open_sqlite, path), partial(open_sqlite, path))


def postgres_backend(folder: Path) -> Backend:
    url = postgres.shared().fresh_schema()
    return Backend(partial(open_postgres, url), partial(open_postgres, url))


BACKENDS: dict[str, Callable[[Path], Backend]] = {"sqlite": sqlite_backend, "postgres": postgres_backend}


def grant(name: str = "a", *, at: int = START, max_uses: int = 1, window: int = WINDOW, key: ApiKey = KEY) -> Grant:
    until = keep_until(at, window=window, skew=SKEW, max_upload_seconds=MAX_UPLOAD)
    return Grant(dated(at, sha256(f"{name}/{at}".encode()).digest()), key.cloud, key.api_key, at, max_uses, until)


def draft(public_id: str = "cat", *, blob: str, overwrite: bool = True, **fields: Any) -> Draft:
    """`fields` are further ones of the asset."""
    asset = Asset(
        name=AssetName("demo", ResourceType.IMAGE, DeliveryType.UPLOAD, public_id),
        asset_id=sha256(blob.encode()).hexdigest()[:32],
        version=0,
        version_id=sha256(b"v" + blob.encode()).hexdigest()[:32],
        created_at=0,
        blob_key=blob,
        digest=Digest(3, "0" * 32, "1" * 64),
        facts=MediaFacts(ResourceType.IMAGE, "jpg", 640, 480, 1),
    )
    return Draft(replace(asset, **fields), overwrite)


async def attempt(database: Database, grant: Grant, draft: Draft) -> str:
    """`ok`, or the code of the refusal."""
    try:
        await database.commit(grant, draft, CALLER)
    except UponceError as error:
        return error.code
    return "ok"


async def publish(database: Database, name: str, public_id: str = "cat", *, overwrite: bool = True) -> Committed:
    """Commit with the grant of this name."""
    return await database.commit(grant(name), draft(public_id, blob=f"blob-{name}", overwrite=overwrite), CALLER)


async def race(servers: Sequence[Database], contested: Grant, racers: int, label: str = "") -> list[str]:
    """So many commits of one grant at once, dealt out to the servers."""
    attempts = (
        attempt(servers[number % len(servers)], contested, draft(blob=f"{contested.key.hex()}{label}{number}"))
        for number in range(racers)
    )
    return await asyncio.gather(*attempts)


def wait_long(set_: Callable[[object, str, object], None] = setattr) -> None:
    """Healthy groups take longer than two seconds, and a condemnation waits for them, where a machine stalls."""
    set_(pool, "_STUCK_SECONDS", 60.0)
    set_(session, "OWN_MILLISECONDS", 60_000)
    set_(connection, "BUSY_SECONDS", 60.0)
    set_(connection.Engine, "seconds", 60.0)


def race_in_process(recipe: Callable[[], Opened], contested: Iterable[Grant], label: str) -> list[list[str]]:
    """What another server process does: two racers for each grant, all at once."""
    wait_long()
    database = recipe()

    async def run() -> list[list[str]]:
        return await asyncio.gather(*(race([database], grant, 2, label) for grant in contested))

    try:
        return asyncio.run(run())
    finally:
        database.close()


async def claim(database: Database, name: str, most: int = 10, lease: int = 60) -> list[Effect]:
    """Take due effects, at most so many of each receiver."""
    receivers = await database.list_receivers(name, "", 1000)
    return list(await database.claim_effects(name, dict.fromkeys(receivers, most), lease))


def relay(*grants: Grant, id: str = "", series: str | None = None, key_hash: bytes | None = None) -> Relay:
    """An upload that is passed on, of these grants."""
    return Relay(
        id=id or sha256(b"".join(each.key for each in grants)).hexdigest()[:32],
        cloud="demo",
        grants=grants,
        target=Target("auto", "upload", {"public_id": "cat"}, (("image", "cat"), ("raw", "c\u00e4t.bin")), None),
        digest=Digest(3, "0" * 32, "1" * 64),
        caller=CALLER,
        key_hash=key_hash,
        series_id=series,
    )


def unlimited(grant: Grant) -> Grant:
    return replace(grant, max_uses=2**62)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
