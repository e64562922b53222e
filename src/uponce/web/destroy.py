"""POST of a deletion: signed fields, or HTTP Basic in place of a signature."""

from uponce.app.authenticate import authenticate
from uponce.app.destroy import DestroyRequest, destroy, destroy_as
from uponce.app.services import Services
from uponce.core.canonical import collect_known
from uponce.core.values import ResourceType
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.calls import missing
from uponce.web.dialect import destroy_answer
from uponce.web.forms import parse_query
from uponce.web.request import Head, read_head
from uponce.web.request_log import note_event, note_fields
from uponce.web.respond import Answer, answer_json
from uponce.web.small import basic_credentials, body_fields

METHODS = ("POST",)


class DestroyEndpoint:
    """`/v1_1/<cloud>/<image|video|raw>/destroy`"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work(body: Body) -> Answer:
            deleted = await self._destroy(scope, body)
            note_event(scope, "deleted" if deleted else "absent")
            return Answer(destroy_answer(deleted))

        await answer_json(scope, receive, send, self._services.limits.idle_seconds, work)

    async def _destroy(self, scope: Scope, body: Body) -> bool:
        head, resource_type = read_head(scope), _resource_type(scope)
        limits = self._services.limits
        fields = collect_known([*parse_query(scope["query_string"], limits), *await body_fields(head, body, limits)])
        note_fields(scope, fields.items())
        request = DestroyRequest(
            cloud=scope["path_params"]["cloud"],
            resource_type=resource_type,
            fields=fields,
            caller=head.caller,
        )
        # A browser adds credentials that it remembers to the forms of any site, so they do not count from a page.
        if "signature" in fields or not head.get("authorization") or head.origin is not None:
            return await destroy(self._services, request)
        return await self._destroy_as(head, request)

    async def _destroy_as(self, head: Head, request: DestroyRequest) -> bool:
        key = await authenticate(self._services, request.cloud, *basic_credentials(head.get("authorization")))
        return await destroy_as(self._services, key, request)


def _resource_type(scope: Scope) -> ResourceType:
    try:
        return ResourceType(scope["path_params"]["resource_type"])
    except ValueError:
        raise missing(scope["method"], scope["path"]) from None
