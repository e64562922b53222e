"""What every endpoint reads from an ASGI scope."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from uponce.core.errors import MalformedRequest
from uponce.core.values import Caller
from uponce.web.body import Scope

log = logging.getLogger("uponce")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# RFC 3986 §3.2.2 without percent-encoding, which no name in DNS has.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?", re.ASCII)
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)
_MAX_ADDRESS = 45  # the longest text of an IPv6 address
_MAX_HOPS = 20
_MAX_REMEMBERED = 1024
REQUEST_ID_LENGTH = 32
_SCHEMES = ("http", "https")


@dataclass(frozen=True, slots=True)
class Head:
    """Headers by lower-case name; a repeated one is MalformedRequest where it would be ambiguous."""

    headers: dict[str, str]
    origin: str | None
    caller: Caller

    def get(self, name: str) -> str:
        return self.headers.get(name, "")


_SINGLE = {
    "host",
    "content-type",
    "content-length",
    "content-range",
    "origin",
    "authorization",
    "range",
    "idempotency-key",
    "x-unique-upload-id",
    "tus-resumable",
    "upload-length",
    "upload-defer-length",
    "upload-offset",
    "upload-metadata",
    "upload-checksum",
    "x-http-method-override",
}


def read_head(scope: Scope) -> Head:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if name in headers and name in _SINGLE:
            raise MalformedRequest(f"Header {name} was sent more than once. Send it once.")
        headers.setdefault(name, raw_value.decode("latin-1"))
    client = scope.get("client")
    caller = Caller(address=client[0] if client else "", request_id=scope["state"]["request_id"])
    return Head(headers, headers.get("origin"), caller)


def base_url(scope: Scope, head: Head, public_url: str | None) -> str:
    """Return the base of the answers' URLs: the setting, or the host that the client called.

    MalformedRequest unless header Host is a plain name or address with an optional port.
    """
    if public_url is not None:
        return public_url.rstrip("/")
    host = head.get("host")
    match = _HOST.fullmatch(host)
    if match is None or int(match[1] or 0) > 65535:
        shown = re.sub(r"[^\x20-\x7e]", "?", host[:60])
        raise MalformedRequest(f"Header Host is '{shown}'. Send the name or address of this server, and its port.")
    return f"{scope['scheme']}://{host}"


class TrustedProxies:
    """The servers in front whose `X-Forwarded-For` and `X-Forwarded-Proto` count; by default there are none.

    All other forwarded headers are ignored, also `Forwarded` (RFC 7239), which neither nginx nor Caddy sends.
    """

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = tuple(networks)
        self._warned = False

    def apply(self, scope: Scope) -> None:
        """Put the client's address and scheme into the scope. `client` becomes None unless it is an IP address."""
        peer = _parsed(scope["client"][0]) if scope.get("client") else None
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if peer is not None and self._trusts(peer):
            scope["scheme"] = _scheme(scope)
            peer = self._client(peer, b",".join(forwarded).decode("latin-1"))
        elif forwarded and peer is not None:
            self._warn(peer)
        scope["client"] = None if peer is None else (str(peer), 0)

    def name(self, text: str) -> bool:
        """Return whether the text is the address of a trusted proxy."""
        address = _parsed(text)
        return address is not None and self._trusts(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, peer: Address, forwarded: str) -> Address:
        """Return the last hop that is no trusted proxy: each proxy appends the address that called it.

        Text that is no address ends the search, since a client can have sent everything to the left of it.
        """
        for hop in reversed(forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            address = _parsed(hop.strip())
            if address is None:
                return peer
            peer = address
            if not self._trusts(address):
                return address
        return peer

    def _warn(self, peer: Address) -> None:
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
    """Return http or https: the last X-Forwarded-Proto if it is one of them, else the scheme of the connection."""
    sent = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    scheme = b",".join(sent).decode("latin-1").rpartition(",")[2].strip().lower()
    return scheme if scheme in _SCHEMES else str(scope["scheme"])


@lru_cache(_MAX_REMEMBERED)
def _parsed(text: str) -> Address | None:
    """Return the IP address, also of `address:port`; None for any other text. IPv4 inside IPv6 becomes IPv4."""
    if match := _WITH_PORT.fullmatch(text[: _MAX_ADDRESS + 8]):
        text = match[1] or match[2] or ""
    plain = text.partition("%")[0]  # a zone has meaning on one machine only
    try:
        address = ip_address(plain) if len(plain) <= _MAX_ADDRESS else None
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
