"""The deployment under test: what is signed for it, what is sent to it, and what the checks have stored there."""

import asyncio
import struct
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from uponce.adapters.system import RandomIds, SystemClock
from uponce.core.errors import SettingRefused
from uponce.core.signature import Signer, sign, string_to_sign
from uponce.core.values import ApiKey
from uponce.prove.exchange import NO_REPLY, Exchange, Reply, connect, wait_for

Fields = Mapping[str, str]

_SECONDS = 30
_SETTLE_SECONDS = 0.05
_BOUNDARY = "----uponce-prove"
# No CRLF at the end: a form is complete with its last byte, not before.
_TAIL = f"\r\n--{_BOUNDARY}--".encode()


class Site:
    """Sends to `base`, signed with `key`, and to no other address. Every asset gets a name in `folder`.

    `seconds` from now, `time_is_up`. `sent` counts requests; `on_request` is called with each. `assets` are the
    (resource type, public_id) of all that may have been stored, in order, also if no answer arrived.
    """

    def __init__(self, base: str, key: ApiKey, seconds: float) -> None:
        address = _address(base)
        self.base = base
        self.cloud = key.cloud
        self.folder = f"uponce-prove/{RandomIds().hex(12)}"
        self.sent = 0
        self.assets: dict[tuple[str, str], None] = {}
        self._key = key
        self._tls = address.scheme == "https"
        self._host = (address.hostname or "").encode("idna").decode()
        self._port = address.port or (443 if self._tls else 80)
        self._netloc = f"[{self._host}]" if ":" in self._host else self._host
        if address.port is not None:
            self._netloc += f":{address.port}"
        self._path = address.path
        self._named = 0
        self._deadline = time.monotonic() + seconds
        self.on_request: Callable[[], object] = lambda: None

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() >= self._deadline

    def new_signature(self) -> Fields:
        """Return the fields of one upload under a new name. They have no `nonce`, so other servers accept them too."""
        self._named += 1
        name = f"{self.folder}/{self._named}"
        self.assets["image", name] = None
        return self.sign({"public_id": name})

    def sign(self, params: Fields) -> Fields:
        signed = {**params, "timestamp": str(int(SystemClock().now()))}
        signer = Signer.of(self._key)  # other servers may refuse SHA-256
        signature = sign(string_to_sign(signed), signer.secret, signer.algorithm)
        return signed | {"api_key": self._key.api_key, "signature": signature}

    def form(self, fields: Fields, file: bytes | None, kind: str = "image", query: Fields | None = None) -> bytes:
        """Return the bytes of an upload request. Without a file, it is a form of fields alone."""
        body = opening(fields, file) + (file or b"") + _TAIL
        return self.request(f"{kind}/upload", body, f"multipart/form-data; boundary={_BOUNDARY}", query)

    def request(self, path: str, body: bytes, content_type: str, query: Fields | None = None) -> bytes:
        target = f"{self._path}/v1_1/{quote(self.cloud)}/{path}" + (f"?{urlencode(query)}" if query else "")
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {self._netloc}\r\nUser-Agent: uponce-prove\r\n"
            f"Accept: application/json\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def upload(
        self, fields: Fields, file: bytes | None, kind: str = "image", query: Fields | None = None
    ) -> Reply:
        return self._noted(kind, await self.ask(self.form(fields, file, kind, query)))

    async def ask(self, request: bytes) -> Reply:
        (reply,) = await self.ask_together([request])
        return reply

    async def ask_together(self, requests: Sequence[bytes]) -> list[Reply]:
        """Send all requests except the last byte of each, then all last bytes at once. Return the replies."""
        try:
            exchanges = await self._open(len(requests))
        except OSError as error:
            return [Reply(NO_REPLY, problem=_reason(error))] * len(requests)
        try:
            for exchange, request in zip(exchanges, requests, strict=True):
                exchange.send(request[:-1])
            if len(requests) > 1:
                await asyncio.sleep(_SETTLE_SECONDS)
            for exchange, request in zip(exchanges, requests, strict=True):
                exchange.send(request[-1:])
            await wait_for([exchange.reply for exchange in exchanges], _SECONDS)
            late = Reply(NO_REPLY, problem=f"it did not answer within {_SECONDS} seconds")
            return [exchange.reply.result() if exchange.reply.done() else late for exchange in exchanges]
        finally:
            for exchange in exchanges:
                exchange.hang_up()

    async def race(self, fields: Fields, files: Sequence[bytes]) -> list[Reply]:
        replies = await self.ask_together([self.form(fields, file) for file in files])
        return [self._noted("image", reply) for reply in replies]

    async def tear(self, request: bytes, length: int, *, reset: bool, at_once: bool = False) -> None:
        """Send so many bytes of a request, wait a moment so that no RST overtakes them, then hang up."""
        with suppress(OSError):
            (exchange,) = await self._open(1)
            exchange.send(request[:length])
            await asyncio.sleep(0 if at_once else _SETTLE_SECONDS)
            exchange.hang_up(reset=reset)

    async def _open(self, number: int) -> list[Exchange]:
        tried = await asyncio.gather(*(self._connect() for _ in range(number)), return_exceptions=True)
        opened = [exchange for exchange in tried if isinstance(exchange, Exchange)]
        for failure in tried:
            if isinstance(failure, BaseException):
                for exchange in opened:
                    exchange.hang_up()
                raise failure
        return opened

    async def _connect(self) -> Exchange:
        self.sent += 1
        self.on_request()
        return await connect(self._host, self._port, tls=self._tls, seconds=_SECONDS)

    def _noted(self, kind: str, reply: Reply) -> Reply:
        if reply.accepted and "public_id" in reply.body:
            self.assets[str(reply.body.get("resource_type", kind)), str(reply.body["public_id"])] = None
        return reply


