"""The first reads of Cloudinary's Admin API, for servers that have an API key of scope all and its secret.

One uponce can be the upstream of another. These are the reads that a relay asks of its upstream.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from uponce.app.authenticate import authenticate_for_all
from uponce.app.deliver import find_asset
from uponce.app.services import Services
from uponce.core.errors import MissingParameter, NotFound, UnknownParameter, UnsupportedParameter, shown
from uponce.core.parameters import MAX_CONTEXT_LENGTH, boolean, positive, text
from uponce.core.signature import collect
from uponce.core.values import ApiKey, DeliveryType, ResourceType
from uponce.web.cloudinary.answers import bases_of, present, resource_body
from uponce.web.cloudinary.calls import known
from uponce.web.cloudinary.forms import body_fields
from uponce.web.request import Request
from uponce.web.response import Response, json_response

Readers = Mapping[str, Callable[[str, str], Any]]

_MAX_PAGE = 500
_PAGE = 10


def _flag(name: str, value: str) -> bool:
    """Return the value of a switch, also in the form of Python's SDK in a query: `True`."""
    return boolean(name, value.lower())


def _off(name: str, value: str) -> None:
    if _flag(name, value):
        raise _unsupported(f"{name} is not supported by this server yet, except switched off")


def _absent(name: str, _: str) -> None:
    raise _unsupported(f"{name} is not supported by this server yet")


def _descending(name: str, value: str) -> None:
    if value.lower() not in ("desc", "-1"):
        raise _unsupported(f"{name}={shown(value)} is not supported by this server yet, except {name}=desc")


def _unsupported(what: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"Parameter {what}. Send the request without it.")


_size = partial(positive, limit=_MAX_PAGE)
_short = partial(text, limit=MAX_CONTEXT_LENGTH)

# Parameters without effect are checked too: an asset here has no derived assets, no coordinates and no moderations.
_OF_ASSET: Readers = {
    **dict.fromkeys(("image_metadata", "media_metadata", "coordinates", "pages"), _flag),
    **dict.fromkeys("accessibility_analysis cinemagraph_analysis colors exif faces phash".split(), _off),
    **dict.fromkeys("quality_analysis related versions".split(), _off),
    **dict.fromkeys(("derived_next_cursor", "related_next_cursor"), _absent),
    "max_results": _size,
}
_OF_CONTEXT: Readers = {
    **dict.fromkeys(("key", "value", "next_cursor"), _short),
    **dict.fromkeys(("tags", "context", "metadata", "moderations"), _flag),
    "max_results": _size,
    "direction": _descending,
    "fields": _absent,
}
_OF_PRESETS: Readers = {"max_results": _size, "next_cursor": _absent}


async def ping(services: Services, request: Request) -> Response:
    """Return ok if the credentials are right."""
    await _begin(services, request, {})
    return json_response({"status": "ok"})


async def config(services: Services, request: Request) -> Response:
    """Return what the cloud is like. Folders are a part of the public_id: Cloudinary calls that fixed."""
    key, fields = await _begin(services, request, {"settings": _flag})
    settings = {"folder_mode": "fixed"} if fields.get("settings") else None
    return json_response(present(cloud_name=key.cloud, settings=settings))


async def resource(services: Services, request: Request) -> Response:
    """Return the asset of `/v1_1/<cloud>/resources/<resource_type>/<type>/<public_id>`."""
    kind, type_ = known(request, "resource_type", ResourceType), known(request, "type", DeliveryType)
    key, fields = await _begin(services, request, _OF_ASSET)
    asset = await find_asset(services, key.cloud, kind, type_, request.params["public_id"])
    etag = fields.get("image_metadata") or fields.get("media_metadata")
    shows = ("tags", "context", *(["etag"] if etag else []))
    return json_response({**resource_body(asset, bases_of(request), key.secrets[0], *shows), "derived": []})


async def resources_by_context(services: Services, request: Request) -> Response:
    """Return a page of the assets whose context has `key` and, if it is sent, `value`."""
    kind = known(request, "resource_type", ResourceType)
    key, fields = await _begin(services, request, _OF_CONTEXT)
    if "key" not in fields:
        raise MissingParameter("Missing required parameter - key")
    page = await services.database.list_by_context(
        key.cloud,
        kind,
        fields["key"],
        fields.get("value"),
        limit=fields.get("max_results", _PAGE),
        cursor=fields.get("next_cursor"),
    )
    shows = [name for name in ("tags", "context") if fields.get(name)]
    bases = bases_of(request)
    found = [resource_body(asset, bases, key.secrets[0], *shows) for asset in page.items]
    return json_response(present(resources=found, next_cursor=page.next_cursor))


async def upload_presets(services: Services, request: Request) -> Response:
    """Return the list of presets, which is empty: uponce has no presets."""
    await _begin(services, request, _OF_PRESETS)
    return json_response({"presets": []})


async def upload_preset(services: Services, request: Request) -> Response:
    """Raise NotFound: uponce has no presets."""
    await _begin(services, request, _OF_PRESETS)
    raise NotFound(f"Can't find upload preset named {shown(request.params['name'])}")


async def _begin(services: Services, request: Request, readers: Readers) -> tuple[ApiKey, dict[str, Any]]:
    """Return the key of the caller, and the values of the query and of the body. Ruby's SDK sends a body.

    Raise UnknownParameter for others than those of the call.
    """
    key = await authenticate_for_all(services, request.params["cloud"], *request.head.server_credentials())
    sent = [*request.query(services.limits), *await body_fields(request, services.limits)]
    for name in (name.removesuffix("[]") for name, _ in sent):
        if name not in readers:
            raise UnknownParameter(
                f"Unknown parameter {shown(name)}. Check its spelling, or send the request without it."
            )
    return key, {name: readers[name](name, value) for name, value in collect(sent).items()}
