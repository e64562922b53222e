"""All routes in one table, and the wrapper of every request: a request id, and an answer whatever happens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from uponce.app.services import Services
from uponce.core.errors import MalformedRequest, UponceError
from uponce.web import delivery, destroy, home, signatures, upload
from uponce.web import playground as playing
from uponce.web.body import Message, Receive, Scope, Send
from uponce.web.calls import missing
from uponce.web.express import Express
from uponce.web.failures import FAILURES, FailedCredentials
from uponce.web.health import HealthEndpoint, ReadyEndpoint
from uponce.web.metrics import INTERNAL_ERROR, CountedUploads, MetricsEndpoint, Scrape, note
from uponce.web.pages.assets import AssetEndpoint
from uponce.web.request import REQUEST_ID_LENGTH, TrustedProxies
from uponce.web.request_log import log_request
from uponce.web.respond import send_error, send_json
from uponce.web.tus import endpoint as tus

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]

_EXPOSED = "ETag X-Cld-Error X-Request-Id Retry-After Content-Range Accept-Ranges Idempotent-Replayed".split()


@dataclass(frozen=True, slots=True)
class Place:
    """One or more addresses with the same endpoint. `purpose` is the sentence for a client that uses a wrong method.

    Pages of any origin may call an `open` place, without credentials, and read the `exposed` headers of its answers.
    """

    paths: tuple[str, ...]
    methods: tuple[str, ...]
    purpose: str
    endpoint: ASGIApp
    open: bool = False
    exposed: Sequence[str] = ()


_ON_UPLOAD = (
    "This address receives uploads: POST the signed fields and then the file here, or PUT the bytes of the file with "
    "the signed fields in the query."
)
_ON_TUS = "This address receives uploads by tus 1.0: POST the signed fields as Upload-Metadata here to begin one."
_ON_SIGNATURES = "This address shows, revokes and makes signatures, with HTTP Basic."


def create_app(
    services: Services,
    lifespan: Lifespan,
    public_url: str | None,
    scrape: Scrape | None = None,
    proxies: TrustedProxies | None = None,
    playground: playing.Playground | None = None,
) -> "App":
    """Return the ASGI application. `scrape` opens the metrics, `playground` the playground."""
    places = _places(services, public_url, scrape)
    if playground is not None:
        places[:0] = _places_of_playground(services, public_url, playground)
    routes = [Route(path, _app_of(place)) for place in places for path in place.paths]
    router = Router(routes, redirect_slashes=False, default=not_found, lifespan=lifespan)
    proxies = proxies or TrustedProxies()
    app = App(router, services, proxies)
    app.express = Express(app, routes, services, proxies)
    return app


def _places(services: Services, public_url: str | None, scrape: Scrape | None) -> list[Place]:
    """Every address of this server, in one table."""
    read = ("GET", "HEAD")
    uploads = CountedUploads(upload.UploadEndpoint(services, public_url), services.metrics)
    resumable = CountedUploads(tus.TusEndpoint(services, public_url), services.metrics)
    signature = signatures.SignaturesEndpoint(services, public_url)
    watching = [Place(("/metrics",), read, "This address shows metrics.", MetricsEndpoint(scrape))] if scrape else []
    return [
        Place(_UPLOADS, upload.METHODS, _ON_UPLOAD, uploads, open=True),
        Place(
            ("/v1_1/{cloud}/{resource_type}/destroy",),
            destroy.METHODS,
            "This address deletes an asset.",
            destroy.DestroyEndpoint(services),
        ),
        Place(("/tus/{cloud}", "/tus/{cloud}/"), tus.METHODS, _ON_TUS, resumable, open=True, exposed=tus.EXPOSED),
        Place(
            ("/tus/{cloud}/{signature}/{upload}",),
            tus.UPLOAD_METHODS,
            "This address is one upload by tus 1.0.",
            resumable,
            open=True,
            exposed=tus.EXPOSED,
        ),
        Place(
            ("/v1_1/{cloud}/signatures", "/v1_1/{cloud}/signatures/{action}"),
            signatures.METHODS,
            _ON_SIGNATURES,
            signature,
        ),
        Place(("/healthz",), read, "This address says that the process runs.", HealthEndpoint()),
        Place(("/readyz",), read, "This address says whether uploads can be stored.", ReadyEndpoint(services)),
        *watching,
        Place(("/",), read, "This address shows a page for people.", home.HomeEndpoint(services, public_url)),
        Place(("/guide",), read, "This address shows a page for people.", home.GuideEndpoint(public_url)),
        Place(("/widget.js",), read, "This address is the upload widget.", AssetEndpoint("widget/widget.js")),
        Place(("/robots.txt",), read, "This address is for crawlers.", home.ROBOTS),
        Place(("/favicon.ico",), read, "This address is for browsers.", home.FAVICON),
        Place(
            delivery.PATHS,
            delivery.METHODS,
            "This address delivers a stored file.",
            delivery.DeliveryEndpoint(services),
            open=True,
        ),
    ]


def _places_of_playground(
    services: Services, public_url: str | None, playground: playing.Playground
) -> Iterator[Place]:
    for path, endpoint in playing.endpoints(services, public_url, playground).items():
        methods = ("POST",) if path.rpartition("/")[2] in playing.ACTIONS else ("GET", "HEAD")
        yield Place((path,), methods, "This address belongs to the playground.", endpoint)


_UPLOADS = (
    "/v1_1/{cloud}/upload",
    "/v1_1/{cloud}/{resource_type}/upload",
    "/v1_1/{cloud}/{resource_type}/upload_chunked",
)


def _app_of(place: Place) -> ASGIApp:
    only = Only(place)
    if not place.open:
        return only
    return CORSMiddleware(
        only,
        allow_origins=["*"],
        allow_methods=[*place.methods, "OPTIONS"],
        allow_headers=["*"],
        expose_headers=[*_EXPOSED, *place.exposed],
        max_age=3600,
    )


class Only:
    """Refuses other methods with 405, which no SDK ever sees."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self._place.methods
        if scope["method"] in methods:
            await self._place.endpoint(scope, receive, send)
            return
        error = MalformedRequest(f"{self._place.purpose} Use {' or '.join(methods)}, not {scope['method'][:20]}.")
        allow = (b"allow", ", ".join(methods).encode())
        await send_error(scope, receive, send, error, body_complete=False, status=405, headers=(allow,))


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send_error(scope, receive, send, missing(scope["method"], scope["path"]), body_complete=False)


class App:
    """Gives each request its id, and turns every exception into an answer. It counts and logs each request once.

    Our protocol asks `express` first.
    """

    express: Express

    def __init__(self, router: ASGIApp, services: Services, proxies: TrustedProxies) -> None:
        self._router = router
        self._services = services
        self._proxies = proxies
        self._failures = FailedCredentials(services.limits, services.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        self._proxies.apply(scope)
        request_id = self._services.ids.hex(REQUEST_ID_LENGTH)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, FAILURES: self._failures}
        status, begun, failure = 0, perf_counter(), None

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
        except Exception as error:
            failure = error
            if not status:
                body = {"error": {"message": f"Internal error, request {request_id}", "code": INTERNAL_ERROR}}
                await send_json(scope, send_marked, 500, body)
        finally:
            seconds = perf_counter() - begun
            note(self._services.metrics, scope, status, seconds)
            log_request(scope, status, seconds, failure)
