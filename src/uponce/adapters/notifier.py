"""POST notifications to URLs that clients signed: only to public addresses, unless a setting allows a network.

The connection goes to the address that was checked, so a DNS server cannot answer twice.
"""

import errno
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, TypeAlias

from uponce.core.errors import without_queries

if TYPE_CHECKING:
    import aiohttp

    from uponce.adapters.resolver import Resolver

Network: TypeAlias = IPv4Network | IPv6Network

_SECONDS = 10  # for all of one request
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
        "2001::/23 2001:db8::/32 2002::/16 3fff::/20"
    ).split()
)
_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether the address belongs to the public internet. `ipaddress` calls more addresses global."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _PUBLIC_V6 or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
            return False
    return not any(address in network for network in _PRIVATE)


class Notifier:
    """Sends notifications. It follows no redirect, uses no proxy, and reads only the status of an answer."""

    def __init__(self, allowed: Sequence[Network] = (), seconds: float = _SECONDS) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._opened: tuple[aiohttp.ClientSession, Resolver] | None = None

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        for each in opened or ():
            await each.close()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        """Return "" if the receiver accepted the notification with a status of 2xx, else the reason."""
        import aiohttp  # it takes 10 MiB and 80 ms, so servers without notifications do not load it

        session, _ = self._opened = self._opened or self._open()
        try:
            async with session.post(url, headers=headers, data=body, allow_redirects=False) as answer:
                return "" if 200 <= answer.status < 300 else f"the receiver answered {answer.status}"
        except aiohttp.ClientConnectorError as error:
            return f"{error.host} port {error.port} cannot be reached: {error.os_error.strerror or error.os_error}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return without_queries(f"{type(error).__name__} {error}".strip())

    def _open(self) -> "tuple[aiohttp.ClientSession, Resolver]":
        import aiohttp

        from uponce.adapters.resolver import Resolver

        resolver = Resolver()
        # The outbox limits how many are posted at once.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=self._socket, resolver=resolver)
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return session, resolver

    def _socket(self, info: "aiohttp.AddrInfoType") -> socket.socket:
        """Return a socket for the address. Raise OSError if uponce may not post there."""
        family, kind, protocol, _, where = info
        address = ip_address(str(where[0]).partition("%")[0])
        address = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
        if not is_public(address) and not any(address in network for network in self._allowed):
            reason = f"{address} is a private address that is not in UPONCE_NOTIFICATION_NETWORKS"
            raise PermissionError(errno.EACCES, reason)
        return socket.socket(family, kind, protocol)
