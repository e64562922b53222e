"""Deletion of an asset, by signed fields, or by HTTP Basic in place of a signature."""

from uponce.app import destroy as deletion
from uponce.app.authenticate import authenticate
from uponce.app.services import Services
from uponce.core.canonical import collect_known
from uponce.core.values import ResourceType
from uponce.web.cloudinary.answers import destroy_answer
from uponce.web.cloudinary.calls import missing
from uponce.web.cloudinary.forms import body_fields
from uponce.web.cloudinary.headers import basic_credentials
from uponce.web.request import Request
from uponce.web.request_log import note_event, note_fields
from uponce.web.response import Response, json_response


async def destroy(services: Services, request: Request) -> Response:
    """Delete the asset that `/v1_1/<cloud>/<image|video|raw>/destroy` names in its fields."""
    head, resource_type, limits = request.head, _resource_type(request), services.limits
    fields = collect_known([*request.query(limits), *await body_fields(request, limits)])
    note_fields(request, fields.items())
    wanted = deletion.DestroyRequest(request.params["cloud"], resource_type, fields, request.caller)
    # A browser adds credentials that it remembers to the forms of any site, so they do not count from a page.
    if "signature" in fields or not head.get("authorization") or head.origin is not None:
        deleted = await deletion.destroy(services, wanted)
    else:
        key = await authenticate(services, wanted.cloud, *basic_credentials(head.get("authorization")))
        deleted = await deletion.destroy_as(services, key, wanted)
    note_event(request, "deleted" if deleted else "absent")
    return json_response(destroy_answer(deleted))


def _resource_type(request: Request) -> ResourceType:
    try:
        return ResourceType(request.params["resource_type"])
    except ValueError:
        raise missing(request.method, request.path) from None
