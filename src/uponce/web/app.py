"""The ASGI application: which client asks, which endpoint answers, what is logged.

A proxy in front may name the client, if uponce trusts the proxy. A route says how a path finds its endpoint, and what
pages of other origins may do there (CORS). Each request gets an id, one response whatever happens, and one record: a
line in the log and a count in the metrics. Both say what happened, and neither has a signature or a secret.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from time import perf_counter
from typing import Any

from starlette.routing import Router, compile_path
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from uponce.app import current
from uponce.app.attempts import network_of
from uponce.app.services import Metrics, Services
from uponce.core.errors import OutcomeUnknown, ServerBusy, UponceError
from uponce.web.cloudinary.calls import missing, refuse_method
from uponce.web.errors import INTERNAL_ERROR, internal_error, refusal, status_of
from uponce.web.failures import FailedCredentials
from uponce.web.request import REQUEST_ID_LENGTH, Common, Header, Message, Receive, Request, Scope, Send
from uponce.web.response import ANY_ORIGIN, PLAIN_TEXT, VARY, Endpoint, Response, length_header, send_response

log = logging.getLogger("uponce")

IPAddress = IPv4Address | IPv6Address
Dialect = Callable[[Request, UponceError], Response]
Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)
_MAX_ADDRESS = 45  # the longest text of an IPv6 address
_MAX_HOPS = 20
_MAX_REMEMBERED = 1024  # addresses
_SCHEMES = ("http", "https")

_SENDING = frozenset(("POST", "PUT", "PATCH"))
_WRITING = _SENDING | {"DELETE"}
_METHODS = _WRITING | {"GET", "HEAD", "OPTIONS"}
_EXPOSED = (
    *("ETag", "X-Cld-Error", "X-Cld-Error-Code", "X-Request-Id", "Retry-After"),
    *("Content-Range", "Accept-Ranges", "Idempotent-Replayed"),
)
_PREFLIGHT_SECONDS = 3600
_PREFLIGHT_VARY: Header = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
)


class TrustedProxies:
    """The servers in front whose `X-Forwarded-For` and `X-Forwarded-Proto` count. By default no server is trusted.

    All other forwarded headers are ignored, also `Forwarded` (RFC 7239), which neither nginx nor Caddy sends.
    """

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._networks = tuple(networks)
        self._warned = False

    def apply(self, scope: Scope) -> bool:
        """Write the client's address and scheme into the scope. `client` becomes None unless it is an IP address.

        Return whether a trusted proxy passed the request on for an address that is no trusted proxy.
        """
        client = scope["client"][0] if scope.get("client") else ""
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if not self._networks and not forwarded:
            scope["client"] = _client_of(client)
            return False
        peer, passed_on = _address_of(client), False
        if peer is not None and self._trusts(peer):
            scope["scheme"] = _scheme_of(scope)
            peer = self._client(peer, b",".join(forwarded).decode("latin-1"))
            passed_on = not self._trusts(peer)
        elif forwarded and peer is not None:
            self._warn(peer)
        scope["client"] = None if peer is None else (str(peer), 0)
        return passed_on

    def name(self, text: str) -> bool:
        """Return whether the text is the address of a trusted proxy."""
        address = _address_of(text)
        return address is not None and self._trusts(address)

    def _trusts(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)

    def _client(self, peer: IPAddress, forwarded: str) -> IPAddress:
        """Return the last hop that is no trusted proxy: each proxy appends the address that called it.

        Text that is no address ends the search, since a client may have sent everything to the left of it.
        """
        for hop in reversed(forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            address = _address_of(hop.strip())
            if address is None:
                return peer
            peer = address
            if not self._trusts(address):
                return address
        return peer

    def _warn(self, peer: IPAddress) -> None:
        """Log once that a proxy seems to be in front. A stranger on the internet has no private address."""
        if self._warned or not peer.is_private:
            return
        self._warned = True
        log.warning(
            "%s sends X-Forwarded-For, but UPONCE_TRUSTED_PROXIES does not name it. The audit and the limits per "
            "address take all its clients for one. If it is your proxy, set UPONCE_TRUSTED_PROXIES=%s.",
            peer,
            peer,
        )


def _scheme_of(scope: Scope) -> str:
    """Return http or https: the last X-Forwarded-Proto if valid, otherwise the scheme of the connection."""
    sent = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
    scheme = b",".join(sent).decode("latin-1").rpartition(",")[2].strip().lower()
    return scheme if scheme in _SCHEMES else str(scope["scheme"])


@lru_cache(_MAX_REMEMBERED)
def _address_of(text: str) -> IPAddress | None:
    """Return the IP address, also of `address:port`. Return None for any other text. IPv4 inside IPv6 becomes IPv4."""
    if match := _WITH_PORT.fullmatch(text[: _MAX_ADDRESS + 8]):
        text = match[1] or match[2] or ""
    plain = text.partition("%")[0]  # a zone has meaning on one machine only
    try:
        address = ip_address(plain) if len(plain) <= _MAX_ADDRESS else None
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(_MAX_REMEMBERED)
def _client_of(text: str) -> tuple[str, int] | None:
    address = _address_of(text)
    return None if address is None else (str(address), 0)


@dataclass(frozen=True, slots=True)
class Route:
    """One or more paths with the same endpoint. `purpose` is the sentence for a client that uses a wrong method.

    `dialect` turns an error of the endpoint into a response. Pages of any origin may call an `open` route, without
    credentials, and read its `exposed` headers as well as those of every open route. `takes_uploads` says that the
    metrics count what arrives here as uploads. `judges_methods` says that the endpoint refuses other methods itself.
    """

    paths: tuple[str, ...]
    methods: tuple[str, ...]
    endpoint: Endpoint
    purpose: str
    dialect: Dialect = refusal
    open: bool = False
    exposed: tuple[str, ...] = ()
    takes_uploads: bool = False
    judges_methods: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A route, the template of the path that fits, and the parts of the path that the template names."""

    route: Route
    template: str
    params: Mapping[str, str]


