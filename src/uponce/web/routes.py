"""Every address of this server, in one table."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial

from uponce.app.services import Services
from uponce.app.uploading.pipeline import Pipeline
from uponce.web import delivery
from uponce.web.app import App, Lifespan, Route, TrustedProxies
from uponce.web.cloudinary import resources
from uponce.web.cloudinary.notifications import notified_by_upstream
from uponce.web.cloudinary.relayed import METHODS, relayed
from uponce.web.cloudinary.signatures import signatures
from uponce.web.cloudinary.signed_calls import CALLS, signed_call
from uponce.web.cloudinary.upload import upload
from uponce.web.express import Express
from uponce.web.operators import Scrape, healthz, metrics, readyz
from uponce.web.pages import playground as playing
from uponce.web.pages.assets import asset
from uponce.web.pages.home import favicon, guide, home, robots
from uponce.web.places import Places
from uponce.web.request import Request
from uponce.web.response import Endpoint, Response
from uponce.web.tus import uploads as tus

_READ = ("GET", "HEAD")
_UPLOADS = (
    "/v1_1/{cloud}/upload",
    "/v1_1/{cloud}/{resource_type}/upload",
    "/v1_1/{cloud}/{resource_type}/upload_chunked",
)
# Calls of the Admin API that name a thing of such a collection `upload`.
_COLLECTIONS = (
    *("folders", "upload_presets", "transformations", "streaming_profiles"),
    *("metadata_fields", "metadata_rules", "triggers"),
)
_NAMED_UPLOAD = tuple(f"/v1_1/{{cloud}}/{collection}/upload" for collection in _COLLECTIONS)
_SIGNATURES = ("/v1_1/{cloud}/signatures", "/v1_1/{cloud}/signatures/{action}")
_ADMIN = {
    "ping": resources.ping,
    "config": resources.config,
    "resources/{resource_type}/context": resources.resources_by_context,
    "resources/{resource_type}/{type}/{public_id:path}": resources.resource,
    "upload_presets": resources.upload_presets,
    "upload_presets/{name}": resources.upload_preset,
}
# uponce lacks these calls. Widgets make them from web pages, some by a surplus slash. A page can read the refusal, or
# the upstream's answer.
_CALLS_OF_PAGES = (
    "/v1_1/{cloud}/{resource_type}/private",
    "/v1_1/{cloud}/{resource_type}/authenticated",
    "/v1_1/{cloud}/{resource_type}/delete_by_token",
    "/v1_1/{cloud}/delete_by_token",
    *(f"{path}/" for path in _UPLOADS),
)
_TUS = ("/tus/{cloud}", "/tus/{cloud}/")
_TUS_UPLOAD = ("/tus/{cloud}/{signature}/{upload}",)

_RECEIVES = (
    "This address receives uploads: POST the signed fields and then the file here, or PUT the bytes of the file with "
    "the signed fields in the query."
)
_RECEIVES_TUS = "This address receives uploads by tus 1.0: POST the signed fields as Upload-Metadata here to begin one."
_ONE_TUS_UPLOAD = "This address is one upload by tus 1.0."
_SHOWS_SIGNATURES = "This address shows, revokes and makes signatures, with HTTP Basic."
_READS_CATALOG = "This address answers a read of the Admin API, with HTTP Basic."
_TAKES_NOTIFICATIONS = "This address takes the notifications of the account behind a relay, by POST."
_NO_SUCH_CALL = "This address is a call that uponce lacks."
_SHOWS_PAGE = "This address shows a page for people."


def create_app(
    services: Services,
    lifespan: Lifespan,
    public_url: str | None,
    scrape: Scrape | None = None,
    proxies: TrustedProxies | None = None,
    playground: playing.Playground | None = None,
) -> App:
    """Return the ASGI application. `scrape` opens the metrics, `playground` the playground."""
    proxies = proxies or TrustedProxies()
    app = App(table(services, scrape, playground), services, lifespan, public_url, proxies)
    app.express = Express(app, services, proxies)
    return app


def table(services: Services, scrape: Scrape | None, playground: playing.Playground | None) -> tuple[Route, ...]:
    """Return all routes. The first with a path that fits takes the request."""

    def bound(endpoint: Callable[[Services, Request], Awaitable[Response]]) -> Endpoint:
        return partial(endpoint, services)

    def or_relayed(path: str, purpose: str, **own: Callable[[Services, Request], Awaitable[Response]]) -> Route:
        found = {method: bound(endpoint) for method, endpoint in own.items()}
        return Route((path,), METHODS, partial(relayed, services, found, purpose), purpose, judges_methods=True)

    receive = partial(upload, services, Pipeline(services))
    deliver = partial(delivery.deliver, services, Places("look into the catalog"), Places("open stored files"))
    tus_row = partial(Route, dialect=tus.refuse, open=True, exposed=tus.EXPOSED, takes_uploads=True)
    return (
        *(_of_playground(services, playground) if playground else ()),
        replace(or_relayed("", _NO_SUCH_CALL), paths=_NAMED_UPLOAD),
        Route(_UPLOADS, ("POST", "PUT"), receive, _RECEIVES, open=True, takes_uploads=True),
        *(
            or_relayed(f"/v1_1/{{cloud}}/{{resource_type}}/{call}", purpose, POST=partial(signed_call, call))
            for call, (_, purpose) in CALLS.items()
        ),
        tus_row(_TUS, tus.METHODS, bound(tus.serve), _RECEIVES_TUS),
        tus_row(_TUS_UPLOAD, tus.UPLOAD_METHODS, bound(tus.serve_upload), _ONE_TUS_UPLOAD),
        Route(_SIGNATURES, ("GET", "POST"), bound(signatures), _SHOWS_SIGNATURES),
        *(or_relayed(f"/v1_1/{{cloud}}/{path}", _READS_CATALOG, GET=call) for path, call in _ADMIN.items()),
        replace(or_relayed("", _NO_SUCH_CALL), paths=_CALLS_OF_PAGES, open=True),
        or_relayed("/v1_1/{cloud}/{call:path}", _NO_SUCH_CALL),
        Route(("/relay/{cloud}/notifications",), ("POST",), bound(notified_by_upstream), _TAKES_NOTIFICATIONS),
        Route(("/healthz",), _READ, healthz, "This address says that the process runs."),
        Route(("/readyz",), _READ, bound(readyz), "This address says whether uploads can be stored."),
        *(
            [Route(("/metrics",), _READ, bound(partial(metrics, scrape)), "This address shows metrics.")]
            if scrape
            else ()
        ),
        Route(("/",), _READ, bound(partial(home, playground)), _SHOWS_PAGE),
        Route(("/guide",), _READ, guide, _SHOWS_PAGE),
        Route(("/widget.js",), _READ, asset("widget/widget.js", commented=False), "This address is the upload widget."),
        Route(("/robots.txt",), _READ, robots, "This address is for crawlers."),
        Route(("/favicon.ico",), _READ, favicon, "This address is for browsers."),
        Route(delivery.PATHS, _READ, deliver, "This address delivers a stored file.", open=True),
    )


def _of_playground(services: Services, playground: playing.Playground) -> Iterator[Route]:
    def row(name: str, methods: tuple[str, ...], endpoint: Endpoint) -> Route:
        guarded = partial(playing.guard, playground, endpoint)
        about = "This address belongs to the playground."
        return Route((f"/playground{name}",), methods, guarded, about, dialect=playing.refuse)

    yield row("", _READ, playing.page)
    for name in playing.ASSETS:
        yield row(f"/{name}", _READ, asset(name))
    for name, action in playing.ACTIONS.items():
        yield row(f"/{name}", ("POST",), partial(action, services, playground))
