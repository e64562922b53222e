"""Files of this package that browsers load, for example the widget."""

import gzip
import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files

from uponce.web.request import Header, Request
from uponce.web.response import NO_SNIFF, Response, is_known, length_header

_SMALL = 1000  # bytes; compression saves nothing in smaller files

# A comment on a whole line of a script. The line becomes empty, so each line keeps its number.
_COMMENT = re.compile(rb"^ *(?://.*|/\*\* .* \*/)$", re.MULTILINE)

_TYPES = {
    "css": b"text/css; charset=utf-8",
    "gif": b"image/gif",
    "jpg": b"image/jpeg",
    "js": b"text/javascript; charset=utf-8",
    "mp4": b"video/mp4",
    "svg": b"image/svg+xml",
}


def asset(name: str, *, commented: bool = True) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for one file of this package, compressed for clients that accept gzip, with a validator.

    Browsers keep the file for an hour. After that they ask whether it has changed, and get 304 if not. If the script is
    not `commented`, its comment lines are empty.
    """
    plain = files("uponce.web.pages").joinpath(name).read_bytes()
    if not commented:
        plain = _COMMENT.sub(b"", plain)
    packed = gzip.compress(plain, mtime=0)
    # Weak: one tag for both encodings of the file.
    etag = f'W/"{hashlib.sha256(plain).hexdigest()[:32]}"'
    headers: tuple[Header, ...] = (
        (b"content-type", _TYPES[name.rpartition(".")[2]]),
        (b"etag", etag.encode()),
        (b"cache-control", b"public, max-age=3600"),
        (b"vary", b"accept-encoding"),
        NO_SNIFF,
        (b"cross-origin-resource-policy", b"cross-origin"),
        # Sent also without an Origin: a cache would otherwise keep an answer that other pages cannot use.
        (b"access-control-allow-origin", b"*"),
    )

    async def serve(request: Request) -> Response:
        head = request.head
        if is_known(etag, head.get("if-none-match")):
            return Response(304, headers[1:])
        if len(plain) > _SMALL and accepts_gzip(head.get("accept-encoding")):
            return Response(200, (*headers, length_header(len(packed)), (b"content-encoding", b"gzip")), packed)
        return Response(200, (*headers, length_header(len(plain))), plain)

    return serve


def accepts_gzip(header: str) -> bool:
    """Return whether the client names gzip and does not forbid gzip with `q=0`."""
    for item in header.lower().split(","):
        name, _, weight = item.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or not weight
    return False
