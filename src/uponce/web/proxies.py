"""The servers in front of uponce: which of them uponce trusts with the address of a client."""

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from uponce.web.request import Scope

log = logging.getLogger("uponce")

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)
_MAX_ADDRESS = 45  # the longest text of an IPv6 address
_MAX_HOPS = 20
_MAX_REMEMBERED = 1024
_SCHEMES = ("http", "https")


class TrustedProxies:
    """The servers in front whose `X-Forwarded-For` and `X-Forwarded-Proto` count. By default no server is trusted.

    All other forwarded headers are ignored, also `Forwarded` (RFC 7239), which neither nginx nor Caddy sends.
    """

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._warned = False

    def apply(self, scope: Scope) -> bool:
        """Write the client's address and scheme into the scope. `client` becomes None unless it is an IP address.

        Return whether a trusted proxy passed the request on for an address that is no trusted proxy.
        """
        peer, passed_on = _parsed(scope["client"][0]) if scope.get("client") else None, False
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if peer is not None and self._trusts(peer):
            scope["scheme"] = _scheme(scope)
            peer = self._client(peer, b",".join(forwarded).decode("latin-1"))
            passed_on = not self._trusts(peer)
        elif forwarded and peer is not None:
            self._warn(peer)
        scope["client"] = None if peer is None else (str(peer), 0)
        return passed_on

    def name(self, text: str) -> bool:
        """Return whether the text is the address of a trusted proxy."""
        address = _parsed(text)
        return address is not None and self._trusts(address)

    def _trusts(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, peer: IPAddress, forwarded: str) -> IPAddress:
        """Return the last hop that is no trusted proxy: each proxy appends the address that called it.

        Text that is no address ends the search, since a client may have sent everything to the left of it.
        """
        for hop in reversed(forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            address = _parsed(hop.strip())
            if address is None:
                return peer
            peer = address
            if not self._trusts(address):
                return address
        return peer

    def _warn(self, peer: IPAddress) -> None:
        """Log once that a proxy seems to be in front. A stranger on the internet has no private address."""
        if self._warned or not peer.is_private:
            return
        self._warned = True
        log.warning(
            "%s sends X-Forwarded-For, but UPONCE_TRUSTED_PROXIES does not name it. The audit and the limits per "
            "address take all its clients for one. If it is your proxy, set UPONCE_TRUSTED_PROXIES=%s.",
            peer,
            peer,
        )


def _scheme(scope: Scope) -> str:
    """Return http or https: the last X-Forwarded-Proto if valid, otherwise the scheme of the connection."""
    sent = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    scheme = b",".join(sent).decode("latin-1").rpartition(",")[2].strip().lower()
    return scheme if scheme in _SCHEMES else str(scope["scheme"])


@lru_cache(_MAX_REMEMBERED)
def _parsed(text: str) -> IPAddress | None:
    """Return the IP address, also of `address:port`. Return None for any other text. IPv4 inside IPv6 becomes IPv4."""
    if match := _WITH_PORT.fullmatch(text[: _MAX_ADDRESS + 8]):
        text = match[1] or match[2] or ""
    plain = text.partition("%")[0]  # a zone has meaning on one machine only
    try:
        address = ip_address(plain) if len(plain) <= _MAX_ADDRESS else None
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
