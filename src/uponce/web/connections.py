"""The open connections of a process: a new one may need the place of an idle one, and a slow reader has a bound."""

import socket
from typing import Protocol

_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNSENT_BYTES = 64 * 1024


class ClientConnection(Protocol):
    """A connection to a client. `abort` ends it at once, with whatever its client has not read yet."""

    def is_answering(self) -> bool: ...

    def unsent_bytes(self) -> int: ...

    def abort(self) -> None: ...


class Connections:
    """At most `limit` connections of one network are open, by the address of their clients."""

    def __init__(self) -> None:
        self._open: dict[str, dict[ClientConnection, None]] = {}  # by network; the oldest connection first

    def add(self, connection: ClientConnection, network: str, limit: int) -> bool:
        """Add the connection. At the limit, end the oldest one that has no request under way.

        Return False, and add nothing, if all are busy. Unsent bytes are the end of an answer that a client reads
        slowly, so a connection with some ends only if there is no other.
        """
        neighbours = self._open.setdefault(network, {})
        if len(neighbours) >= limit:
            oldest = next((other for other in neighbours if not (other.is_answering() or other.unsent_bytes())), None)
            oldest = oldest or next((other for other in neighbours if not other.is_answering()), None)
            if oldest is None:
                return False
            del neighbours[oldest]
            oldest.abort()
        neighbours[connection] = None
        return True

    def remove(self, connection: ClientConnection, network: str) -> None:
        neighbours = self._open.get(network, {})
        neighbours.pop(connection, None)
        if not neighbours:
            self._open.pop(network, None)


def limit_unsent(connection: socket.socket) -> None:
    """Limit what the kernel keeps unsent for a client that reads nothing. A smaller buffer would slow readers down."""
    if _NOTSENT_LOWAT is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _UNSENT_BYTES)
