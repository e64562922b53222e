"""What an operator reads of a request to a bucket that failed."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from obstore.exceptions import GenericError

from uponce.adapters.store.bucket import Bucket, explained
from uponce.core.errors import StorageUnavailable

_BEGUN = b'HTTP/1.1 200 OK\r\nLast-Modified: Mon, 30 Nov 2026 17:22:19 GMT\r\nETag: "a"\r\nContent-Length: 9\r\n\r\na'


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A listener in place of the bucket. The system makes connections to it, and no answer ever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield listener


def detail_of(bucket: Bucket) -> str:
    with pytest.raises(StorageUnavailable) as refused:
        bucket.text_of("owner")
    return refused.value.detail


def test_a_request_that_is_not_answered_in_time_names_the_settings(silent: socket.socket) -> None:
    detail = detail_of(Bucket("s3://bucket", 1))
    assert "It took longer than UPONCE_STORAGE_SECONDS" in detail
    assert "UPONCE_STORAGE_UPLOADS" in detail
    assert "cannot be reached" not in detail


@contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[None]:
    """Send this to each request, and keep the connection."""
    open_connections: list[socket.socket] = []

    def answer_all() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                open_connections.append(connection)
                connection.recv(65536)
                connection.sendall(answer)

    Thread(target=answer_all, daemon=True).start()
    yield
    for connection in open_connections:
        connection.close()


def test_an_answer_that_stalls_names_the_settings(silent: socket.socket) -> None:
    with answering(silent, _BEGUN):
        assert "It took longer than UPONCE_STORAGE_SECONDS" in detail_of(Bucket("s3://bucket", 1))


def _whole(status: str, xml: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(xml)}\r\n\r\n{xml}".encode()


def test_a_wrong_clock_is_no_matter_of_credentials(silent: socket.socket) -> None:
    skewed = (
        "<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current "
        "time is too large.</Message></Error>"
    )
    with answering(silent, _whole("403 Forbidden", skewed)):
        detail = detail_of(Bucket("s3://bucket", 60))
    assert detail.endswith("The clock of this machine is wrong: set it, for example by NTP.")


def test_a_listing_that_ends_at_the_object_of_another_program_names_it(silent: socket.socket) -> None:
    """obstore ends a listing at a name without its rules, such as one with an empty part."""
    listed = (
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated><Contents>'
        "<Key>blobs/aa//stray</Key><LastModified>2026-11-30T17:22:19.000Z</LastModified><Size>1</Size></Contents>"
        "</ListBucketResult>"
    )
    with answering(silent, _whole("200 OK", listed)), pytest.raises(StorageUnavailable) as refused:
        list(Bucket("s3://bucket", 60).listing("blobs/aa/"))
    assert "blobs/aa//stray" in refused.value.detail
    assert refused.value.detail.endswith("Delete it: `uponce fsck` and sweeps end there.")


TRIES = 5  # a machine that stalls lets all limits of a request pass at once

_CONNECTING = """Generic S3 error: Error performing HEAD http://127.0.0.1:1/b - HTTP error: error sending request

Debug source:
Http(HttpError { kind: Timeout, source: %s })
"""
_DROPPED = 'Error(Connect, ConnectError("tcp connect error", Custom { kind: TimedOut }))'
_NO_HANDSHAKE = "hyper_util::client::legacy::Error(\n    Connect,\n    TimedOut,\n)"


@pytest.mark.parametrize("source", [_DROPPED, _NO_HANDSHAKE])
def test_a_connection_that_is_not_made_in_time_is_no_slow_line(source: str) -> None:
    """No setting cures it. The texts are obstore's, where the endpoint drops packets, or makes no TLS."""
    said = explained(GenericError(_CONNECTING % source))
    assert said.endswith("It cannot be reached: check the endpoint and the network.")
    assert "UPONCE_STORAGE_SECONDS" not in said


def test_an_endpoint_without_tls_is_no_slow_line(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system makes the connection, and no handshake follows. A name server that is silent gives the same."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{silent.getsockname()[1]}")
    details = (detail_of(Bucket("s3://bucket", 2)) for _ in range(TRIES))
    assert any("It cannot be reached: check the endpoint" in detail for detail in details)


def test_an_endpoint_that_refuses_connections_cannot_be_reached(silent: socket.socket) -> None:
    silent.close()
    assert "It cannot be reached: check the endpoint" in detail_of(Bucket("s3://bucket", 60))
