"""Routes: how a path finds its endpoint, and what pages of other origins may do there (CORS)."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache

from starlette.routing import compile_path

from uponce.core.errors import UponceError
from uponce.web.errors import refusal
from uponce.web.request import Header, Request
from uponce.web.response import Response, length_header

Endpoint = Callable[[Request], Awaitable[Response]]
Dialect = Callable[[Request, UponceError], Response]

_EXPOSED = tuple("ETag X-Cld-Error X-Request-Id Retry-After Content-Range Accept-Ranges Idempotent-Replayed".split())
_MAX_AGE_SECONDS = 3600
_ANY_ORIGIN: Header = (b"access-control-allow-origin", b"*")
_VARY: Header = (b"vary", b"Origin")
_PREFLIGHT_VARY: Header = (
    b"vary",
    b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
)
_PLAIN: Header = (b"content-type", b"text/plain; charset=utf-8")


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


class Routes:
    """Finds the route of a path. Starlette compiles the templates."""

    def __init__(self, rows: tuple[Route, ...]) -> None:
        self.rows = rows
        self._compiled = [_compiled(path, route) for route in rows for path in route.paths]

    def match(self, path: str) -> Match | None:
        """Return the first route that fits, or None."""
        for pattern, template, route in self._compiled:
            if found := pattern.match(path):
                return Match(route, template, found.groupdict())
        return None


def _compiled(path: str, route: Route) -> tuple[re.Pattern[str], str, Route]:
    pattern, template, _ = compile_path(path)
    return pattern, template, route


def cross_origin_headers(route: Route, request: Request, response: Response) -> tuple[Header, ...]:
    """Return the headers that let a page read the response. For caches, an open route varies by origin."""
    if not route.open:
        return ()
    if request.raw_header(b"origin") is None:
        return (_VARY,)
    shared = (_ANY_ORIGIN, _exposing(route.exposed), _VARY)
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
        _ANY_ORIGIN,
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-max-age", b"%d" % _MAX_AGE_SECONDS),
    ]
    names = request.raw_header(b"access-control-request-headers")
    if names is not None:
        headers.append((b"access-control-allow-headers", names))
    return Response(200 if is_allowed else 400, (*headers, length_header(len(text)), _PLAIN), text)


@cache
def _exposing(names: tuple[str, ...]) -> Header:
    return (b"access-control-expose-headers", ", ".join((*_EXPOSED, *names)).encode())
