"""A tiny HTTP client that calls an ASGI application in this process: no sockets, every byte of a request in hand."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp

Message = MutableMapping[str, Any]
Chunks = Iterable[bytes] | AsyncIterable[bytes]

BOUNDARY = "uponce-test-boundary"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
END = f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """`ok`, or the code of the refusal."""
        return "ok" if self.status == 200 else str(self.json["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])


class TornAnswer(AssertionError):
    """The application ended amid its answer: a server closes the connection then, and the client misses bytes."""


async def call(
    app: ASGIApp,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    chunks: Chunks = (),
    torn: bool = False,
    whole: bool = False,
) -> Answer:
    """One request. `target` is the escaped path with its query; a torn request ends in a lost connection.

    A `whole` body comes in one message, as a small one comes from the server.
    """
    messages = _whole(chunks) if whole else _messages(chunks, torn)
    sent: list[Message] = []

    async def receive() -> Message:
        return await anext(messages, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(method, target, headers), receive, send)
    head, *blocks = sent
    answered = [(name.decode(), value.decode("latin-1")) for name, value in head["headers"]]
    assert len(dict(answered)) == len(answered), f"a header stands twice: {answered}"
    if not blocks or blocks[-1].get("more_body", False):
        raise TornAnswer(sent)
    assert all(block.get("more_body", False) for block in blocks[:-1])
    return Answer(head["status"], dict(answered), b"".join(block.get("body", b"") for block in blocks))


def scope_of(method: str, target: str, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, Any]:
    path, _, query = target.partition("?")
    given = [*(headers.items() if isinstance(headers, Mapping) else headers)]
    host = [] if any(name.lower() == "host" for name, _ in given) else [("host", "media.example")]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in [*host, *given]],
        "client": ("192.0.2.7", 50000),
        "server": ("media.example", 443),
    }


async def _messages(chunks: Chunks, torn: bool) -> AsyncIterator[Message]:
    async for chunk in _stream(chunks):
        yield {"type": "http.request", "body": chunk, "more_body": True}
    if not torn:
        yield {"type": "http.request", "body": b"", "more_body": False}


async def _whole(chunks: Chunks) -> AsyncIterator[Message]:
    body = b"".join([chunk async for chunk in _stream(chunks)])
    yield {"type": "http.request", "body": body, "more_body": False}


async def _stream(chunks: Chunks) -> AsyncIterator[bytes]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def part(name: str, value: str | bytes, filename: str | None = None) -> bytes:
    """One part of a form, from its boundary line to the line end after its value."""
    file = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: application/octet-stream'
    return raw_part(f'Content-Disposition: form-data; name="{name}"{file}', value)


def raw_part(head: str | bytes, value: str | bytes) -> bytes:
    """The same with the header lines as they are."""
    lines, data = (text.encode() if isinstance(text, str) else text for text in (head, value))
    return f"--{BOUNDARY}\r\n".encode() + lines + b"\r\n\r\n" + data + b"\r\n"


def parts_of(fields: Mapping[str, str]) -> bytes:
    return b"".join(part(name, value) for name, value in fields.items())
