"""A request as endpoints see it: parsed once from the ASGI scope, with a body that is read while it arrives.

Endpoints note in it what the log shows once the request is over.
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uponce.app.attempts import Forms
from uponce.core.errors import BadCredentials, MalformedRequest, RequestTooSlow, Unavailable, UponceError, shown
from uponce.core.policy import Limits
from uponce.core.values import Caller
from uponce.web.discarding import CYCLE, Dropped
from uponce.web.failures import FailedCredentials

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]
Fields = tuple[tuple[str, str], ...]

REQUEST_ID_LENGTH = 32
# RFC 3986 §3.2.2 without percent-encoding, which no name in DNS has.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?", re.ASCII)
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MOST_LONE = 1000
_LOGGED = {"api_key": "key", "public_id": "public_id"}
_SINGLE = frozenset(
    "host content-type content-length content-range origin authorization range idempotency-key x-unique-upload-id "
    "tus-resumable upload-length upload-defer-length upload-offset upload-metadata upload-checksum "
    "x-http-method-override".split()
)


@dataclass(frozen=True, slots=True)
class Head:
    """The headers by lower-case name. Lines of one name are one list (RFC 9110 §5.3).

    `origin` is None unless a web page sent the request.
    """

    headers: Mapping[str, str]
    origin: str | None

    def get(self, name: str) -> str:
        """Return the value of a header, or an empty text."""
        return self.headers.get(name, "")

    def added_credentials(self) -> tuple[str, str] | None:
        """Return API key and secret of HTTP Basic, or None without them.

        Raise BadCredentials for credentials of another form. Credentials from a web page do not count: a browser adds
        credentials that it remembers to the forms of any site.
        """
        sent = self.get("authorization")
        return _basic_credentials(sent) if sent and self.origin is None else None

    def server_credentials(self) -> tuple[str, str]:
        """Return API key and secret of a request from a server. Raise BadCredentials for a request from a web page."""
        if self.origin is not None:  # a browser adds credentials that it remembers to the forms of any site
            raise BadCredentials(
                "This request comes from a web page, which must not know the secret. Let your server call this address."
            )
        return _basic_credentials(self.get("authorization"))


def _basic_credentials(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # not base64, not ASCII, not UTF-8
        user = colon = password = ""
    if scheme.lower() != "basic" or not colon:
        raise BadCredentials("Send the API key and its secret of this cloud as HTTP Basic credentials.")
    return user, password


def _ignored(size: int) -> None: ...


class Body:
    """The bytes of one request's body, while they arrive.

    Reading raises MalformedRequest if the connection ends early, RequestTooSlow if it is silent for `idle_seconds`.
    """

    hold: Callable[[int], None] = staticmethod(_ignored)  # takes how many bytes of the body are in memory

    def __init__(self, receive: Receive, idle_seconds: float, *, is_there: bool = False) -> None:
        """Keep where to read. A body that `is_there` has arrived whole, so reading it never waits."""
        self._receive = receive
        self._is_there = is_there
        self._idle_seconds = idle_seconds
        self._first = b""
        self.complete = False

    async def first(self) -> bytes:
        """Return the first bytes, which `chunks` yields again. `complete` says whether they are the whole body."""
        self._first = self._first or await self._next()
        return self._first

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the body as they arrive.

        A loop drops each chunk before it asks for the next. Else slow clients fill the memory with their last ones.
        """
        if self._first:
            yield self._take_first()
        while chunk := await self._next():
            yield chunk
            del chunk

    def _take_first(self) -> bytes:
        """Return the first bytes. No variable keeps them while the rest of the body arrives."""
        first, self._first = self._first, b""
        return first

    async def read(self, limit: int) -> bytes:
        """Return the whole body of a small request. Raise MalformedRequest if it has more than `limit` bytes."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise MalformedRequest(f"The request body is larger than {limit} bytes. Send fewer or shorter fields.")
            self.hold(len(body))
        return bytes(body)

    async def keep(self, limit: int) -> bytes:
        """Return what `read` returns, and let `chunks` yield it again."""
        self._first = await self.read(limit)
        return self._first

    async def _next(self) -> bytes:
        """Return the next bytes, or no bytes at the end of the body."""
        while not self.complete:
            message = await self._message()
            if message["type"] == "http.disconnect":
                self.complete = True
                raise MalformedRequest("The connection ended before the request was complete. Send the request again.")
            self.complete = not message.get("more_body", False)
            chunk: bytes = message.get("body", b"")
            if chunk:
                return chunk
        return b""

    async def _message(self) -> Message:
        if self._is_there:
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await self._receive()
        except TimeoutError:
            raise RequestTooSlow(
                f"No byte of the body arrived for {self._idle_seconds:g} seconds. Send the request again.",
                retry_after=1,
            ) from None


@dataclass(frozen=True, slots=True)
class Common:
    """What all requests to one server share. `public_url` is None unless it is set."""

    public_url: str | None
    failures: FailedCredentials
    limits: Limits
    forms: Forms


@dataclass(slots=True, eq=False, repr=False)  # the scope can have secrets
class Request:
    """One request.

    `params` are the parts of the path that the route names. `address` is the client's IP address, or empty. Endpoints
    note in `facts` what the log shows of the request. `refused` is the code of its refusal. `status` is the status
    that was sent, and 0 before. `cycle` is uvicorn's object for the request and its answer. It is None without our
    protocol. `dropped` counts the bytes of the body that are dropped without `receive`.
    """

    scope: Scope
    receive: Receive
    common: Common
    id: str
    cycle: "RequestResponseCycle | None" = field(init=False)
    method: str = field(init=False)
    path: str = field(init=False)
    address: str = field(init=False)
    params: Mapping[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    status: int = 0
    dropped: Dropped = _ignored
    _head: Head | None = None
    _body: Body | None = None

    def __post_init__(self) -> None:
        scope, client = self.scope, self.scope.get("client")
        self.cycle = scope.get("extensions", {}).get(CYCLE)
        self.method, self.path = scope["method"], scope["path"]
        self.address = client[0] if client else ""

    @property
    def caller(self) -> Caller:
        return Caller(address=self.address, request_id=self.id)

    @property
    def is_gone(self) -> bool:
        """Return whether no client reads the answer. `disconnected` alone comes a turn after a failed write."""
        return self.cycle is not None and (self.cycle.disconnected or self.cycle.transport.is_closing())

    @property
    def head(self) -> Head:
        """Return the headers. Raise MalformedRequest if a header occurs twice that must occur once."""
        if self._head is None:
            self._head = read_head(self.scope)
        return self._head

    @property
    def body(self) -> Body:
        if self._body is None:
            is_there = self.cycle is not None and not self.cycle.more_body
            self._body = Body(self.receive, self.common.limits.idle_seconds, is_there=is_there)
        return self._body

    @property
    def scheme(self) -> str:
        """Return http or https: what the client called."""
        return str(self.scope["scheme"])

    def query(self, limits: Limits) -> Fields:
        """Return the fields of the query, in order."""
        return parse_query(self.scope["query_string"], limits)

    def raw_header(self, name: bytes) -> bytes | None:
        """Return the first header of this name as it was sent, or None."""
        return next((value for header, value in self.scope.get("headers", ()) if header == name), None)

    def has_unread_body(self) -> bool:
        """Return whether the client may still be sending.

        GET and HEAD without framing headers have no body (RFC 9112 §6). HTTP/2 bodies need no such header.
        """
        if self._body is not None and self._body.complete:
            return False
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.scope.get("headers", ()))
        return framed or self.method not in ("GET", "HEAD")

    def base_url(self) -> str:
        """Return the base of the answers' URLs: the setting, or the host that the client called."""
        public_url = self.common.public_url
        return self.called_url() if public_url is None else public_url.rstrip("/")

    def called_url(self) -> str:
        """Return the base of the URL that the client called.

        Raise MalformedRequest unless header Host is a plain name or address with an optional port.
        """
        host = self.head.get("host")
        match = _HOST.fullmatch(host)
        if match is None or int(match[1] or 0) > 65535:
            raise MalformedRequest(
                f"Header Host is '{shown(host)}'. Send the name or address of this server, and its port."
            )
        return f"{self.scheme}://{host}"

    def note_fields(self, fields: Iterable[tuple[str, str]]) -> None:
        """Note the API key and the public_id that a client sent. The first of each counts, not verified."""
        for name, value in fields:
            if name in _LOGGED:
                self.facts.setdefault(_LOGGED[name], value)

    def note_error(self, error: UponceError) -> None:
        """Note a refusal by its code. Its detail is for the operator alone."""
        self.facts.update(event="failed" if isinstance(error, Unavailable) else "refused", code=error.code)
        if error.detail:
            self.facts["detail"] = error.detail