async def _refuse(request: Request) -> Response:
    raise missing(request.method, request.path)


_NO_MATCH = Match(Route((), (), _refuse, "", judges_methods=True), "", {})


class App:
    """Serves the routes. Our protocol asks `express` first, if there is one."""

    express: Callable[[RequestResponseCycle, object], ASGIApp | None] | None = None

    def __init__(
        self,
        routes: tuple[Route, ...],
        services: Services,
        lifespan: Lifespan,
        public_url: str | None,
        proxies: TrustedProxies,
    ) -> None:
        self.routes = routes
        self._compiled = [(*compile_path(path)[:2], route) for route in routes for path in route.paths]
        self._services = services
        self._proxies = proxies
        self._limit = services.limits.max_connections_per_address
        self._passed_on: Counter[str] = Counter()  # running requests by the network of the client behind a proxy
        self._lifespan = Router(lifespan=lifespan)
        failures = FailedCredentials(services.limits, services.clock)
        self._common = Common(public_url, failures, services.limits, services.attempts.forms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        network = network_of(scope["client"][0]) if self._proxies.apply(scope) else ""
        self._passed_on[network] += 1
        try:
            await self._handle(scope, receive, send, network)
        finally:
            self._passed_on[network] -= 1
            if not self._passed_on[network]:
                del self._passed_on[network]

    async def _handle(self, scope: Scope, receive: Receive, send: Send, network: str) -> None:
        begun, failure = perf_counter(), None
        # The browser's question before an upload always gets its answer: without it, a page cannot read a refusal.
        crowded = bool(network) and self._passed_on[network] > self._limit and scope["method"] != "OPTIONS"
        match = self.match(scope["path"].removeprefix(scope.get("root_path", "")))
        request = Request(scope, receive, self._common, self._services.ids.hex(REQUEST_ID_LENGTH))
        current.request_id.set(request.id)
        try:
            if crowded:
                await _send(match.route, request, match.route.dialect(request, self._crowded()), send)
            else:
                await self._serve(match, request, send)
        except Exception as error:
            if request.status and isinstance(error, UponceError):
                # A stored file that fails during its response: the reader sees an early end. It counts as its refusal.
                request.note_error(error)
                request.status = status_of(error)
            else:
                failure = error
            if not request.status:
                await _send(match.route, request, internal_error(request), send)
        finally:
            metrics, facts, seconds = self._services.metrics, request.facts, perf_counter() - begun
            if not crowded:  # as for connections beyond their limit: one client shall not fill the log and raise alarms
                record_request(metrics, scope, request.id, match.template, facts, request.status, seconds, failure)

    def match(self, path: str) -> Match:
        """Return the first route that fits, else one with an empty template, which refuses every request."""
        for pattern, template, route in self._compiled:
            if found := pattern.fullmatch(path):
                return Match(route, template, found.groupdict())
        return _NO_MATCH

    async def _serve(self, match: Match, request: Request, send: Send) -> None:
        route, request.params = match.route, match.params
        if (answer := preflight(route, request)) is not None:
            await send_response(request, answer, send)
        elif request.method not in route.methods and not route.judges_methods:
            await _send(route, request, refuse_method(request, route.purpose, route.methods), send)
        elif route.takes_uploads and request.method in _SENDING:
            await _answer_upload(route, request, send, self._services.metrics)
        else:
            await _answer(route, request, send)

    def _crowded(self) -> ServerBusy:
        """Return a refusal. With HTTP/2 and 3 a proxy cannot bound requests by connections, so it is made here."""
        return ServerBusy(
            f"{self._limit} requests of this address are running, the limit. Send the request again later."
        )


async def _answer(route: Route, request: Request, send: Send) -> None:
    """Run the endpoint, and send its response or its refusal."""
    try:
        response = await route.endpoint(request)
    except UponceError as error:
        response = route.dialect(request, error)
    except asyncio.CancelledError:  # uvicorn ends what is left 30 seconds after SIGTERM
        response = route.dialect(request, _stopped(route, request))
    await _send(route, request, response, send)


async def _answer_upload(route: Route, request: Request, send: Send, metrics: Metrics) -> None:
    """Run the endpoint for a request that brings an upload. Count the bytes that arrive, and the refusal."""
    receive = request.receive

    async def counted() -> Message:
        message = await receive()
        if body := message.get("body"):
            metrics.received(len(body))
        return message

    request.receive, request.dropped = counted, metrics.received
    with metrics.sending():
        try:
            await _answer(route, request, send)
        except Exception:
            metrics.refused(INTERNAL_ERROR)
            raise
    if request.refused is not None:
        metrics.refused(request.refused)


def _stopped(route: Route, request: Request) -> UponceError:
    """Return the refusal of a request that a stop ends. A request that has arrived whole may still take effect."""
    if request.method in _SENDING and not request.has_unread_body():
        outcome = (
            "The upload may be stored or not. Ask for the signature's status, or send the same request again."
            if route.takes_uploads
            else "The request may have taken effect or not. Send the same request again later."
        )
        return OutcomeUnknown(f"The server stopped before it answered. {outcome}")
    return ServerBusy("The server stopped before it answered. Send the same request again later.")


async def _send(route: Route, request: Request, response: Response, send: Send) -> None:
    await send_response(request, response, send, cross_origin_headers(route, request, response))


def cross_origin_headers(route: Route, request: Request, response: Response) -> tuple[Header, ...]:
    """Return the headers that let a page read the response. For caches, an open route varies by origin."""
    if not route.open:
        return ()
    if request.raw_header(b"origin") is None:
        return (VARY,)
    shared = (ANY_ORIGIN, _exposing(route.exposed), VARY)
    return tuple(header for header in shared if header not in response.headers)


def preflight(route: Route, request: Request) -> Response | None:
    """Return the answer to the preflight request of a browser. Return None for any other request."""
    if request.method != "OPTIONS" or not route.open:
        return None
    wanted = request.raw_header(b"access-control-request-method")
    if wanted is None or request.raw_header(b"origin") is None:
        return None
    methods = (*route.methods, "OPTIONS")
    is_allowed = wanted.decode("latin-1") in methods
    text = b"OK" if is_allowed else b"Disallowed CORS method"
    headers = [
        _PREFLIGHT_VARY,
        ANY_ORIGIN,
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-max-age", b"%d" % _PREFLIGHT_SECONDS),
    ]
    names = request.raw_header(b"access-control-request-headers")
    if names is not None:
        headers.append((b"access-control-allow-headers", names))
    return Response(200 if is_allowed else 400, (*headers, length_header(len(text)), PLAIN_TEXT), text)


@cache
def _exposing(names: tuple[str, ...]) -> Header:
    return (b"access-control-expose-headers", ", ".join((*_EXPOSED, *names)).encode())


def record_request(
    metrics: Metrics,
    scope: Scope,
    request_id: str,
    route: str,
    facts: Mapping[str, Any],
    status: int,
    seconds: float,
    failure: BaseException | None = None,
) -> None:
    """Count the request in the metrics, and write its line in the log.

    `route` is the route's path, or empty without a route. The line has neither the path nor the query that the client
    sent: they can hold live signatures.

    Level `info` has uploads, deletions and refusals, `error` the failures of the server, `debug` all other requests.
    """
    method = scope["method"]
    # Label values come from code, never from clients, so their number is bounded.
    metrics.answered(route or "unmatched", method if method in _METHODS else "other", status, seconds)
    event = facts.get("event", "answered" if status else "aborted")
    level = _level(event, method, failure)
    if not log.isEnabledFor(level):
        return
    client = scope.get("client")
    shown = {name: value for name, value in facts.items() if name != "event"} | {
        "status": status,
        "ms": round(seconds * 1000),
        "address": client[0] if client else "-",
        "method": method,
        "route": route or "-",
    }
    log.log(level, "failed" if failure else event, exc_info=failure, extra={"request_id": request_id, "facts": shown})


def _level(event: str, method: str, failure: BaseException | None) -> int:
    if failure is not None or event == "failed":
        return logging.ERROR
    if event == "answered" or (event == "aborted" and method not in _WRITING):
        return logging.DEBUG
    return logging.INFO
