"""Delivery of originals: ranges, validators, and bytes that another server sends."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote

from uponce.app.deliver import find, open_original
from uponce.app.ports import LocationOf, Presigner
from uponce.app.services import Services
from uponce.core.errors import PreconditionFailed, RangeNotSatisfiable, StorageUnavailable
from uponce.core.formats import is_download, media_type
from uponce.core.naming import DeliveryPath, parse_path
from uponce.core.ranges import parse_ranges
from uponce.core.spans import Span
from uponce.core.values import Asset, DeliveryType, ResourceType
from uponce.web.blocks import Block, first_block, pieces_of
from uponce.web.errors import refusal
from uponce.web.places import Places
from uponce.web.request import Head, Header, Request, raw_path
from uponce.web.response import ANY_ORIGIN, NO_SNIFF, Response, is_known, length_header

PATHS = tuple(f"/{{cloud}}/{kind}/{{rest:path}}" for kind in ResourceType)

# Stored bytes are inert, whatever they are: no sniffing, no script, no embedding surprises. To play a video, a browser
# makes a page under the headers of the file, and that page must be able to load the file.
_INERT = (
    NO_SNIFF,
    (b"content-security-policy", b"default-src 'none'; media-src 'self'; sandbox"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"timing-allow-origin", b"*"),
    # Sent also without an Origin: otherwise a cache would keep an answer that a later cross-origin fetch cannot use.
    ANY_ORIGIN,
)
_VALIDATORS = (b"etag", b"last-modified")


async def deliver(services: Services, looking_up: Places, opening: Places, request: Request) -> Response:
    """Return the original at `/<cloud>/<resource_type>/<type>/[s--sig--/]v<version>/<public_id>.<ext>`."""
    path = parse_path(raw_path(request.scope))

    async def look_up() -> Asset:
        async with looking_up.of(request):
            return await find(services, path)

    asset = await look_up()
    while True:
        try:
            return await _answer(services, opening, request, path, asset)
        except StorageUnavailable:
            # An overwrite may have deleted the bytes since the look-up. Then another look-up finds the new bytes.
            newer = await look_up()
            if newer.blob_key == asset.blob_key:
                raise
            asset = newer


async def _answer(services: Services, opening: Places, request: Request, path: DeliveryPath, asset: Asset) -> Response:
    now = services.clock.now()
    headers = headers_of(asset, path, now)
    if services.presigner is not None:
        headers = _beside_redirect(headers, services.presigner)
    if _is_sent_elsewhere(services, request, asset):
        return await _elsewhere(services, request.head, asset, now, headers)
    try:
        return await _original(services, opening, request, asset, headers)
    except RangeNotSatisfiable as error:
        return refusal(request, error, headers=((b"content-range", f"bytes */{asset.digest.size}".encode()),))


def is_for_front(services: Services, asset: Asset) -> bool:
    """Return whether the server in front sends the bytes of this asset."""
    return services.location_of is not None and services.location_of(asset.blob_key) is not None


def _is_sent_elsewhere(services: Services, request: Request, asset: Asset) -> bool:
    """Return whether another server sends the bytes.

    nginx would judge If-Match and If-Unmodified-Since by the time of the file. A bucket judges them by its own values.
    """
    if services.location_of is not None:
        headers = request.head.headers
        return is_for_front(services, asset) and "if-match" not in headers and "if-unmodified-since" not in headers
    return services.presigner is not None and request.method == "GET"


async def _elsewhere(services: Services, head: Head, asset: Asset, now: float, headers: list[Header]) -> Response:
    """Return a response without bytes. It leads the client, or the server in front, to the bytes."""
    if services.location_of is None:  # a redirect ignores all conditions (RFC 9110 §13.2.1)
        assert services.presigner is not None
        return await _redirect(services.presigner, asset, headers)
    if _not_modified(head, asset):
        return Response(304, tuple(headers))
    return _through(services.location_of, asset, now, headers)


def _through(location_of: LocationOf, asset: Asset, now: float, headers: list[Header]) -> Response:
    """Return the location for nginx, which handles ranges and If-Range.

    nginx keeps Cache-Control also with its own errors. So that value has another name, which only files get back.
    """
    named = dict(headers)
    cache = named.pop(b"cache-control")
    if asset.version > now:  # until then, the file before an overwrite has the same date
        del named[b"last-modified"]
    location = (location_of(asset.blob_key) or "").encode()
    more = (
        (b"x-uponce-cache", cache),
        (b"content-type", _content_type(asset)),
        length_header(0),
        (b"x-accel-redirect", location),
    )
    return Response(200, (*named.items(), *more))


def _beside_redirect(headers: list[Header], presigner: Presigner) -> list[Header]:
    """Return the headers for a URL where a GET leads to the bucket, which has its own validators.

    Caches may keep each answer for half of the time that the bucket's URL works, and no longer than the bytes. With an
    answer to HEAD, a cache may refresh the redirect (RFC 9111 §4.3.4).
    """

    def shorter(kept: re.Match[bytes]) -> bytes:
        return b"max-age=%d" % min(int(kept[1]), presigner.seconds // 2)

    return [
        (name, re.sub(rb"max-age=([0-9]+)", shorter, value) if name == b"cache-control" else value)
        for name, value in headers
        if name not in _VALIDATORS
    ]


async def _redirect(presigner: Presigner, asset: Asset, headers: list[Header]) -> Response:
    url = await presigner.url_of(asset.blob_key)
    return Response(302, ((b"location", url.encode()), (b"cache-control", dict(headers)[b"cache-control"]), *_INERT))


async def _original(
    services: Services, opening: Places, request: Request, asset: Asset, headers: list[Header]
) -> Response:
    head, size = request.head, asset.digest.size
    _refuse_other(head, asset)
    if _not_modified(head, asset):
        return Response(304, tuple(headers))
    wanted = head.headers.get("range") if request.method == "GET" else None  # RFC 9110 §14.2: GET only
    ranges = parse_ranges(wanted, size) if _range_applies(head, asset) else ()
    parts = ranges or (Span(0, size),)
    blob = await open_original(services, asset, opening.of(request))
    try:
        first = b"" if request.method == "HEAD" else await first_block(blob, asset.blob_key, parts[0])
    except BaseException:
        blob.close()
        raise
    pieces = [pieces_of(blob, asset.blob_key, part, first if part is parts[0] else b"") for part in parts]
    if len(ranges) > 1:
        return _several(headers, asset, ranges, pieces, blob.close)
    headers += content_headers(asset, parts[0].size)
    if ranges:
        headers.append((b"content-range", _content_range(ranges[0], size)))
    return Response(206 if ranges else 200, tuple(headers), pieces[0], close=blob.close)


def _several(
    headers: list[Header],
    asset: Asset,
    ranges: Sequence[Span],
    pieces: Sequence[AsyncIterator[Block]],
    close: Callable[[], None],
) -> Response:
    """Return multipart/byteranges (RFC 9110 §14.6) with its exact length."""
    boundary = asset.version_id.encode()
    heads = [
        b"\r\n--%b\r\ncontent-type: %b\r\ncontent-range: %b\r\n\r\n"
        % (boundary, _content_type(asset), _content_range(range_, asset.digest.size))
        for range_ in ranges
    ]
    tail = b"\r\n--%b--\r\n" % boundary
    length = sum(map(len, heads)) + sum(range_.size for range_ in ranges) + len(tail)
    headers += [(b"content-type", b"multipart/byteranges; boundary=" + boundary), length_header(length)]

    async def body() -> AsyncIterator[Block]:
        for range_head, of_range in zip(heads, pieces, strict=True):
            yield range_head
            async for piece in of_range:
                yield piece
        yield tail

    return Response(206, tuple(headers), body(), close=close)


def headers_of(asset: Asset, path: DeliveryPath, now: float) -> list[Header]:
    """Return the headers of an answer sent `now`. Unlike a version, Last-Modified is never in the future (RFC 9110)."""
    headers: list[Header] = [
        (b"etag", _etag(asset).encode()),
        (b"last-modified", formatdate(min(asset.version, now), usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", _cache_control(asset, path)),
        *_INERT,
    ]
    if is_download(asset.facts):
        headers.append((b"content-disposition", _attachment(asset)))
    return headers


def content_headers(asset: Asset, length: int) -> list[Header]:
    return [(b"content-type", _content_type(asset)), length_header(length)]


def _cache_control(asset: Asset, path: DeliveryPath) -> bytes:
    """Return how long a cache may keep the answer. A URL of the asset with its own version never shows other bytes.

    Every other URL shows the current asset, so a cache must ask each time. This holds for URLs without a version, with
    an old version, and with a future version, which the next overwrite may get. It also holds where the URL means
    another asset first: `cat.png` is the URL of `cat`, and shows the asset `cat.png` only while there is no `cat`.
    """
    reach = b"public" if asset.name.type is DeliveryType.UPLOAD else b"private"
    if path.version != asset.version or path.candidates[0][0] != asset.name:
        return reach + b", no-transform, no-cache"
    return reach + (b", no-transform, max-age=2592000" if reach == b"public" else b", no-transform, max-age=3600")


def _content_type(asset: Asset) -> bytes:
    return media_type(asset.facts).encode()


def _attachment(asset: Asset) -> bytes:
    """Return the last segment of the public_id with the extension, percent-encoded (RFC 6266 with RFC 8187)."""
    filename = asset.name.public_id.rpartition("/")[2]
    if asset.facts.format is not None:
        filename = f"{filename}.{asset.facts.format}"
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}".encode()


def _content_range(range_: Span, size: int) -> bytes:
    return f"bytes {range_.start}-{range_.end - 1}/{size}".encode()


def _etag(asset: Asset) -> str:
    return f'"{asset.digest.md5}"'


def _refuse_other(head: Head, asset: Asset) -> None:
    """Raise PreconditionFailed if the client asks for another file, for example to continue a broken download."""
    if _is_other(head, asset):
        raise PreconditionFailed(
            f"The file has the tag {_etag(asset)}, and is not the one that If-Match or If-Unmodified-Since asks for. "
            "Request the file again from its start."
        )


def _not_modified(head: Head, asset: Asset) -> bool:
    """Return whether the client has the asset. If-None-Match decides alone if it is present (RFC 9110 §13)."""
    if "if-none-match" in head.headers:
        return is_known(_etag(asset), head.get("if-none-match"))
    since = _date(head.get("if-modified-since"))
    return since is not None and asset.version <= since


def _is_other(head: Head, asset: Asset) -> bool:
    """Return whether If-Match names only other files. Without If-Match: whether If-Unmodified-Since is too early."""
    if "if-match" in head.headers:
        return {tag.strip() for tag in head.get("if-match").split(",")}.isdisjoint(("*", _etag(asset)))
    since = _date(head.get("if-unmodified-since"))
    return since is not None and asset.version > since


def _range_applies(head: Head, asset: Asset) -> bool:
    condition = head.get("if-range")
    if not condition:
        return True
    return condition == _etag(asset) or _date(condition) == asset.version


def _date(text: str) -> float | None:
    if not text:
        return None
    try:
        date = parsedate_to_datetime(text)
        # Each date of HTTP is in UTC (RFC 9110 §5.6.7). Without a zone, `timestamp` would take the server's.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
