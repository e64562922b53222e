"""What every endpoint reads from an ASGI scope."""

import re
from dataclasses import dataclass

from uponce.core.errors import MalformedRequest
from uponce.core.values import Caller
from uponce.web.body import Scope

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")


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
            raise MalformedRequest(f"Header {name} was sent more than once.")
        headers.setdefault(name, raw_value.decode("latin-1"))
    client = scope.get("client")
    caller = Caller(address=client[0] if client else "", request_id=scope["state"]["request_id"])
    return Head(headers, headers.get("origin"), caller)


def base_url(scope: Scope, head: Head, public_url: str | None) -> str:
    """Where the answers' URLs point: the setting, or the host that the client called."""
    if public_url is not None:
        return public_url.rstrip("/")
    host = head.get("host")
    if not _HOST.fullmatch(host):
        raise MalformedRequest("Header Host is missing or malformed.")
    return f"{scope['scheme']}://{host}"
