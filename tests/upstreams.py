"""An upstream in the test process that misbehaves by script: what a relay must survive, and uponce never does.

It verifies signatures and their age, also beside HTTP Basic. It keeps assets by (kind, type, public_id), and answers
the few reads that a relay asks. `requests` has each request as it arrived, also those that broke off.
"""

import asyncio
import base64
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import Enum
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

from tests.core.signing import key_of
from uponce.core.errors import UponceError
from uponce.core.signature import collect, sign_response, verify
from uponce.core.values import Upstream


class Trouble(Enum):
    """What goes wrong with one request."""

    RESET = "resets the connection in the middle of the body"
    HANG_UP = "closes the connection in the middle of the body"
    EARLY_413 = "answers 413 in the middle of the body, a byte at a time, and drops the rest"
    EARLY_200 = "answers 200 with an empty JSON object in the middle of the body, and drops the rest"
    AT_BOUNDARY = "stores at the closing boundary, whatever the lengths say, and hangs up"
    LIMITED = "answers 420 with the headers of a rate limit, stores nothing"
    REFUSED = "answers 400, stores nothing"
    FAILED = "answers 500, stores nothing"
    MOVED = "answers 302, stores nothing"
    ACCEPTED = "answers 200 without a result, stores nothing yet"
    FORGETS = "hangs up after the whole request, stores nothing"
    FAILED_LATE = "stores, answers 500"
    TIMED_OUT = "stores, answers 408 with JSON, as a server in between"
    NO_ROUTE = "stores, answers 404 with JSON, as a server in between"
    PORTAL = "answers 200 with an empty JSON object, as a server in between, stores nothing"
    HTML = "stores, answers 200 with HTML"
    TORN_JSON = "stores, answers 200 with half of the JSON"
    SHORT = "stores, breaks off in the middle of the answer"
    HUGE = "stores, answers 17 MiB of JSON"
    ROTTEN_GZIP = "stores, answers bytes that are no gzip, as gzip"
    DRIPS = "stores, answers a byte at a time"
    SILENT = "stores, closes without an answer"
    RESET_LATE = "stores, resets the connection"
    HANGS = "stores, never answers"
    CLOSES_IDLE = "stores, answers, closes the connection without saying so"
    WRONG_ETAG = "stores other bytes, as a preset that transforms"
    RENAMED = "stores under another public_id, as a preset that renames"


_AMID = frozenset(map(Trouble.__getitem__, "RESET HANG_UP EARLY_413 EARLY_200".split()))
_NOT_STORED = frozenset(map(Trouble.__getitem__, "LIMITED REFUSED FAILED MOVED ACCEPTED FORGETS PORTAL".split()))
LIMIT = {"X-FeatureRateLimit-Limit": "500", "X-FeatureRateLimit-Remaining": "0", "X-FeatureRateLimit-Reset": "soon"}
HTML = b"<html>Something went wrong</html>"
ANSWERS: dict[Trouble, tuple[int, bytes, dict[str, str]]] = {
    Trouble.EARLY_413: (413, HTML, {"Connection": "close"}),
    Trouble.EARLY_200: (200, b"{}", {}),
    Trouble.LIMITED: (420, b'{"error":{"message":"Rate Limit Exceeded"}}', LIMIT),
    Trouble.REFUSED: (400, b'{"error":{"message":"Invalid image file"}}', {"X-Cld-Error": "Invalid image file"}),
    Trouble.FAILED: (500, b'{"error":{"message":"General Error"}}', {}),
    Trouble.FAILED_LATE: (500, b'{"error":{"message":"General Error"}}', {}),
    Trouble.TIMED_OUT: (408, b'{"message":"request timed out"}', {}),
    Trouble.MOVED: (302, b"", {"Location": "http://127.0.0.1:9/elsewhere"}),
    Trouble.ACCEPTED: (200, b'{"status":"pending","batch_id":"b1"}', {}),
    Trouble.NO_ROUTE: (404, b'{"message":"no Route matched with those values"}', {}),
    Trouble.PORTAL: (200, b"{}", {}),
    Trouble.HTML: (200, HTML, {"Content-Type": "text/html"}),
    Trouble.HUGE: (200, b'{"public_id":"' + b"x" * 17 * 1024 * 1024 + b'"}', {}),
    Trouble.ROTTEN_GZIP: (200, b"not gzip", {"Content-Encoding": "gzip"}),
}
_ACCOUNT = Upstream("up", "555", "the-secret-of-the-upstream")
_KINDS = {"mp4": "video", "webm": "video", "mp3": "video", "bin": "raw", "txt": "raw", "zip": "raw"}


