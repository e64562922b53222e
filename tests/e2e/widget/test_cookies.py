"""A sign endpoint on another origin, which knows its users by a cookie."""

import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.test_readme import block
from tests.e2e.widget.page import Widget, form
from tests.server import Server


class Api(ThreadingHTTPServer):
    """Signs for pages of every origin. `cookies` are those of its requests, None without any."""

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), ApiHandler)
        self.base = f"http://localhost:{self.server_port}"  # the site of the page: others get no cookie by default
        self.uponce = server
        self.cookies: list[str | None] = []


class ApiHandler(BaseHTTPRequestHandler):
    server: Api

    def do_OPTIONS(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.cookies.append(self.headers["Cookie"])
        fields = self.server.uponce.signed({"nonce": secrets.token_hex(8)})  # both tests may sign in one second
        signed = {"url": self.server.uponce.upload_url(), "fields": fields}
        self._answer(json.dumps(signed).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", self.headers["Origin"])
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Access-Control-Allow-Headers", "content-type")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    with Api(server) as api:
        thread = threading.Thread(target=api.serve_forever, args=(0.01,))
        thread.start()
        yield api
        api.shutdown()
        thread.join()


@pytest.mark.parametrize("signs", [True, False], ids=["the signer of the guide", "the widget alone"])
def test_only_a_signer_of_the_page_sends_cookies_to_another_origin(
    widget: Widget, api: Api, media: Path, signs: bool
) -> None:
    widget.open(form().replace('sign="/sign"', f'sign="{api.base}/sign"'))
    widget.page.context.add_cookies([{"name": "session", "value": "7", "url": api.base}])
    if signs:
        code = block("docs/guide/widget.md", "js", "credentials").replace("https://api.example", api.base)
        widget.js(f"(() => {{ const widget = el; {code} }})()")
    widget.pick(media / "cat.jpg")
    widget.stored()
    assert api.cookies == ["session=7" if signs else None]
