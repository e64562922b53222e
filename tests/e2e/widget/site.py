"""A web site that has the upload widget on its pages, with a back end that signs for it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cloudinary.utils import api_sign_request

from tests.e2e.lossy import LossyHandler, LossyProxy
from tests.server import Server

Json = dict[str, Any]
Answer = tuple[int, Json, dict[str, str]]
"""Status, body and headers."""

# A service worker that passes on each request of its pages. Chromium then shows no progress of an upload.
WORKER = b"""addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => event.respondWith(fetch(event.request)));"""


class Site(ThreadingHTTPServer):
    """Serves `body` on every path, with the widget of `uponce`. `via` is the address that uploads go to.

    `asked` has the body of each request to `/sign`. `before` may answer in place of the signature; `signs` may change
    the parameters. `policy` is the Content-Security-Policy of the page, and `language` its `lang`.
    """

    daemon_threads = True

    def __init__(self, uponce: Server) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.uponce = uponce
        self.via = uponce.base
        self.asked: list[Json] = []
        self.submitted: list[str] = []
        self.before: Callable[[int], Answer | None] = lambda _: None
        self.signs: Callable[[Json], Json] = lambda params: params
        self.body = ""
        self.policy = ""
        self.language = "en"

    @property
    def url(self) -> str:
        """At `localhost`: another origin and another site than the server's 127.0.0.1."""
        return f"http://localhost:{self.server_port}/"

    def sign(self, asked: Json) -> Answer:
        self.asked.append(asked)
        instead = self.before(len(self.asked))
        if instead is not None:
            return instead
        params = self.signs({"timestamp": int(time.time()), **asked["params"]})
        signature = api_sign_request(dict(params), self.uponce.browser.secret)
        fields = params | {"signature": signature, "api_key": self.uponce.browser.key}
        url = self.uponce.upload_url().replace(self.uponce.base, self.via)
        return 200, {"url": url, "fields": fields}, {}

    def page(self) -> bytes:
        return (
            f'<!doctype html><html lang="{self.language}"><meta charset="utf-8"><title>Upload</title>'
            f'<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/style.css">'
            f'<script type="module" src="{self.uponce.base}/widget.js"></script><body>{self.body}</body></html>'
        ).encode()


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        if self.path == "/style.css":
            self._send(200, "text/css", b":root { color-scheme: light dark } body { margin: 1rem }")
        elif self.path == "/worker.js":
            self._send(200, "text/javascript", WORKER)
        elif self.path == "/favicon.ico":
            self._send(204, "image/x-icon", b"")
        elif self.path.startswith("/nowhere"):
            self._send(200, "text/html", b"<p>Elsewhere</p>")
        else:
            policy = {"Content-Security-Policy": self.server.policy} if self.server.policy else {}
            self._send(200, "text/html", self.server.page(), policy)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/sign":
            self.server.submitted.append(body.decode())
            self._send(200, "text/html", b"<p>Thank you</p>")
            return
        status, answer, headers = self.server.sign(json.loads(body))
        self._send(status, "application/json", json.dumps(answer).encode(), headers)

    def _send(self, status: int, content_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # The strictest page there is: it shows nothing of other origins that does not allow it.
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def serving(uponce: Server) -> Iterator[Site]:
    with Site(uponce) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.shutdown()
        thread.join()


class Line(LossyProxy):
    """A line to uponce on which `strike` decides what becomes of each request, by its number and its method.

    None lets it pass, LOSE eats the reply of a request that arrived whole, and a number of seconds is how long uponce
    asks to wait. A status and a code are the answer in place of uponce's.
    """

    LOSE = "lose"

    def __init__(self, uponce: Server) -> None:
        super().__init__(uponce)
        self.RequestHandlerClass = LineHandler
        self.strike: Callable[[int, str], str | int | tuple[int, str] | None] = lambda _number, _method: None
        self.requests: list[tuple[str, str, float]] = []
        """Method, `Upload-Offset` and time of each request that is not a preflight."""


class LineHandler(LossyHandler):
    server: Line

    def do_POST(self) -> None:
        self.server.requests.append((self.command, self.headers.get("Upload-Offset", ""), time.monotonic()))
        strike = self.server.strike(len(self.server.requests), self.command)
        self.close_connection = True
        if isinstance(strike, int | tuple):
            status, code = strike if isinstance(strike, tuple) else (503, "")
            # Refusals of a relay's account are passed on: they have no code of uponce.
            error = {"message": f"Refused: {code}"} if code == "upstream_refused" else {"code": code}
            body = json.dumps({"error": error}).encode() if code else b""
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Expose-Headers", "Retry-After, X-Cld-Error, X-Cld-Error-Code")
            if code:
                self.send_header("X-Cld-Error", f"Refused: {code}")
                self.send_header("X-Cld-Error-Code", code)
            if isinstance(strike, int):
                self.send_header("Retry-After", str(strike))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            return
        reply = self._pass_on()
        if strike is None:
            self._answer(reply)

    do_PATCH = do_HEAD = do_GET = do_DELETE = do_PUT = do_POST
