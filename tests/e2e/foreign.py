"""A small server in the manner of Cloudinary's, not ours: what a competitor, good or bad, might be."""

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cloudinary.utils import api_sign_request

KEY, SECRET, CLOUD = "123", "s3cret", "theirs"

_FIELD = re.compile(rb'name="(\w+)"\r\n\r\n(.*?)(?:\r\n--|$)', re.DOTALL)
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Foreign:
    """How it behaves, and what it holds. Signatures work once in any case but `once=False`."""

    once: bool = True
    claims_first: bool = False
    has_destroy: bool = True
    rate_limit: int = 10**6
    chunked: bool = False
    renames: bool = False
    url: str = ""
    assets: dict[str, bytes] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    destroyed: list[str] = field(default_factory=list)
    requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def upload(self, fields: dict[str, str], whole: bool, body: bytes) -> tuple[int, dict[str, Any]]:
        signature = fields.pop("signature", "")
        if self.claims_first and self.once and signature in self.used:
            return _error(400, "Claimed before")
        if self.claims_first:
            self.used.add(signature)
        if signature != _expected(fields):
            return _error(401, "Invalid Signature")
        if not whole or _PNG not in body:
            return _error(400, "Invalid image file")
        if self.once and not self.claims_first and signature in self.used:
            return _error(400, "Used before")
        self.used.add(signature)
        name = f"elsewhere/{fields['public_id']}" if self.renames else fields["public_id"]
        replaced = {"overwritten": True} if name in self.assets else {}
        self.assets[name] = body
        return 200, {"public_id": name, "resource_type": "image", **replaced}

    def destroy(self, fields: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if not self.has_destroy or fields.pop("signature") != _expected(fields):
            return _error(404, "No such call")
        self.destroyed.append(fields["public_id"])
        return 200, {"result": "ok" if self.assets.pop(fields["public_id"], None) else "not found"}


def _expected(fields: dict[str, str]) -> str:
    return str(api_sign_request({name: fields[name] for name in fields if name != "api_key"}, SECRET))


def _error(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message}}


@contextmanager
def running(foreign: Foreign, tls: ssl.SSLContext | None = None) -> Iterator[Foreign]:
    """On a free port, with `url` set."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if foreign.chunked else "HTTP/1.0"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            url = urlsplit(self.path)
            with foreign.lock:
                foreign.requests += 1
                if foreign.requests > foreign.rate_limit:
                    status, answer = _error(420, "Rate limit exceeded")
                elif url.path.endswith("/destroy"):
                    status, answer = foreign.destroy(dict(parse_qsl(body.decode())))
                else:
                    fields = {name.decode(): value.decode("latin-1") for name, value in _FIELD.findall(body)}
                    status, answer = foreign.upload(fields | dict(parse_qsl(url.query)), len(body) == length, body)
            self._answer(status, json.dumps(answer).encode())

        def _answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            if foreign.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if foreign.chunked else data)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = False
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """Clients that hang up are what this is about."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        foreign.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        try:
            yield foreign
        finally:
            server.shutdown()
            thread.join()