def _address(base: str) -> SplitResult:
    """Return the parts of an address that can be connected to. Raise SettingRefused for any other text."""
    with suppress(ValueError):
        address = urlsplit(base)
        is_host = bool(address.hostname and address.hostname.encode("idna"))  # as the look-up of its name does
        if address.scheme in ("http", "https") and is_host and address.port != 0 and not address.query:
            return address
    raise SettingRefused(
        f"{base} is not an address. Write it like https://media.example or http://127.0.0.1:8000, in --url or in "
        "CLOUDINARY_URL."
    )


def opening(fields: Fields, file: bytes | None) -> bytes:
    """Return a form up to the first byte of its file."""
    parts = [f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}' for n, v in fields.items()]
    if file is not None:
        named = 'name="file"; filename="dot.png"\r\nContent-Type: image/png'
        parts.append(f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {named}\r\n\r\n")
    return "\r\n".join(parts).encode()


def dot(number: int) -> bytes:
    """Return a PNG of one pixel. Each of the first 16 million numbers has its own colour, so other bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0" + number.to_bytes(3, "big"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection within {_SECONDS} seconds"
    return str(error.strerror or error)


_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class CleanUp:
    """`left` are public_ids that may still exist. `why` is the server's reason to keep the first of them."""

    removed: int
    left: tuple[str, ...] = ()
    why: str = ""


async def clean_up(site: Site) -> CleanUp:
    """Ask for the removal of each asset, until the server refuses one.

    If a server answered with a public_id outside our folder, the command never asks for its removal.
    """
    assets = list(site.assets)
    ours = [asset for asset in assets if asset[1].startswith(f"{site.folder}/")]
    foreign = tuple(public_id for _, public_id in assets if not public_id.startswith(f"{site.folder}/"))
    removed = 0
    for number, (kind, public_id) in enumerate(ours):
        # Signed with `invalidate`. Otherwise it could equal the signature of an upload of that name in this second.
        body = urlencode(site.sign({"public_id": public_id, "invalidate": "true"})).encode()
        reply = await site.ask(site.request(f"{kind}/destroy", body, _FORM))
        result = reply.body.get("result") if reply.status == 200 else None
        if result not in ("ok", "not found"):
            left = tuple(public_id for _, public_id in ours[number:])
            return CleanUp(removed, foreign + left, reply.message or reply.problem or str(reply))
        removed += result == "ok"
    return CleanUp(removed, foreign, "they have other names than were asked for" if foreign else "")
