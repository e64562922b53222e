"""A sign endpoint for Django."""

from collections.abc import Callable
from typing import Unpack, cast

from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from uponce.contrib import HEADERS, MAX_BODY, Allow, Granted, SignRules, is_readable
from uponce.signing import Params, ResourceType


def sign_endpoint(
    authorise: Callable[[HttpRequest], Granted],
    cloudinary_url: str | None = None,
    *,
    resource_type: ResourceType = "auto",
    allow: Allow | None = None,
    **fixed: Unpack[Params],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Return a view for `path("sign", …)`.

    `uponce.contrib` explains the arguments. `authorise` may read the page's JSON: `json.loads(request.body)`.
    """
    rules = SignRules(cloudinary_url, resource_type, allow or {}, fixed)

    def sign(request: HttpRequest) -> HttpResponseBase:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        body = _body(request)
        content_type = request.headers.get("content-type", "")
        granted = not is_readable(content_type, body) or authorise(request)  # what cannot be read is refused
        status, answer = rules.reply(granted, content_type, body)
        return JsonResponse(answer, status=status, headers=HEADERS)

    # A page needs no CSRF token: a form of another site cannot send JSON.
    view: Callable[[HttpRequest], HttpResponseBase] = csrf_exempt(sign)
    return view


def _body(request: HttpRequest) -> bytes:
    """Return the body, or its beginning if it is too long. Let `request.body` return the same.

    `request.body` itself would read a long body into memory if the site has no DATA_UPLOAD_MAX_MEMORY_SIZE.
    """
    if not hasattr(request, "_body"):  # otherwise a middleware has read it
        request._body = request.read(MAX_BODY + 1)
    return cast(bytes, request.body)
