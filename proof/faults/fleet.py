"""The servers that share a store: one with its worker processes on SQLite, or several on one PostgreSQL."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proof.faults.place import Place
from tests import postgres
from tests.server import Server
from tests.stores import seaweedfs
from tests.stores.seaweedfs import SeaweedFS

UPONCE = ("-m", "uponce")
DATABASE_SECONDS = STORAGE_SECONDS = 30  # that no statement and no request takes on a machine that stands still


@dataclass(frozen=True, slots=True)
class Fleet:
    """All servers know the keys of the first one."""

    servers: Sequence[Server]
    place: Place

    @property
    def first(self) -> Server:
        return self.servers[0]

    def dealt(self, number: int) -> Server:
        """To whom the request of this number goes."""
        return self.servers[number % len(self.servers)]

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


@contextmanager
def on_sqlite(folder: Path, count: int, *, program: Sequence[str] = UPONCE, **settings: str) -> Iterator[Fleet]:
    """Yield one server with so many processes on SQLite."""
    env = {"UPONCE_DECODERS": "2", "UPONCE_LOG_LEVEL": "info", **settings}
    with Server(folder / "data", workers=count, env=env, program=program) as server:
        if count > 1:
            server.wait_for_all()
        yield Fleet([server], Place(server.data_dir))


@contextmanager
def on_postgres(
    folder: Path,
    url: str,
    count: int = 2,
    bucket: Mapping[str, str] | None = None,
    of_each: Sequence[Mapping[str, str]] = (),
    /,
    *,
    program: Sequence[str] = UPONCE,
    **settings: str,
) -> Iterator[Fleet]:
    """So many servers on one PostgreSQL, and on one media folder unless there is a `bucket`: its environment.

    `settings` are those of all servers, `of_each` has further ones of each.
    Started one after the other: on an empty database the first one makes the keys, the others find them.
    """
    shared = {
        "UPONCE_DATABASE": url,
        "UPONCE_SECRET_KEY": secrets.token_hex(32),
        "UPONCE_DATABASE_SECONDS": str(DATABASE_SECONDS),
        "UPONCE_STORAGE": f"file://{folder}/media",
        **(bucket or {}),
    }
    own = {"UPONCE_DECODERS": "1", **settings}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(folder / f"server-{number}", env={**shared, **own, **more}, program=program))
            for number, more in zip(range(count), of_each or [{}] * count, strict=True)
        ]
        first = servers[0]
        for other in servers[1:]:
            other.cloud, other.browser, other.server = first.cloud, first.browser, first.server
        yield Fleet(servers, Place(folder / "operator", shared, [server.data_dir for server in servers]))


def fresh_bucket(seconds: int = STORAGE_SECONDS) -> dict[str, str]:
    return bucket_of(seaweedfs.shared(), seconds)


def bucket_of(store: SeaweedFS, seconds: int) -> dict[str, str]:
    """Return the environment for a new place in that S3 server, which has so many seconds for a request."""
    limit = {"UPONCE_STORAGE_SECONDS": str(seconds)}
    return store.environment | {"UPONCE_STORAGE": store.fresh_url()} | limit


class Opened(Protocol):
    """A fleet of so many in this folder."""

    def __call__(
        self, folder: Path, count: int, *, program: Sequence[str] = UPONCE, **settings: str
    ) -> AbstractContextManager[Fleet]: ...


def _on_shared_postgres(
    folder: Path, count: int, *, program: Sequence[str] = UPONCE, **settings: str
) -> AbstractContextManager[Fleet]:
    return on_postgres(folder, postgres.shared().fresh_schema(), count, program=program, **settings)


def _on_shared_postgres_and_s3(
    folder: Path, count: int, *, program: Sequence[str] = UPONCE, **settings: str
) -> AbstractContextManager[Fleet]:
    return on_postgres(folder, postgres.shared().fresh_schema(), count, fresh_bucket(), program=program, **settings)


@dataclass(frozen=True, slots=True)
class Ground:
    """What fleets run on, and the names of `one` and of `many` of their members."""

    opened: Opened
    one: str
    many: str

    def size(self, count: int) -> str:
        return f"{count} {self.one if count == 1 else self.many}"


ONE_BOX = Ground(on_sqlite, "server process", "server processes")
POSTGRES = Ground(_on_shared_postgres, "server on PostgreSQL", "servers on PostgreSQL")
POSTGRES_AND_S3 = Ground(_on_shared_postgres_and_s3, "server on PostgreSQL and S3", "servers on PostgreSQL and S3")
