"""Calls of a cloud that has an upstream: the upstream answers all that is no upload."""

from uponce.app.authenticate import authenticate_for_all
from uponce.app.relaying.calls import act, act_signed, read
from uponce.app.services import Services
from uponce.core.canonical import collect
from uponce.core.values import Upstream
from uponce.web.cloudinary.calls import missing
from uponce.web.cloudinary.forms import body_fields
from uponce.web.cloudinary.headers import server_credentials
from uponce.web.request import Request
from uponce.web.request_log import note_event, note_fields
from uponce.web.response import Response, forwarded_response
from uponce.web.routing import Endpoint

METHODS = ("GET", "POST", "PUT", "DELETE")


async def relayed(services: Services, endpoint: Endpoint, request: Request) -> Response:
    """Let the upstream of the cloud answer, and the endpoint if there is none."""
    upstream = (await services.database.list_upstreams()).get(request.params["cloud"])
    return await endpoint(request) if upstream is None else await _pass_on(services, upstream, request)


async def unknown_call(request: Request) -> Response:
    """Refuse a call that uponce lacks by its name."""
    raise missing(request.method, request.path)


async def _pass_on(services: Services, upstream: Upstream, request: Request) -> Response:
    cloud, limits = request.params["cloud"], services.limits
    path = request.path.split("/", 3)[3]
    fields = request.query(limits)
    if request.method == "GET":
        await authenticate_for_all(services, cloud, *server_credentials(request.head))
        answer = await read(services, upstream, path, dict(fields))
    elif request.method != "POST":
        raise missing(request.method, request.path)
    else:
        params = collect([*fields, *await body_fields(request, limits)])
        note_fields(request, params.items())
        if "signature" in params:
            answer = await act_signed(services, upstream, cloud, path, params)
        else:
            await authenticate_for_all(services, cloud, *server_credentials(request.head))
            answer = await act(services, upstream, path, params)
        note_event(request, "passed on")
    return forwarded_response(answer.status, answer.body, answer.headers)
