"""Connections whose last answer came early stay open for a moment, so that their clients can read it.

Most clients read nothing before they have sent their request. The kernel resets a connection that is closed before all
bytes are read, and such a client then meets a broken connection instead of the answer (RFC 9112 §9.6).
"""

import asyncio

_SECONDS = 2.0
_MOST_CONNECTIONS = 100  # for all addresses: connections that the server refuses may outnumber all others


class Lingering:
    """The connections of a process that are open for a moment after their last answer."""

    def __init__(self) -> None:
        self._connections: set[asyncio.BaseTransport] = set()

    def end(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, answer: bytes) -> bool:
        """Send the last answer. End the connection after 2 seconds, or at once if 100 others wait.

        Return whether it is still open. The caller then drops what the client sends.
        """
        transport.write(answer)
        if len(self._connections) >= _MOST_CONNECTIONS:
            transport.close()
            return False
        self._connections.add(transport)
        if transport.can_write_eof():
            transport.write_eof()  # a client that waits for the end closes the connection, and need not wait
        loop.call_later(_SECONDS, transport.close)
        return True

    def discard(self, transport: asyncio.BaseTransport) -> None:
        """Forget a connection that has ended: another one may have its place."""
        self._connections.discard(transport)