def read_head(scope: Scope) -> Head:
    """Return the headers. Raise MalformedRequest if a header occurs twice that must occur once, or without Host."""
    lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = dict(lines)
    if len(headers) < len(lines):
        headers = _joined(lines)
    if "host" not in headers and scope.get("http_version") == "1.1":
        raise MalformedRequest("Header Host is missing. Send the name or address of this server (RFC 9112 §3.2).")
    return Head(headers, headers.get("origin"))


def check_encoding(head: Head) -> None:
    """Raise MalformedRequest for a compressed body, whose bytes are not those of the file."""
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        encoding = head.get(name.lower())
        if encoding.lower() not in ("", plain):
            raise MalformedRequest(
                f"A body with {name}: {shown(encoding)} is not accepted. Send the bytes without that encoding."
            )


def _joined(lines: Sequence[tuple[str, str]]) -> dict[str, str]:
    headers: dict[str, list[str]] = {}
    for name, value in lines:
        if name in headers and name in _SINGLE:
            raise MalformedRequest(f"Header {name} was sent more than once. Send it once.")
        headers.setdefault(name, []).append(value)
    return {name: ", ".join(values) for name, values in headers.items()}


def raw_path(scope: Scope) -> str:
    """Return the path as it was sent, with its escapes. Raise MalformedRequest unless it is ASCII."""
    try:
        return bytes(scope["raw_path"]).partition(b"?")[0].decode("ascii")
    except UnicodeDecodeError:
        raise MalformedRequest(
            "The path has a character that is not ASCII. Percent-encode it, as %C3%A9 for é."
        ) from None


