"""POST notifications to URLs that clients signed: only to public addresses, unless a setting allows a network.

The connection goes to the address that was checked, so a DNS server cannot answer twice.
"""

import errno
import re
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import aiohttp

    from uponce.adapters.resolver import Resolver

Network: TypeAlias = IPv4Network | IPv6Network

_SECONDS = 10  # for all of one request
_SLOW_SECONDS = 1
_MOST_SLOW = 1024
_MOST_WAIT = 300
_LOOK_SECONDS = 1  # a notification whose turn has come is tried by then
_SHARE_OF_SLOW = 16
AT_ONCE = _SHARE_OF_SLOW + 8
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


def _host_of(url: str) -> str:
    """Return the host and port. A password in the URL is no part of them."""
    return re.split("[/?#]", url.partition("//")[2], maxsplit=1)[0].rpartition("@")[2].lower()


class Notifier:
    """Sends notifications. It follows no redirect, uses no proxy, and reads only the status of an answer.

    A receiver whose last notification failed slowly gets one at a time, until it answers. Receivers that accept slowly
    share 16 of the 24 places. So both leave room for the others.
    """

    def __init__(self, allowed: Sequence[Network] = (), seconds: float = _SECONDS) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._opened: tuple[aiohttp.ClientSession, Resolver] | None = None
        self._slow: dict[str, None] = {}  # hosts with their ports, in the order of their last failures
        self._tried: set[str] = set()  # those of them that one notification is on its way to
        self._patient: dict[str, None] = {}  # hosts that accepted the last one slowly
        self._turns: dict[str, float] = {}  # the last turn in the line of each: a quick answer between others keeps it
        self._under_way = Counter[str]()

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        for each in opened or ():
            await each.close()

    def is_busy(self, url: str) -> bool:
        return _host_of(url) in self._tried

    def wait_for(self, url: str) -> int:
        """Return 0 if the receiver has a free place, else the seconds until the turn of this notification.

        Slow receivers have 16 turns a second together. That is more than they can use, so no place is free for long. A
        turn is at most five minutes away: by then, the receiver may be quick again.
        """
        host, now = _host_of(url), monotonic()
        if host not in self._patient:
            return 0
        used = {each: count for each, count in self._under_way.items() if each in self._patient}
        waiting = {each for each, turn in self._turns.items() if each in self._patient and turn > now - _LOOK_SECONDS}
        share = _SHARE_OF_SLOW / len(waiting.union(used, (host,)))
        if used.get(host, 0) < max(1, int(share)) and sum(used.values()) < _SHARE_OF_SLOW:
            return 0
        turn = max(now, self._turns.get(host, 0.0)) + _SLOW_SECONDS / share
        self._turns[host] = min(turn, now + _MOST_WAIT)
        return max(1, ceil(self._turns[host] - now))

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        """Return "" if the receiver accepted the notification with a status of 2xx, else the reason."""
        host = _host_of(url)
        alone, begun = host in self._slow and host not in self._tried, monotonic()
        if alone:
            self._tried.add(host)
        self._under_way[host] += 1
        try:
            problem = await self._post(url, headers, body)
        finally:
            if alone:  # another one that began before the receiver was slow leaves the mark alone
                self._tried.discard(host)
            self._under_way -= Counter((host,))  # keeps no zero
        self._slow.pop(host, None)
        self._patient.pop(host, None)
        if monotonic() - begun >= _SLOW_SECONDS:
            (self._slow if problem else self._patient)[host] = None
            for hosts in (self._slow, self._patient, self._turns):
                if len(hosts) > _MOST_SLOW:  # a host that gets no further notification would stay for ever
                    del hosts[next(iter(hosts))]
        return problem

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> str:
        import aiohttp  # it takes 10 MiB and 80 ms, so servers without notifications do not load it

        session, _ = self._opened = self._opened or self._open()
        try:
            async with session.post(url, headers=headers, data=body, allow_redirects=False) as answer:
                return "" if 200 <= answer.status < 300 else f"the receiver answered {answer.status}"
        except aiohttp.ClientConnectorError as error:
            return f"{error.host} port {error.port} cannot be reached: {error.os_error.strerror or error.os_error}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__} {error}".strip()

    def _open(self) -> "tuple[aiohttp.ClientSession, Resolver]":
        import aiohttp

        from uponce.adapters.resolver import Resolver

        resolver = Resolver()
        connector = aiohttp.TCPConnector(
            limit=AT_ONCE, force_close=True, socket_factory=self._socket, resolver=resolver
        )
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
