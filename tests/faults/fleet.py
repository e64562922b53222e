"""The servers that share a store: one with its worker processes on SQLite, or several on one PostgreSQL."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.place import Place
from tests.server import Server

UPONCE = ("-m", "uponce")
DATABASE_SECONDS = 2


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
def on_sqlite(folder: Path, workers: int, *, program: Sequence[str] = UPONCE, **settings: str) -> Iterator[Fleet]:
    """One server with so many processes on SQLite."""
    with Server(folder / "data", workers=workers, env=settings, program=program) as server:
        yield Fleet([server], Place(server.data_dir))


@contextmanager
def on_postgres(
    folder: Path, url: str, count: int = 2, *, program: Sequence[str] = UPONCE, **settings: str
) -> Iterator[Fleet]:
    """So many servers on one PostgreSQL and one media folder.

    Started one after the other: on an empty database the first one makes the keys, the others find them.
    """
    shared = {
        "UPONCE_DATABASE": url,
        "UPONCE_STORAGE": f"file://{folder}/media",
        "UPONCE_SECRET_KEY": secrets.token_hex(32),
        "UPONCE_DATABASE_SECONDS": str(DATABASE_SECONDS),
    }
    own = {"UPONCE_DECODERS": "1", **settings}
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Server(folder / f"server-{number}", env=shared | own, program=program))
            for number in range(count)
        ]
        first = servers[0]
        for other in servers[1:]:
            other.cloud, other.browser, other.server = first.cloud, first.browser, first.server
        yield Fleet(servers, Place(folder / "operator", shared))