def parse_query(query: bytes, limits: Limits) -> Fields:
    """Return the fields of a query string or of an urlencoded body, in order."""
    pairs = query.split(b"&", limits.max_fields)
    if len(pairs) > limits.max_fields:
        count = query.count(b"&") + 1
        raise MalformedRequest(f"The request has {count} fields, the limit is {limits.max_fields}. Send fewer fields.")
    try:
        query.decode("ascii")
        split = (pair.replace(b"+", b" ").partition(b"=") for pair in pairs if pair)
        return tuple((percent_decoded(name).decode(), percent_decoded(value).decode()) for name, _, value in split)
    except UnicodeError:
        raise MalformedRequest("The query is not percent-encoded UTF-8. Encode it so.") from None


def percent_decoded(text: bytes) -> bytes:
    """Return the bytes behind the escapes. Raise UnicodeError for more than 1,000 `%` that begin no escape.

    The result is that of `urllib.parse.unquote_to_bytes`, which takes ten times as long for a text of escapes: 256 KiB
    of them would hold the event loop for 20 ms. The codec reads `\\x41`.
    """
    whole = _NO_ESCAPE.sub(b"%25", text, count=_MOST_LONE)
    return whole.replace(b"\\", b"\\\\").replace(b"%", b"\\x").decode("unicode_escape").encode("latin-1")
