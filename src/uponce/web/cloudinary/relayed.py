"""Calls of a cloud that has an upstream. The upstream answers every call except uploads."""

import re
from collections.abc import Mapping
from dataclasses import replace

from uponce.app.authenticate import authenticate_for_all
from uponce.app.ports import AdminCall
from uponce.app.relaying.calls import act_signed, ask
from uponce.app.services import Services
from uponce.core.errors import MalformedRequest, ParameterRefused, UnsupportedCall, shown
from uponce.core.policy import Limits
from uponce.core.signature import collect
from uponce.core.values import Upstream
from uponce.web.cloudinary.calls import missing, refuse_method
from uponce.web.cloudinary.forms import body_fields, small_body
from uponce.web.request import Fields, Request
from uponce.web.response import Endpoint, Response, forwarded_response

_MOST_FIELDS = 1100  # the account takes 1,000 ids in one call, and this is not the limit of uploads
METHODS = ("GET", "POST", "PUT", "DELETE")
_UPLOAD_ELSEWHERE = re.compile(
    "/v1_1/[^/]+/(((image|video|raw|auto)/)?upload(_chunked)?/|(image|video|raw|auto)/(private|authenticated))"
)


async def relayed(services: Services, own: Mapping[str, Endpoint], purpose: str, request: Request) -> Response:
    """Return the answer of the cloud's upstream, or of the `own` endpoint of the method if the cloud has no upstream.

    `purpose` is the sentence for a client that uses another method.
    """
    if _UPLOAD_ELSEWHERE.fullmatch(request.path):  # its file would be refused as one too many
        raise missing(request.method, request.path)
    cloud = request.params["cloud"]
    upstream = (await services.database.list_upstreams(cloud)).get(cloud)
    if upstream is not None:
        if request.method not in METHODS:
            return refuse_method(request, purpose, METHODS)
        return await _pass_on(services, upstream, request)
    if endpoint := own.get(request.method):
        return await endpoint(request)
    if not own:
        raise missing(request.method, request.path)
    return refuse_method(request, purpose, tuple(own))


def _has_basic(request: Request) -> bool:
    """Return whether HTTP Basic authenticates the request. A proxy may add another scheme to a signed call."""
    return request.head.get("authorization").lower().startswith("basic ")


def _refuse_call_of_browser(request: Request, path: str, query: Fields) -> None:
    """Raise UnsupportedCall for a call that needs no HTTP Basic: by a token, or by a link with a signature."""
    is_link = request.method == "GET" and any(name == "signature" for name, _ in query)
    if is_link or f"/{path}".endswith("/delete_by_token"):
        raise UnsupportedCall(
            f"uponce does not pass {request.method} {shown(path)} on to the account of this cloud. Make this call at "
            "the account itself. If the call has a signature, sign it with the API key of the account."
        )


async def _signed_fields(request: Request, query: Fields, limits: Limits) -> Fields | None:
    """Return the fields of a POST that a signature authenticates. Return None if HTTP Basic authenticates the call.

    SDKs of PHP and .NET send HTTP Basic also with a signature. The signature is that of uponce's key, so the upstream
    would refuse it.
    """
    try:
        sent = (*query, *await body_fields(request, limits))
    except (MalformedRequest, ParameterRefused):
        if not _has_basic(request):
            raise
        return None  # no SDK signs such a body, and the upstream reads it
    has_signature = any(value and name.removesuffix("[]") == "signature" for name, value in sent)
    return sent if has_signature or not _has_basic(request) else None


async def _pass_on(services: Services, upstream: Upstream, request: Request) -> Response:
    cloud = request.params["cloud"]
    limits = replace(services.limits, max_fields=max(services.limits.max_fields, _MOST_FIELDS))
    path, query = request.path.split("/", 3)[3], request.query(limits)
    has_basic = _has_basic(request)
    if not has_basic:
        _refuse_call_of_browser(request, path, query)
    body = await small_body(request) if has_basic else b""
    sent = await _signed_fields(request, query, limits) if request.method == "POST" else None
    if sent is not None:
        request.note_fields(collect(sent).items())
        answer = await act_signed(services, upstream, cloud, path, sent, request.caller)
    else:
        await authenticate_for_all(services, cloud, *request.head.server_credentials())
        asked = AdminCall(request.method, query, request.head.get("content-type"), body)
        answer = await ask(services, upstream, path, asked)
    if request.method != "GET":
        request.facts["event"] = "passed on"
    return forwarded_response(answer.status, answer.body, answer.headers)