@dataclass(slots=True)
class StubAsset:
    """What the upstream stored. It can be seen from `visible_at` on, by the upstream's clock."""

    kind: str
    type: str
    public_id: str
    etag: str
    bytes: int
    version: int
    visible_at: float
    context: dict[str, str]

    def document(self, base: str, *, etag: bool = True) -> dict[str, Any]:
        path = f"/{self.kind}/{self.type}/v{self.version}/{self.public_id}"
        found = {
            "asset_id": hashlib.md5(repr((self.kind, self.type, self.public_id)).encode()).hexdigest(),
            **{name: getattr(self, name) for name in ("public_id", "version", "type", "bytes")},
            "resource_type": self.kind,
            "url": base + path,
            "secure_url": base + path,
            **({"context": {"custom": self.context}} if self.context else {}),
        }
        return found | ({"etag": self.etag} if etag else {})


@dataclass(slots=True)
class Received:
    """One request. `body` is without the framing of HTTP. `complete`: the end of its body has arrived."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    @property
    def boundary(self) -> bytes:
        return self.headers.get("content-type", "").partition("boundary=")[2].encode() or b"no boundary"

    @property
    def closed(self) -> bool:
        """Whether the closing boundary has arrived."""
        return b"--" + self.boundary + b"--" in self.body

    @property
    def parts(self) -> list[tuple[str, str | None, bytes]]:
        """(name, filename, content) of each part, in order of arrival; of a form without files, its fields."""
        if "urlencoded" in self.headers.get("content-type", ""):
            return [(name, None, value.encode()) for name, value in parse_qsl(self.body.decode())]
        found = []
        for part in bytes(self.body).split(b"--" + self.boundary)[1:]:
            head, _, content = part.partition(b"\r\n\r\n")
            names = re.search(r'; name="([^"]*)"(?:; filename="([^"]*)")?', head.decode())
            if names is not None:
                found.append((names[1], names[2], content.removesuffix(b"\r\n")))
        return found

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.parts]

    @property
    def fields(self) -> dict[str, str]:
        """Raise DuplicateParameter if one is there twice."""
        return collect((name, content.decode()) for name, filename, content in self.parts if filename is None)

    @property
    def file(self) -> bytes | None:
        return next((content for _, filename, content in self.parts if filename is not None), None)


class StubUpstream:
    """Use it `async with`, on the loop of the test, or `with stub.in_thread()`.

    `uploads` and `reads` give the trouble of each POST and GET; after their end all goes well. `clock` is in Unix
    seconds. New assets can be seen after `delay` seconds, and after `misses` look-ups that find nothing. It reads
    bodies while `reading` is set. `broken_off` counts the requests that it has answered or ended amid their bodies.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, tls: ssl.SSLContext | None = None) -> None:
        self.clock = clock
        self.uploads: Iterator[Trouble | None] = iter(())
        self.reads: Iterator[Trouble | None] = iter(())
        self.requests: list[Received] = []
        self.store: dict[tuple[str, str, str], StubAsset] = {}
        self.presets: dict[str, dict[str, Any]] = {}
        self.delay = 0.0
        self.misses = self.connections = self.broken_off = 0
        self.reading = asyncio.Event()
        self.reading.set()
        self.upstream, self._tls = _ACCOUNT, tls
        self._chunks: dict[str, bytearray] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        port = self._server.sockets[0].getsockname()[1]
        self.upstream = replace(_ACCOUNT, prefix=f"{'https' if self._tls else 'http'}://127.0.0.1:{port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        for turn in range(20):
            if turn == 10:  # before that, connections of the kernel's queue are accepted: a closed server leaks them
                self._server.close()
                for task in self._tasks:
                    task.cancel()
            await asyncio.sleep(0)

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """On a loop of a separate thread, for tests that block."""
        loop, begun, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def run() -> None:
            async with self:
                begun.set()
                await ended.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
        thread.start()
        assert begun.wait(60)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not at the end of `_serve`: one that is cancelled before its first step has no end.
        task.add_done_callback(lambda _: (writer.close if self._server.is_serving() else writer.transport.abort)())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request. Return whether the connection stays open."""
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        request = Received(method, unquote(path), parse_qsl(query), headers)
        self.requests.append(request)
        trouble = next(self.reads if method == "GET" else self.uploads, None)
        async for piece in _pieces(reader, headers):
            request.body += piece
            await self.reading.wait()
            if trouble in _AMID and len(request.body) > 1000:
                await _break_off(trouble, writer)
                self.broken_off += 1
                while await reader.read(65_536):
                    pass
                return False
            if trouble is Trouble.AT_BOUNDARY and request.closed:
                self._answer(request, None)
                return False
        request.complete = True
        return await self._respond(request, trouble, writer)

    async def _respond(self, request: Received, trouble: Trouble | None, writer: asyncio.StreamWriter) -> bool:
        status, document = (0, {}) if trouble in _NOT_STORED else self._answer(request, trouble)
        body, more = json.dumps(document).encode(), {"Content-Type": "application/json; charset=utf-8"}
        if trouble in ANSWERS:
            status, body, more = ANSWERS[trouble]
        match trouble:
            case Trouble.FORGETS | Trouble.SILENT:
                return False
            case Trouble.RESET_LATE:
                return await _break_off(trouble, writer)
            case Trouble.HANGS:
                await asyncio.Event().wait()
            case Trouble.TORN_JSON:
                body = body[: len(body) // 2]
            case Trouble.SHORT:
                await _send(writer, status, body[:-10], {"Content-Length": str(len(body))})
                return False
        stamp = {"Date": formatdate(self.clock(), usegmt=True), "Set-Cookie": "a=b", "X-Request-Id": "1"}
        await _send(writer, status, body, stamp | more, slowly=trouble is Trouble.DRIPS)
        return trouble is not Trouble.CLOSES_IDLE

    def _answer(self, request: Received, trouble: Trouble | None) -> tuple[int, dict[str, Any]]:
        _, version, cloud, *rest = request.path.split("/")
        if (version, cloud) != ("v1_1", self.upstream.cloud):
            return 401, _error(f"Invalid cloud_name {cloud}")
        credentials = base64.b64encode(f"{self.upstream.api_key}:{self.upstream.secret}".encode()).decode()
        is_signed = request.method == "POST" and "signature" in request.names
        if request.headers.get("authorization") == f"Basic {credentials}" and not is_signed:
            return self._look_up(request, rest) if request.method == "GET" else self._administer(request, rest)
        if request.method != "POST":
            return 401, _error("Invalid credentials")
        try:
            params = request.fields
            verify({"signature": "", **params}, key_of(self.upstream.secret))
        except UponceError as error:
            return 401, _error(error.message)
        if abs(self.clock() - int(params.get("timestamp", "0"))) > self.upstream.window:
            return 400, _error(f"Stale request - reported time is {params.get('timestamp')}")
        if rest[1] == "destroy":
            gone = self.store.pop((rest[0], params.get("type", "upload"), params["public_id"]), None)
            return 200, {"result": "ok" if gone else "not found"}
        if rest[1] in ("tags", "context"):
            return 200, {"public_ids": params["public_ids"].split(",")}
        return self._upload(request, rest[0], params, trouble)

    def _upload(
        self, request: Received, kind: str, params: dict[str, str], trouble: Trouble | None
    ) -> tuple[int, dict[str, Any]]:
        file, filename = request.file, next((name for _, name, _ in request.parts if name is not None), "")
        if file is None:
            return 400, _error("Missing required parameter - file")
        if span := request.headers.get("content-range"):
            _, end, total = (int(number) for number in re.findall(r"(?:(?<=/)-)?\d+", span))
            gathered = self._chunks.setdefault(request.headers["x-unique-upload-id"], bytearray())
            gathered += file
            if end + 1 != total:
                return 200, {"done": False}
            file = bytes(gathered)
        kind = _KINDS.get(filename.rpartition(".")[2], "image") if kind == "auto" else kind
        name = "/".join(filter(None, (params.get("folder"), params.get("public_id", f"random{len(self.store)}"))))
        key = (kind, params.get("type", "upload"), f"renamed_{name}" if trouble is Trouble.RENAMED else name)
        old, now = self.store.get(key), self.clock()
        if old is not None and params.get("overwrite") == "false":
            return 200, old.document(self.upstream.prefix) | {"existing": True}
        etag = hashlib.md5(file + b"!" if trouble is Trouble.WRONG_ETAG else file).hexdigest()
        version = max(int(now), old.version + 1 if old else 0)
        context = dict(each.split("=", 1) for each in params.get("context", "").split("|") if each)
        self.store[key] = StubAsset(*key, etag, len(file), version, now + self.delay, context)
        signature = sign_response(key[2], version, self.upstream.secret)
        return 200, self.store[key].document(self.upstream.prefix) | {"signature": signature}

    def _administer(self, request: Received, rest: list[str]) -> tuple[int, dict[str, Any]]:
        """Answer a call that changes something: delete assets, or say what was sent."""
        if rest[1:] == ["destroy"]:
            gone = self.store.pop((rest[0], "upload", request.fields["public_id"]), None)
            return 200, {"result": "ok" if gone else "not found"}
        if request.method != "DELETE":
            return 200, {"sent": request.body.decode(), "as": request.headers.get("content-type")}
        names = [value for name, value in request.query if name == "public_ids[]"]
        return 200, {"deleted": {name: "deleted" for name in names if self.store.pop((rest[1], rest[2], name), None)}}

    def _look_up(self, request: Received, rest: list[str]) -> tuple[int, dict[str, Any]]:
        now, query = self.clock(), dict(request.query)
        etag = "true" in (query.get("media_metadata"), query.get("image_metadata"))
        visible = {key: asset for key, asset in self.store.items() if asset.visible_at <= now}
        if rest[0] == "resources" and self.misses > 0:
            self.misses -= 1
            visible = {}
        match rest:
            case ["ping"]:
                return 200, {"status": "ok"}
            case ["upload_presets", name] if name in self.presets:
                return 200, {"name": name, **self.presets[name]}
            case ["resources", kind, "context"]:
                wanted = (query.get("key", ""), query.get("value", ""))
                found = [each for each in visible.values() if each.kind == kind and wanted in each.context.items()]
                return 200, {"resources": [each.document(self.upstream.prefix, etag=etag) for each in found]}
            case ["resources", kind, delivery_type, *name] if (kind, delivery_type, "/".join(name)) in visible:
                return 200, visible[kind, delivery_type, "/".join(name)].document(self.upstream.prefix, etag=etag)
        return 404, _error(f"Resource not found - {'/'.join(rest)}")


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


async def _pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            while size:
                piece = await reader.readexactly(min(size, 16_384))
                size -= len(piece)
                yield piece
            await reader.readexactly(2)
        await reader.readexactly(2)
    left = int(headers.get("content-length", 0))
    while left:
        piece = await reader.read(min(left, 16_384))
        if not piece:
            raise asyncio.IncompleteReadError(piece, left)
        left -= len(piece)
        yield piece


async def _send(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str], *, slowly: bool = False
) -> None:
    named = {"Content-Length": str(len(body))} | headers
    head = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in named.items())]
    writer.write("\r\n".join([*head, "", ""]).encode())
    for octet in body if slowly else b"":
        writer.write(bytes([octet]))
        await asyncio.sleep(0.005)
    writer.write(b"" if slowly else body)
    await writer.drain()


async def _break_off(trouble: Trouble, writer: asyncio.StreamWriter) -> bool:
    """Answer, or end the connection. Return False when the client can see it."""
    if trouble in ANSWERS:
        await _send(writer, *ANSWERS[trouble], slowly=trouble is Trouble.EARLY_413)
        return False
    if trouble is not Trouble.HANG_UP:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await writer.wait_closed()
    return False
