"""Several servers on one PostgreSQL database and one media folder."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.place import Place
from tests.server import Server

DATABASE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Fleet:
    """All servers know the keys of the first one."""

    servers: Sequence[Server]
    place: Place

    def dealt(self, number: int) -> Server:
        """To whom the request of this number goes."""
        return self.servers[number % len(self.servers)]


@contextmanager
def fleet(
    folder: Path, url: str, count: int = 2, *, program: Sequence[str] = ("-m", "uponce"), **settings: str
) -> Iterator[Fleet]:
    """Started one after the other: on an empty database the first one makes the keys, the others find them."""
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
