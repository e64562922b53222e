"""The routes, in one list, and what wraps them all: a request id, and an answer whatever happens."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from uponce.app.services import Services
from uponce.core.errors import MalformedRequest, NotFound, UponceError
from uponce.core.values import ResourceType
from uponce.web import delivery, destroy, signatures, upload
from uponce.web.body import Message, Receive, Scope, Send
from uponce.web.health import HealthEndpoint, ReadyEndpoint
from uponce.web.metrics import INTERNAL_ERROR, CountedUploads, MetricsEndpoint, Scrape, note
from uponce.web.request import TrustedProxies
from uponce.web.respond import send_error, send_json
from uponce.web.tus import endpoint as tus

log = logging.getLogger("uponce")

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

_REQUEST_ID_LENGTH = 32
_EXPOSED = "ETag X-Cld-Error X-Request-Id Retry-After Content-Range Accept-Ranges Idempotent-Replayed".split()


def create_app(
    services: Services,
    lifespan: Lifespan,
    public_url: str | None,
    scrape: Scrape | None = None,
    proxies: TrustedProxies | None = None,
) -> "App":
    """The ASGI application. Uploads and deliveries may come from any origin, without credentials; deletions and
    the signature endpoints may not be called across origins at all. There are metrics where `scrape` opens them."""
    signature = Only(signatures.METHODS, signatures.SignaturesEndpoint(services, public_url))
    uploads = CountedUploads(tus.TusEndpoint(services, public_url), services.metrics)
    originals = cors(delivery.METHODS, delivery.DeliveryEndpoint(services))
    routes = [
        Route(
            "/v1_1/{cloud}/{resource_type}/upload",
            cors(upload.METHODS, CountedUploads(upload.UploadEndpoint(services, public_url), services.metrics)),
        ),
        Route("/v1_1/{cloud}/{resource_type}/destroy", Only(destroy.METHODS, destroy.DestroyEndpoint(services))),
        *(Route(f"/tus/{{cloud}}{end}", cors(tus.METHODS, uploads, tus.EXPOSED)) for end in ("", "/")),
        Route("/tus/{cloud}/{signature}/{upload}", cors(tus.UPLOAD_METHODS, uploads, tus.EXPOSED)),
        Route("/v1_1/{cloud}/signatures", signature),
        Route("/v1_1/{cloud}/signatures/{action}", signature),
        Route("/healthz", Only(("GET", "HEAD"), HealthEndpoint())),
        Route("/readyz", Only(("GET", "HEAD"), ReadyEndpoint(services))),
        *([Route("/metrics", Only(("GET", "HEAD"), MetricsEndpoint(scrape)))] if scrape else []),
        *(Route(f"/{{cloud}}/{kind}/{{rest:path}}", originals) for kind in ResourceType),
    ]
    return App(
        Router(routes, redirect_slashes=False, default=not_found, lifespan=lifespan),
        services,
        proxies or TrustedProxies(),
    )


def cors(methods: tuple[str, ...], endpoint: ASGIApp, exposed: Sequence[str] = ()) -> ASGIApp:
    return CORSMiddleware(
        Only(methods, endpoint),
        allow_origins=["*"],
        allow_methods=[*methods, "OPTIONS"],
        allow_headers=["*"],
        expose_headers=[*_EXPOSED, *exposed],
        max_age=3600,
    )


class Only:
    """Refuses other methods with 405, which no SDK ever sees."""

    def __init__(self, methods: tuple[str, ...], endpoint: ASGIApp) -> None:
        self._methods = methods
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in self._methods:
            await self._endpoint(scope, receive, send)
            return
        wanted = " or ".join(self._methods)
        error = MalformedRequest(f"Method {scope['method'][:20]} is not allowed here. Use {wanted}.")
        allow = (b"allow", ", ".join(self._methods).encode())
        await send_error(scope, receive, send, error, body_complete=False, status=405, headers=(allow,))


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        error = NotFound(
            "There is nothing at this address. Upload to /v1_1/<cloud>/<image|video|raw|auto>/upload, or /tus/<cloud>/."
        )
        await send_error(scope, receive, send, error, body_complete=False)


class App:
    """Gives each request its id, and turns whatever escaped into an answer; every error is logged here, and every
    request counted, once."""

    def __init__(self, router: ASGIApp, services: Services, proxies: TrustedProxies) -> None:
        self._router = router
        self._services = services
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        self._proxies.apply(scope)
        request_id = self._services.ids.hex(_REQUEST_ID_LENGTH)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        status, begun = 0, perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._router(scope, receive, send_marked)
        except UponceError as error:
            if not status:
                await send_error(scope, receive, send_marked, error, body_complete=False)
        except Exception:
            log.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            if not status:
                body = {"error": {"message": f"Internal error, request {request_id}", "code": INTERNAL_ERROR}}
                await send_json(scope, send_marked, 500, body)
        finally:
            note(self._services.metrics, scope, status, perf_counter() - begun)
