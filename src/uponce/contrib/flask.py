"""A sign endpoint for Flask."""

from collections.abc import Callable
from io import BytesIO
from typing import Unpack

from flask import Request, Response, jsonify, request

from uponce.contrib import HEADERS, MAX_BODY, Allow, Granted, SignRules, is_readable
from uponce.signing import Params, ResourceType


def sign_endpoint(
    authorise: Callable[[Request], Granted],
    cloudinary_url: str | None = None,
    *,
    resource_type: ResourceType = "auto",
    allow: Allow | None = None,
    **fixed: Unpack[Params],
) -> Callable[[], Response]:
    """Return a view for `app.post("/sign")(…)`.

    `uponce.contrib` explains the arguments. `authorise` may read the page's JSON: `request.get_json()`.
    """
    rules = SignRules(cloudinary_url, resource_type, allow or {}, fixed)

    def sign() -> Response:
        request.stream = BytesIO(request.stream.read(MAX_BODY + 1))
        body = request.get_data()  # stays in the request, too
        content_type = request.content_type or ""
        granted = not is_readable(content_type, body) or authorise(request)  # what cannot be read is refused
        status, answer = rules.reply(granted, content_type, body)
        response = jsonify(answer)
        response.status_code = status
        response.headers.update(HEADERS)
        return response

    return sign
