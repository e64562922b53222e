"""GET and HEAD of originals."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from email.utils import formatdate, parsedate_to_datetime
from urllib.parse import quote

from uponce.app.deliver import Delivery, find, open_original
from uponce.app.ports import FrontServer, OpenBlob, Presigner
from uponce.app.services import Services
from uponce.core.delivery import DeliveryPath, parse_path
from uponce.core.errors import MalformedRequest, RangeNotSatisfiable, UponceError
from uponce.core.formats import is_download, media_type
from uponce.core.ranges import ByteRange, parse_ranges
from uponce.core.values import Asset, DeliveryType, ResourceType
from uponce.web.body import Receive, Scope, Send
from uponce.web.request import Head, read_head
from uponce.web.respond import Header, send_error

METHODS = ("GET", "HEAD")
PATHS = tuple(f"/{{cloud}}/{kind}/{{rest:path}}" for kind in ResourceType)
_FIRST_BLOCK = 128 * 1024
# Deliveries that ask the catalog and the store at a time. The next upload waits behind these, not behind thousands.
_LOOK_UPS = 16

# Stored bytes stay inert whatever they are: no sniffing, no script, no embedding surprises.
_INERT = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"timing-allow-origin", b"*"),
    # Also where no Origin was sent: a cache would else keep an answer that a later cross-origin fetch cannot use.
    (b"access-control-allow-origin", b"*"),
)


class DeliveryEndpoint:
    """`/<cloud>/<resource_type>/<type>/[s--sig--/]v<version>/<public_id>.<ext>`"""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looking_up = asyncio.Semaphore(_LOOK_UPS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head, path = read_head(scope), parse_path(raw_path(scope))
            async with self._looking_up:
                delivery = await self._found(scope["method"], path)
            if isinstance(delivery, Asset):
                await self._leave(send, head, delivery, headers_of(delivery, path))
                return
        except UponceError as error:
            await send_error(scope, receive, send, error, body_complete=True)
            return
        try:
            await _answer(scope, send, head, delivery, headers_of(delivery.asset, path))
        except RangeNotSatisfiable as error:
            size = (b"content-range", f"bytes */{delivery.blob.size}".encode())
            await send_error(scope, receive, send, error, body_complete=True, headers=(size,))
        finally:
            delivery.blob.close()

    async def _found(self, method: str, path: DeliveryPath) -> Delivery | Asset:
        """Return the asset alone where another server sends its bytes."""
        asset, front = await find(self._services, path), self._services.front
        if front is not None and front.location_of(asset.blob_key) is not None:
            return asset
        if front is None and self._services.presigner is not None and method == "GET":
            return asset
        return await open_original(self._services, path, asset)

    async def _leave(self, send: Send, head: Head, asset: Asset, headers: list[Header]) -> None:
        if self._services.front is not None:
            await _leave(send, head, asset, headers, self._services.front)
        elif self._services.presigner is not None:
            await _redirect(send, head, asset, headers, self._services.presigner)


async def _leave(send: Send, head: Head, asset: Asset, headers: list[Header], front: FrontServer) -> None:
    """To the server in front, which answers ranges and its own validators."""
    if _not_modified(head, asset):
        await _start(send, 304, headers)
    else:
        location = (front.location_of(asset.blob_key) or "").encode()
        headers += [(b"content-type", _content_type(asset)), (b"content-length", b"0"), (b"x-accel-redirect", location)]
        await _start(send, 200, headers)
    await send({"type": "http.response.body", "body": b""})


async def _redirect(send: Send, head: Head, asset: Asset, headers: list[Header], presigner: Presigner) -> None:
    """To the store itself. The answer may be kept for half as long as the store's URL is good, and no longer."""
    if _not_modified(head, asset):
        await _start(send, 304, headers)
    else:
        url = await presigner.url_of(asset.blob_key)
        cache = re.sub(rb"max-age=[0-9]+", b"max-age=%d" % (presigner.seconds // 2), dict(headers)[b"cache-control"])
        await _start(send, 302, [(b"location", url.encode()), (b"cache-control", cache), *_INERT])
    await send({"type": "http.response.body", "body": b""})


def raw_path(scope: Scope) -> str:
    try:
        return bytes(scope["raw_path"]).partition(b"?")[0].decode("ascii")
    except UnicodeDecodeError:
        raise MalformedRequest(
            "The path has a character that is not ASCII. Percent-encode it, as %C3%A9 for é."
        ) from None


async def _answer(scope: Scope, send: Send, head: Head, delivery: Delivery, headers: list[Header]) -> None:
    asset, blob = delivery.asset, delivery.blob
    if _not_modified(head, asset):
        await _start(send, 304, headers)
        await send({"type": "http.response.body", "body": b""})
        return
    wanted = head.headers.get("range") if scope["method"] == "GET" else None  # RFC 9110 §14.2: GET only
    ranges = parse_ranges(wanted, blob.size) if _range_applies(head, asset) else ()
    if len(ranges) > 1:
        await _send_pieces(scope, send, headers, asset, blob, ranges)
        return
    piece = ranges[0] if ranges else ByteRange(0, blob.size)
    headers += content_headers(asset, piece.length)
    if ranges:
        headers.append((b"content-range", _content_range(piece, blob.size)))
    await _start(send, 206 if ranges else 200, headers)
    await stream(send, blocks_of(blob, piece), with_body=scope["method"] != "HEAD")


async def _send_pieces(
    scope: Scope,
    send: Send,
    headers: list[Header],
    asset: Asset,
    blob: OpenBlob,
    ranges: Sequence[ByteRange],
) -> None:
    """multipart/byteranges (RFC 9110 §14.6), with its exact length computed beforehand."""
    boundary = asset.version_id.encode()
    heads = [
        b"\r\n--%b\r\ncontent-type: %b\r\ncontent-range: %b\r\n\r\n"
        % (boundary, _content_type(asset), _content_range(piece, blob.size))
        for piece in ranges
    ]
    tail = b"\r\n--%b--\r\n" % boundary
    length = sum(map(len, heads)) + sum(piece.length for piece in ranges) + len(tail)
    headers += [
        (b"content-type", b"multipart/byteranges; boundary=" + boundary),
        (b"content-length", str(length).encode()),
    ]
    await _start(send, 206, headers)

    async def body() -> AsyncIterator[bytes]:
        for part_head, piece in zip(heads, ranges, strict=True):
            yield part_head
            async for block in blocks_of(blob, piece):
                yield block
        yield tail

    await stream(send, body(), with_body=scope["method"] != "HEAD")


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def stream(send: Send, blocks: AsyncIterator[bytes], *, with_body: bool) -> None:
    if with_body:
        async for block in blocks:
            await send({"type": "http.response.body", "body": block, "more_body": True})
            # Returns when the reader has taken most of it: only then the next block is read into memory.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def blocks_of(blob: OpenBlob, piece: ByteRange) -> AsyncIterator[bytes]:
    """The bytes in blocks, none larger than all before it: a client that reads little holds little memory."""
    offset, left = piece.start, piece.length
    while left:
        taken = max(_FIRST_BLOCK, offset - piece.start)
        block = await blob.read(offset, min(blob.block_bytes, taken, left))
        if not block:
            return  # shorter than promised; the server closes the connection and the client sees it
        offset, left = offset + len(block), left - len(block)
        yield block


def headers_of(asset: Asset, path: DeliveryPath) -> list[Header]:
    headers: list[Header] = [
        (b"etag", _etag(asset).encode()),
        (b"last-modified", formatdate(asset.version, usegmt=True).encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", _cache_control(asset, path)),
        *_INERT,
    ]
    if is_download(asset.facts):
        headers.append((b"content-disposition", _attachment(asset)))
    return headers


def content_headers(asset: Asset, length: int) -> list[Header]:
    return [(b"content-type", _content_type(asset)), (b"content-length", str(length).encode())]


def _cache_control(asset: Asset, path: DeliveryPath) -> bytes:
    """A URL with the asset's own version never shows other bytes, so its answer may be kept for long.

    All other URLs show the current asset, so a cache must ask each time: without a version, with an old one, and with
    one that is still to come, which the next overwrite may get.
    """
    reach = b"public" if asset.name.type is DeliveryType.UPLOAD else b"private"
    if path.version != asset.version:
        return reach + b", no-transform, no-cache"
    return reach + (b", no-transform, max-age=2592000" if reach == b"public" else b", no-transform, max-age=3600")


def _content_type(asset: Asset) -> bytes:
    return media_type(asset.facts).encode()


def _attachment(asset: Asset) -> bytes:
    """RFC 6266 with RFC 8187: the last segment of the public_id and the extension, percent-encoded."""
    filename = asset.name.public_id.rpartition("/")[2]
    if asset.facts.format is not None:
        filename = f"{filename}.{asset.facts.format}"
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}".encode()


def _content_range(piece: ByteRange, size: int) -> bytes:
    return f"bytes {piece.start}-{piece.end}/{size}".encode()


def _etag(asset: Asset) -> str:
    return f'"{asset.digest.md5}"'


def _not_modified(head: Head, asset: Asset) -> bool:
    """RFC 9110 §13: If-None-Match decides alone where it is present."""
    if "if-none-match" in head.headers:
        tags = [tag.strip().removeprefix("W/") for tag in head.get("if-none-match").split(",")]
        return "*" in tags or _etag(asset) in tags
    since = _date(head.get("if-modified-since"))
    return since is not None and asset.version <= since


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
