"""Files of this package that browsers load, for example the widget."""

import gzip
import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import cache, partial
from importlib.resources import files

from uponce.web.request import Header, Request
from uponce.web.response import ANY_ORIGIN, NO_SNIFF, Response, is_known, length_header

# The spaces before a line of a script, and a comment on the whole line. Each line keeps its number.
_COMMENT = re.compile(rb"^ *(?:(?://.*|/\*\* .* \*/)$)?", re.MULTILINE)

_TYPES = {
    "gif": b"image/gif",
    "jpg": b"image/jpeg",
    "js": b"text/javascript; charset=utf-8",
    "mp4": b"video/mp4",
}


def asset(name: str, *, commented: bool = True) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for one file of this package with a validator, text compressed for clients that accept gzip.

    Browsers keep the file for an hour. After that they ask whether it has changed, and get 304 if not. If the script is
    not `commented`, its comment lines are empty and no line is indented.
    """
    plain = files("uponce.web.pages").joinpath(name).read_bytes()
    if not commented:
        plain = _COMMENT.sub(b"", plain)
    kind, tag = _TYPES[name.rpartition(".")[2]], hashlib.sha256(plain).hexdigest()[:32]
    headers: tuple[Header, ...] = (
        (b"cache-control", b"public, max-age=3600"),
        (b"cross-origin-resource-policy", b"cross-origin"),
        # Sent also without an Origin: a cache would otherwise keep an answer that other pages cannot use.
        ANY_ORIGIN,
    )

    async def serve(request: Request) -> Response:
        return compressed(request, plain, kind, tag, headers)

    return serve


def compressed(request: Request, plain: bytes, kind: bytes, tag: str, headers: tuple[Header, ...]) -> Response:
    """Return the bytes, of the media type `kind`: text as gzip for clients that accept it, or 304 if they have the tag.

    The tag is weak: there is one for both encodings. Images and videos are compressed already.
    """
    etag = f'W/"{tag}"'
    headers = (*headers, (b"etag", etag.encode()), (b"vary", b"accept-encoding"), NO_SNIFF)
    if is_known(etag, request.head.get("if-none-match")):
        return Response(304, headers)
    if kind.startswith(b"text/") and _accepts_gzip(request.head.get("accept-encoding")):
        plain, headers = _packed(plain), (*headers, (b"content-encoding", b"gzip"))
    return Response(200, ((b"content-type", kind), *headers, length_header(len(plain))), plain)


_packed = cache(partial(gzip.compress, mtime=0))


def _accepts_gzip(header: str) -> bool:
    """Return whether the client names gzip and does not forbid gzip with `q=0`."""
    for item in header.lower().split(","):
        name, _, weight = item.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or not weight
    return False
