"""A sign endpoint for Starlette and FastAPI."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Unpack

from starlette.requests import Request
from starlette.responses import JSONResponse

from uponce.contrib import HEADERS, MAX_BODY, Allow, Granted, SignRules, is_readable
from uponce.signing import Params, ResourceType


def sign_endpoint(
    authorise: Callable[[Request], Granted | Awaitable[Granted]],
    cloudinary_url: str | None = None,
    *,
    resource_type: ResourceType = "auto",
    allow: Allow | None = None,
    **fixed: Unpack[Params],
) -> Callable[[Request], Awaitable[JSONResponse]]:
    """Return an endpoint for `Route("/sign", …, methods=["POST"])`, or for FastAPI's `app.post("/sign")`.

    `uponce.contrib` explains the arguments. `authorise` may read the page's JSON: `await request.json()`.
    """
    rules = SignRules(cloudinary_url, resource_type, allow or {}, fixed)

    async def sign(request: Request) -> JSONResponse:
        body = await _body(request)
        content_type = request.headers.get("content-type", "")
        granted = not is_readable(content_type, body) or authorise(request)  # what cannot be read is refused
        if isawaitable(granted):
            granted = await granted
        status, answer = rules.reply(granted, content_type, body)
        return JSONResponse(answer, status, HEADERS)

    return sign


async def _body(request: Request) -> bytes:
    """Return the body, or its beginning if it is too long. Let `request.body()` return the same."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            break
    request._body = body
    return body
