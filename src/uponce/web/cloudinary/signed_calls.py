"""Calls that change an asset, by signed fields, or by HTTP Basic instead of a signature."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from uponce.app.services import Services
from uponce.app.sign import sign_for
from uponce.app.signed_calls import SignedCall, destroy
from uponce.core.parameters import Call
from uponce.core.signature import collect_known
from uponce.core.values import ResourceType
from uponce.web.cloudinary.answers import destroy_answer
from uponce.web.cloudinary.calls import known
from uponce.web.cloudinary.forms import body_fields
from uponce.web.request import Request
from uponce.web.response import Response, json_response

Act: TypeAlias = Callable[[Services, Request, SignedCall], Awaitable[Response]]


async def signed_call(call: Call, services: Services, request: Request) -> Response:
    """Do what the fields of `/v1_1/<cloud>/<image|video|raw>/<call>` ask for, and return the answer."""
    resource_type, limits = known(request, "resource_type", ResourceType), services.limits
    fields = collect_known([*request.query(limits), *await body_fields(request, limits)])
    request.note_fields(fields.items())
    cloud = request.params["cloud"]
    if "signature" not in fields and (credentials := request.head.added_credentials()):
        fields = await sign_for(services, cloud, resource_type, credentials, fields, call)
    act, _ = CALLS[call]
    return await act(services, request, SignedCall(cloud, resource_type, fields, request.caller))


async def _destroy(services: Services, request: Request, wanted: SignedCall) -> Response:
    deleted = await destroy(services, wanted)
    request.facts["event"] = "deleted" if deleted else "absent"
    return json_response(destroy_answer(deleted))


# The function and the purpose of each call.
CALLS: dict[Call, tuple[Act, str]] = {Call.DESTROY: (_destroy, "This address deletes an asset.")}
