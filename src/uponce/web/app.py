"""The ASGI application. Each request gets an id, one endpoint, one response whatever happens, and one record."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any

from starlette.routing import Router

from uponce.app.ports import Metrics
from uponce.app.services import Services
from uponce.core.errors import OutcomeUnknown, ServerBusy, UponceError
from uponce.web.cloudinary.calls import missing, refuse_method
from uponce.web.errors import INTERNAL_ERROR, internal_error, refusal
from uponce.web.express import Express
from uponce.web.failures import FailedCredentials
from uponce.web.operators import Scrape
from uponce.web.pages.playground import Playground
from uponce.web.proxies import TrustedProxies
from uponce.web.request import REQUEST_ID_LENGTH, Message, Receive, Request, Scope, Send, Site
from uponce.web.request_log import record_request
from uponce.web.response import Response, send_response
from uponce.web.routes import table
from uponce.web.routing import Match, Route, Routes, cross_origin_headers, preflight

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

_SENDING = frozenset(("POST", "PUT", "PATCH"))


def create_app(
    services: Services,
    lifespan: Lifespan,
    public_url: str | None,
    scrape: Scrape | None = None,
    proxies: TrustedProxies | None = None,
    playground: Playground | None = None,
) -> "App":
    """Return the ASGI application. `scrape` opens the metrics, `playground` the playground."""
    routes = Routes(table(services, scrape, playground))
    return App(routes, services, lifespan, public_url, proxies or TrustedProxies())


class App:
    """Serves the routes. Our protocol asks `express` first."""

    def __init__(
        self, routes: Routes, services: Services, lifespan: Lifespan, public_url: str | None, proxies: TrustedProxies
    ) -> None:
        self.routes = routes
        self.express = Express(self, routes, services, proxies)
        self._services = services
        self._proxies = proxies
        self._lifespan = Router(default=_nothing, lifespan=lifespan)
        failures = FailedCredentials(services.limits, services.clock)
        self._site = Site(public_url, failures, services.limits.idle_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
            return
        begun, failure = perf_counter(), None
        self._proxies.apply(scope)
        match = self.routes.match(scope["path"].removeprefix(scope.get("root_path", "")))
        request = Request(scope, receive, self._site, self._services.ids.hex(REQUEST_ID_LENGTH))
        try:
            await self._serve(match, request, send)
        except Exception as error:
            # A stored file that fails amid its response is no failure of the program: the reader sees an early end.
            failure = None if request.status and isinstance(error, UponceError) else error
            if not request.status:
                answer = internal_error(request)
                more = cross_origin_headers(match.route, request, answer) if match else ()
                await send_response(request, answer, send, more)
        finally:
            template, seconds = match.template if match else None, perf_counter() - begun
            metrics, facts = self._services.metrics, request.facts
            record_request(metrics, scope, request.id, template, facts, request.status, seconds, failure)

    async def _serve(self, match: Match | None, request: Request, send: Send) -> None:
        if match is None:
            await send_response(request, refusal(request, missing(request.method, request.path)), send)
            return
        route, request.params = match.route, match.params
        if (answer := preflight(route, request)) is not None:
            await send_response(request, answer, send)
        elif request.method not in route.methods and not route.judges_methods:
            await _send(route, request, refuse_method(request, route.purpose, route.methods), send)
        elif route.takes_uploads and request.method in _SENDING:
            await _answer_upload(route, request, send, self._services.metrics)
        else:
            await _answer(route, request, send)


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
    """The same for a request that brings an upload: count the bytes that arrive, and the refusal."""
    receive = request.receive

    async def counted() -> Message:
        message = await receive()
        if body := message.get("body"):
            metrics.received(len(body))
        return message

    request.receive = counted
    with metrics.sending():
        try:
            await _answer(route, request, send)
        except Exception:
            metrics.refused(INTERNAL_ERROR)
            raise
    if request.refused is not None:
        metrics.refused(request.refused)


def _stopped(route: Route, request: Request) -> UponceError:
    """Return the refusal of a request that a stop of the server ends. What has arrived may still take effect."""
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


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Ignore a WebSocket."""
