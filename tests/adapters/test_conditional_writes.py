"""A store of S3's protocol that cannot write only if absent, as Backblaze B2: it answers 501."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.contract.databases import run
from tests.contract.stores import objects
from uponce.adapters.store.blobs import Blobs
from uponce.core.errors import StorageUnavailable

FIRST, SECOND = "1" * 32, "2" * 32


class Unconditional(ThreadingHTTPServer):
    """Keeps what it gets by its path. `can_write` says if it takes a write at all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[str, bytes] = {}
        self.can_write = True


class _Handler(BaseHTTPRequestHandler):
    server: Unconditional

    def do_GET(self) -> None:
        kept = self.server.kept.get(self.path)
        self._answer(404 if kept is None else 200, kept or b"")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "If-None-Match" in self.headers or not self.server.can_write:
            self._answer(
                501, b"<Error><Code>NotImplemented</Code><Message>A header is not supported.</Message></Error>"
            )
            return
        self.server.kept[self.path] = body
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Unconditional]:
    with Unconditional() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["etag", "disabled"])
def store(server: Unconditional, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Blobs]:
    environment = {
        "AWS_CONDITIONAL_PUT": request.param,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "somewhere",
    }
    with objects("s3://bucket/prefix", environment, tmp_path) as store:
        yield store


def test_it_has_the_owner_that_came_first(store: Blobs) -> None:
    for owner in (FIRST, SECOND):
        run(store.set_owner(owner))
        assert run(store.owner()) == FIRST
    run(store.set_owner(SECOND, replace=True))
    assert run(store.owner()) == SECOND


def test_one_that_takes_no_write_at_all_is_unavailable(store: Blobs, server: Unconditional) -> None:
    server.can_write = False
    for replace in (False, True):
        with pytest.raises(StorageUnavailable) as told:
            run(store.set_owner(FIRST, replace=replace))
        assert "501" in told.value.for_operator
