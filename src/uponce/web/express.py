"""Answer ordinary GETs of small originals in the event loop: no task, no thread, no search for a route.

Every other request takes the long way, which gives the same answer to the byte.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from time import perf_counter

from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from uponce.app.deliver import find_now
from uponce.app.services import Services
from uponce.core.naming import DeliveryPath, parse_path
from uponce.core.values import Asset
from uponce.web import delivery
from uponce.web.app import App, TrustedProxies, record_request
from uponce.web.request import REQUEST_ID_LENGTH, Scope, raw_path
from uponce.web.response import VARY, complete

_MOST_BYTES = 104 * 1024  # the memory that a client can hold without reading
_MOST_KNOWN = 2048
_SMALL_BYTES = 16 * 1024  # the transport's buffer: less is collected there, more is sent at once
# With one of these headers, a GET may have another answer, or a body.
_DECIDING = frozenset(
    b"authorization content-length expect if-match if-modified-since if-none-match if-range if-unmodified-since origin "
    b"range transfer-encoding upgrade".split()
)


@dataclass(slots=True)
class _Known:
    """The asset of a URL, as of a version of the database."""

    version: Hashable
    template: str
    path: DeliveryPath
    asset: Asset
    head: bytes


class Express:
    """Answers requests whose turn has come, or returns the application that answers them."""

    def __init__(self, app: App, services: Services, proxies: TrustedProxies) -> None:
        self._app = app
        self._services = services
        self._proxies = proxies
        self._known: dict[bytes, _Known] = {}
        self._turn: object = None
        self._version: Hashable | None = None  # of the database, in this turn
        self._block = memoryview(bytearray(_MOST_BYTES))

    def __call__(self, cycle: RequestResponseCycle, turn: object) -> ASGIApp | None:
        """Return None if the answer is written, else the application to run.

        All requests of one turn of the loop had arrived when it began, so one look at the database serves them all.
        """
        begun = perf_counter()
        if turn is not self._turn:
            self._turn, self._version = turn, None
        if not _is_ordinary(cycle):
            return self._app
        try:
            known = self._find(cycle.scope)  # type: ignore[arg-type]
            body = None if known is None else self._read(cycle.scope["method"], known.asset)
        except Exception:  # also of a defect: the long way reports it
            return self._app
        if known is None or body is None:
            return self._app
        self._answer(cycle, known, body, begun)
        return None

    def _find(self, scope: Scope) -> _Known | None:
        glance = self._services.database.glance
        if glance is None or self._services.presigner is not None:
            return None
        version = self._version = self._version or glance.version()
        url = scope["raw_path"]
        known = self._known.get(url)
        if known is not None and known.version == version:
            return known
        found = self._look_up(scope, known, version)
        if found is None:
            self._known.pop(url, None)
        elif found is not known:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[url] = found
        return found

    def _look_up(self, scope: Scope, known: _Known | None, version: Hashable) -> _Known | None:
        path = parse_path(raw_path(scope)) if known is None else known.path
        template = self._template(scope) if known is None else known.template
        asset = find_now(self._services, path)
        if template is None or asset is None or asset.digest.size > _MOST_BYTES:
            return None
        if delivery.is_for_front(self._services, asset):
            return None
        if known is not None and known.asset == asset:
            known.version = version
            return known
        now = self._services.clock.now()
        if asset.version > now:  # then the answer changes each second
            return None
        headers = [*delivery.headers_of(asset, path, now), *delivery.content_headers(asset, asset.digest.size), VARY]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        return _Known(version, template, path, asset, lines)

    def _template(self, scope: Scope) -> str | None:
        match = self._app.match(scope["path"])
        return match.template if match.route.paths is delivery.PATHS else None

    def _read(self, method: str, asset: Asset) -> memoryview | None:
        """Return the body of the answer. Return None if that needs a wait, or if the blob is cut."""
        blob = self._services.blobs.open_now(asset.blob_key)
        if blob is None:
            return None
        body = self._block[: 0 if method == "HEAD" else blob.size]
        try:
            is_whole = blob.size == asset.digest.size and blob.read_now(0, body) == len(body)
        finally:
            blob.close()
        return body if is_whole else None

    def _answer(self, cycle: RequestResponseCycle, known: _Known, body: memoryview, begun: float) -> None:
        scope: Scope = cycle.scope  # type: ignore[assignment]
        self._proxies.apply(scope)
        request_id = self._services.ids.hex(REQUEST_ID_LENGTH)
        self._write(cycle, _head(cycle, known.head, request_id), body)
        complete(cycle)
        seconds = perf_counter() - begun
        record_request(self._services.metrics, scope, request_id, known.template, {}, 200, seconds)

    def _write(self, cycle: RequestResponseCycle, head: bytes, body: memoryview) -> None:
        """Write to the transport. If it keeps bytes that it cannot send, the next answer gets another block."""
        if len(head) + len(body) <= _SMALL_BYTES:
            cycle.transport.write(head + body)
            return
        cycle.transport.writelines((head, body))
        if cycle.transport.get_write_buffer_size():
            self._block = memoryview(bytearray(_MOST_BYTES))


def _is_ordinary(cycle: RequestResponseCycle) -> bool:
    """Return whether this is a plain GET with Host and each header once, and the reader has all earlier answers."""
    headers = cycle.scope["headers"]
    names = {name for name, _ in headers}
    if b"host" not in names or len(names) != len(headers) or not _DECIDING.isdisjoint(names):  # type: ignore[arg-type]
        return False
    return not (cycle.disconnected or cycle.transport.is_closing() or cycle.transport.get_write_buffer_size())


def _head(cycle: RequestResponseCycle, lines: bytes, request_id: str) -> bytes:
    first = b"".join(b"%b: %b\r\n" % header for header in cycle.default_headers)
    last = b"" if cycle.keep_alive else b"connection: close\r\n"
    return b"%b%b%bx-request-id: %b\r\n%b\r\n" % (STATUS_LINE[200], first, lines, request_id.encode(), last)
