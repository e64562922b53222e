"""A sign endpoint for Django."""

from collections.abc import Callable
from typing import Unpack

from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from uponce.contrib import HEADERS, MAX_BODY, Allow, Granted, SignRules
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

    `authorise` receives the request and returns True, False, or parameters to sign for this user. `fixed` parameters
    are signed for every upload. A page may choose only a nonce and what `allow` lists. Raise an UponceError at once
    for a CLOUDINARY_URL or a fixed parameter that is wrong.
    """
    rules = SignRules(cloudinary_url, resource_type, allow or {}, fixed)

    def sign(request: HttpRequest) -> HttpResponseBase:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        body = request.read(MAX_BODY + 1)
        status, answer = rules.reply(authorise(request), request.headers.get("content-type", ""), body)
        return JsonResponse(answer, status=status, headers=HEADERS)

    # A page needs no CSRF token: a form of another site cannot send JSON.
    view: Callable[[HttpRequest], HttpResponseBase] = csrf_exempt(sign)
    return view
