"""A proxy before an S3 server that can fail as stores fail."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3


class Illness(Enum):
    """What becomes of a request."""

    NONE = "passed on"
    ERROR = "answered with 500"
    HANG = "never answered"
    EATEN = "passed on, the reply is lost"
    DROPPED = "not passed on, the connection breaks"
    ROTTEN = "the bytes in the reply are other ones"
    CUT = "the reply breaks off within its body"
    UNNAMED = "the reply has another entity tag"


Rule = Callable[[str, str], Illness]
_ERROR = b"<Error><Code>InternalError</Code><Message>We are sick.</Message></Error>"


def healthy(method: str, path: str) -> Illness:
    return Illness.NONE


def unnamed(method: str, path: str) -> Illness:
    """Entity tags of whole objects are no MD5."""
    is_part = "partNumber=" in path or path.endswith("?uploads")
    return Illness.NONE if is_part or method not in ("PUT", "POST", "HEAD") else Illness.UNNAMED


class SickStore(ThreadingHTTPServer):
    """`rule` decides by method and path; `seen` are the requests that came, `under_way` those not yet dealt with.

    It must be closed.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.target = endpoint
        self.rule: Rule = healthy
        self.seen: list[str] = []
        self.released = threading.Event()
        self.pool = urllib3.PoolManager(maxsize=64)
        self.under_way: set[BaseHTTPRequestHandler] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side gave up: nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    server: SickStore
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        self.server.under_way.add(self)
        try:
            self._pass_on()
        finally:
            self.server.under_way.discard(self)

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(f"{self.command} {self.path}")
        illness = self.server.rule(self.command, self.path)
        if illness is Illness.HANG:
            self.server.released.wait(60)
            self.close_connection = True
            return
        if illness is Illness.DROPPED:
            self.close_connection = True
            return
        if illness is Illness.ERROR:
            self._answer(500, {}, _ERROR)
            return
        url = self.server.target + self.path
        headers = dict(self.headers)
        reply = self.server.pool.request(
            self.command, url, body=body, headers=headers, retries=False, decode_content=False
        )
        if illness is Illness.EATEN:
            self.close_connection = True
            return
        told = {name.title(): value for name, value in reply.headers.items() if name.lower() != "transfer-encoding"}
        data = reply.data
        if illness is Illness.ROTTEN:
            data = bytes(byte ^ 1 for byte in data)
        if illness in (Illness.UNNAMED, Illness.ROTTEN):
            told["Etag"] = '"0x1234"'
            data = re.sub(rb"<ETag>[^<]*</ETag>", b"<ETag>0x1234</ETag>", data)  # of an object in parts
        self._answer(reply.status, told, data, sent=len(data) // 2 if illness is Illness.CUT else None)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle

    def _answer(self, status: int, headers: dict[str, str], body: bytes, *, sent: int | None = None) -> None:
        """Answer with the first `sent` bytes of the body, or with all."""
        self.send_response(status)
        if self.command != "HEAD":
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        self.close_connection |= sent is not None

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def sick(endpoint: str) -> Iterator[SickStore]:
    server = SickStore(endpoint)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # the end waits so long
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        server.pool.clear()
