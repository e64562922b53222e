"""Delivery of originals: ranges, validators, and bytes that another server sends."""

import re
from asyncio import Semaphore
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote

from uponce.app.deliver import Delivery, find, open_original
from uponce.app.ports import FrontServer, OpenBlob, Presigner
from uponce.app.services import Services
from uponce.core.delivery import DeliveryPath, parse_path
from uponce.core.errors import PreconditionFailed, RangeNotSatisfiable
from uponce.core.formats import is_download, media_type
from uponce.core.ranges import ByteRange, parse_ranges
from uponce.core.values import Asset, DeliveryType, ResourceType
from uponce.web.blocks import pieces_of
from uponce.web.errors import refusal
from uponce.web.request import Head, Header, Request, raw_path
from uponce.web.response import Response, is_known, length_header

PATHS = tuple(f"/{{cloud}}/{kind}/{{rest:path}}" for kind in ResourceType)
# Deliveries that use the catalog and the store at a time. The next upload waits for these, not for thousands.
LOOK_UPS = 16

# Stored bytes are inert, whatever they are: no sniffing, no script, no embedding surprises. To play a video, a browser
# makes a page under the headers of the file, and that page must be able to load the file.
_INERT = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; media-src 'self'; sandbox"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"timing-allow-origin", b"*"),
    # Sent also without an Origin: otherwise a cache would keep an answer that a later cross-origin fetch cannot use.
    (b"access-control-allow-origin", b"*"),
)


async def deliver(services: Services, looking_up: Semaphore, request: Request) -> Response:
    """Return the original at `/<cloud>/<resource_type>/<type>/[s--sig--/]v<version>/<public_id>.<ext>`.

    At most `LOOK_UPS` deliveries hold `looking_up` at a time.
    """
    head, path, now = request.head, parse_path(raw_path(request.scope)), services.clock.now()
    async with looking_up:
        found = await _find(services, request.method, head, path)
    if isinstance(found, Asset):
        return await _elsewhere(services, head, found, now, headers_of(found, path, now))
    try:
        response = _original(request, head, found, headers_of(found.asset, path, now))
    except RangeNotSatisfiable as error:
        response = refusal(request, error, headers=((b"content-range", f"bytes */{found.blob.size}".encode()),))
    except BaseException:
        found.blob.close()
        raise
    return replace(response, close=found.blob.close)


async def _find(services: Services, method: str, head: Head, path: DeliveryPath) -> Delivery | Asset:
    """Return the asset alone if another server sends its bytes, else with its bytes."""
    asset = await find(services, path)
    if is_for_front(services, asset) and not _has_precondition(head):
        return asset
    if services.front is None and services.presigner is not None and method == "GET":
        return asset
    return await open_original(services, path, asset)


def is_for_front(services: Services, asset: Asset) -> bool:
    """Return whether the server in front sends the bytes of this asset."""
    return services.front is not None and services.front.location_of(asset.blob_key) is not None


def _has_precondition(head: Head) -> bool:
    """Return whether uponce must send the bytes itself: nginx would judge these by the time of the file."""
    return "if-match" in head.headers or "if-unmodified-since" in head.headers


async def _elsewhere(services: Services, head: Head, asset: Asset, now: float, headers: list[Header]) -> Response:
    """Return a response without bytes. It leads the client, or the server in front, to the bytes."""
    if _not_modified(head, asset):
        return Response(304, tuple(headers))
    if services.front is not None:
        return _through(services.front, asset, now, headers)
    assert services.presigner is not None
    return await _redirect(services.presigner, asset, headers)


def _through(front: FrontServer, asset: Asset, now: float, headers: list[Header]) -> Response:
    """Return the location for nginx, which handles ranges and If-Range.

    nginx keeps Cache-Control also with its own errors. So that value has another name, which only files get back.
    """
    named = dict(headers)
    cache = named.pop(b"cache-control")
    if asset.version > now:  # until then, the file before an overwrite has the same date
        del named[b"last-modified"]
    location = (front.location_of(asset.blob_key) or "").encode()
    more = (
        (b"x-uponce-cache", cache),
        (b"content-type", _content_type(asset)),
        length_header(0),
        (b"x-accel-redirect", location),
    )
    return Response(200, (*named.items(), *more))


async def _redirect(presigner: Presigner, asset: Asset, headers: list[Header]) -> Response:
    """Return the store's URL. Caches may keep the answer for half of the time that the URL works."""
    url = await presigner.url_of(asset.blob_key)
    cache = re.sub(rb"max-age=[0-9]+", b"max-age=%d" % (presigner.seconds // 2), dict(headers)[b"cache-control"])
    return Response(302, ((b"location", url.encode()), (b"cache-control", cache), *_INERT))


def _original(request: Request, head: Head, delivery: Delivery, headers: list[Header]) -> Response:
    asset, blob = delivery.asset, delivery.blob
    _refuse_other(head, asset)
    if _not_modified(head, asset):
        return Response(304, tuple(headers))
    wanted = head.headers.get("range") if request.method == "GET" else None  # RFC 9110 §14.2: GET only
    ranges = parse_ranges(wanted, blob.size) if _range_applies(head, asset) else ()
    if len(ranges) > 1:
        return _several(headers, asset, blob, ranges)
    whole_or_part = ranges[0] if ranges else ByteRange(0, blob.size)
    headers += content_headers(asset, whole_or_part.length)
    if ranges:
        headers.append((b"content-range", _content_range(whole_or_part, blob.size)))
    return Response(206 if ranges else 200, tuple(headers), pieces_of(blob, whole_or_part))


def _several(headers: list[Header], asset: Asset, blob: OpenBlob, ranges: Sequence[ByteRange]) -> Response:
    """Return multipart/byteranges (RFC 9110 §14.6) with its exact length."""
    boundary = asset.version_id.encode()
    heads = [
        b"\r\n--%b\r\ncontent-type: %b\r\ncontent-range: %b\r\n\r\n"
        % (boundary, _content_type(asset), _content_range(range_, blob.size))
        for range_ in ranges
    ]
    tail = b"\r\n--%b--\r\n" % boundary
    length = sum(map(len, heads)) + sum(range_.length for range_ in ranges) + len(tail)
    headers += [(b"content-type", b"multipart/byteranges; boundary=" + boundary), length_header(length)]

    async def body() -> AsyncIterator[bytes]:
        for range_head, range_ in zip(heads, ranges, strict=True):
            yield range_head
            async for piece in pieces_of(blob, range_):
                yield piece
        yield tail

    return Response(206, tuple(headers), body())


def headers_of(asset: Asset, path: DeliveryPath, now: float) -> list[Header]:
    """Return the headers of an answer that is sent `now`.

    A version may be in the future, Last-Modified may not (RFC 9110).
    """
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


def _content_range(range_: ByteRange, size: int) -> bytes:
    return f"bytes {range_.start}-{range_.end}/{size}".encode()


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
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError, TypeError):
        return None
