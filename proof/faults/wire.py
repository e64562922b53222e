"""A line to PostgreSQL that breaks at one message of its protocol: a request is not passed on, or a reply is not."""

import socket
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Side = Literal["request", "reply"]
SIDES: tuple[Side, ...] = ("request", "reply")

_SOCKET = ".s.PGSQL.5432"
_SECONDS = 60
_HEAD = 4  # the length, which counts itself; all but a connection's first message have a type before it


@dataclass(frozen=True, slots=True)
class Cut:
    """The message of this number, counted since the line was armed, is eaten and its connection broken.

    A `lasting` one breaks all others too, and lets no new one through.
    """

    side: Side
    number: int
    lasting: bool


class Wire:
    """Listens on a socket in `folder`, as PostgreSQL does; what it is sent before a cut, PostgreSQL does to the end."""

    def __init__(self, server: Path) -> None:
        self._server = server / _SOCKET
        self._own = tempfile.TemporaryDirectory(prefix="uponce-wire-")
        self.folder = Path(self._own.name)
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._cut: Cut | None = None
        self.passed: Counter[Side] = Counter()
        self.broke = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / _SOCKET))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, cut: Cut | None) -> None:
        """Count from here."""
        with self._lock:
            self._cut, self.broke, self.passed = cut, False, Counter()

    def settle(self) -> None:
        """Return when PostgreSQL has done whatever it was sent, and has closed every connection.

        The line is repaired then.

        The client must have closed its connections.
        """
        self.arm(None)
        while self._threads:
            thread = self._threads.pop()
            thread.join(_SECONDS)
            assert not thread.is_alive()

    def close(self) -> None:
        self._listener.close()
        self._own.cleanup()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._cut is not None and self._cut.lasting and self.broke:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._server))
                self._clients.add(client)
                for pump in (self._requests, self._replies):
                    thread = threading.Thread(target=pump, args=(client, server), daemon=True)
                    thread.start()
                    self._threads.append(thread)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            for message in _messages(client, untyped=True):
                if self._is_eaten("request"):
                    self._break(client)
                    break
                server.sendall(message)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on all replies to their end, also when no client reads them any more."""
        with suppress(OSError):
            for message in _messages(server, untyped=False):
                if self._is_eaten("reply"):
                    self._break(client)
                with suppress(OSError):
                    client.sendall(message)
        self._clients.discard(client)
        for end in (client, server):
            end.close()

    def _is_eaten(self, side: Side) -> bool:
        with self._lock:
            self.passed[side] += 1
            cut = self._cut
            if self.broke or cut is None or (cut.side, cut.number) != (side, self.passed[side]):
                return False
            self.broke = True
            return True

    def _break(self, client: socket.socket) -> None:
        assert self._cut is not None
        for end in list(self._clients) if self._cut.lasting else [client]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _messages(source: socket.socket, *, untyped: bool) -> Iterator[bytes]:
    """Whole ones, until the end of the stream."""
    with source.makefile("rb") as stream:
        while True:
            head = stream.read(_HEAD if untyped else 1 + _HEAD)
            if len(head) < _HEAD:
                return
            (length,) = struct.unpack("!I", head[-_HEAD:])
            yield head + stream.read(length - _HEAD)
            untyped = False
