"""Files of this package that browsers load, for example `/widget.js`."""

import gzip
import hashlib
from importlib.resources import files

from uponce.web.body import Receive, Scope, Send
from uponce.web.respond import Header

METHODS = ("GET", "HEAD")
_SMALL = 1000  # bytes; compression saves nothing below

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "gif": b"image/gif",
    "jpg": b"image/jpeg",
    "js": b"text/javascript; charset=utf-8",
    "mp4": b"video/mp4",
    "svg": b"image/svg+xml",
}


class AssetEndpoint:
    """Serves one file of `uponce.web.pages`, compressed for clients that accept gzip, with a validator.

    Browsers keep it for an hour. After that they ask whether it has changed, and get 304 if not.
    """

    def __init__(self, name: str) -> None:
        self._plain = files("uponce.web.pages").joinpath(name).read_bytes()
        self._packed = gzip.compress(self._plain, mtime=0)
        # Weak: one tag for both encodings of the file.
        self._etag = f'W/"{hashlib.sha256(self._plain).hexdigest()[:32]}"'.encode()
        self._headers: tuple[Header, ...] = (
            (b"content-type", _TYPES[name.rpartition(".")[2]]),
            (b"etag", self._etag),
            (b"cache-control", b"public, max-age=3600"),
            (b"vary", b"accept-encoding"),
            (b"x-content-type-options", b"nosniff"),
            (b"cross-origin-resource-policy", b"cross-origin"),
            # Also where no Origin was sent: a cache would otherwise keep an answer that other pages cannot use.
            (b"access-control-allow-origin", b"*"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = dict(scope["headers"])
        if self._is_known(sent.get(b"if-none-match", b"")):
            await _send(send, 304, self._headers[1:], b"")
            return
        packed = len(self._plain) > _SMALL and _accepts_gzip(sent.get(b"accept-encoding", b""))
        body = self._packed if packed else self._plain
        headers = [*self._headers, (b"content-length", str(len(body)).encode())]
        if packed:
            headers.append((b"content-encoding", b"gzip"))
        await _send(send, 200, headers, b"" if scope["method"] == "HEAD" else body)

    def _is_known(self, condition: bytes) -> bool:
        tags = {tag.strip().removeprefix(b"W/") for tag in condition.split(b",")}
        return b"*" in tags or self._etag.removeprefix(b"W/") in tags


def _accepts_gzip(header: bytes) -> bool:
    """Whether the client names gzip and does not forbid it with `q=0`."""
    for item in header.lower().split(b","):
        name, _, weight = item.replace(b" ", b"").partition(b";q=")
        if name == b"gzip":
            return weight.strip(b"0.") != b"" or not weight
    return False


async def _send(send: Send, status: int, headers: tuple[Header, ...] | list[Header], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
