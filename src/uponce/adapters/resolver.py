"""Look up the addresses of names, for aiohttp."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from uponce.adapters.threads import NoThread, Threads, ThreadsEnded

# At least 24 notifications × 3: one ends after 10 s, but the system may look a name up for 30 s.
_AT_ONCE = 80
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver(AbstractResolver):
    """Looks names up by the system, on its own threads.

    uvloop has two threads for all look-ups of a process, and no look-up can be cancelled. Two names whose DNS does not
    answer would stop all look-ups.
    """

    def __init__(self) -> None:
        self._threads = Threads(_AT_ONCE, "uponce-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            return await self._threads.run(lambda: _look_up(host, port, family))
        except (NoThread, ThreadsEnded) as error:
            raise OSError(f"no thread can look up a name: {error}") from error

    async def close(self) -> None:
        """End the threads. Those whose look-up has begun end after it."""
        self._threads.close(within=0)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=socket.getnameinfo(where, _NUMERIC)[0],  # with the zone of a link-local address
            port=port,
            family=kind,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for kind, _, protocol, _, where in found
    ]
