"""Small requests with fields and no file: as a form of either kind, or as flat JSON."""

import asyncio
import base64
from contextlib import aclosing

from uponce.app.uploading.intake import Field
from uponce.core.errors import BadCredentials, InvalidParameter, MalformedRequest, RequestTooSlow
from uponce.core.policy import Limits
from uponce.web.body import Body
from uponce.web.forms import multipart_events, parse_query
from uponce.web.request import Head
from uponce.web.text_bodies import json_pairs

_MAX_BODY = 256 * 1024
_SECONDS = 60


async def body_fields(head: Head, body: Body, limits: Limits) -> tuple[tuple[str, str], ...]:
    """Return the fields in order of arrival. RequestTooSlow when they take more than a minute."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await _body_fields(head, body, limits)
    except TimeoutError:
        raise RequestTooSlow(f"The request took longer than {_SECONDS} seconds. Send it again.") from None


async def _body_fields(head: Head, body: Body, limits: Limits) -> tuple[tuple[str, str], ...]:
    content_type = head.get("content-type")
    media_type = media_type_of(content_type)
    if media_type == "multipart/form-data":
        return await _form_fields(body, content_type, limits)
    data = await body.read(_MAX_BODY)
    if not data:
        return ()
    if media_type == "application/x-www-form-urlencoded":
        return parse_query(data, limits)
    if media_type != "application/json":
        raise MalformedRequest(
            "Send the fields as multipart/form-data, application/x-www-form-urlencoded or application/json."
        )
    return json_pairs(data, limits)


async def _form_fields(body: Body, content_type: str, limits: Limits) -> tuple[tuple[str, str], ...]:
    fields: list[tuple[str, str]] = []
    async with aclosing(multipart_events(body, content_type, limits)) as events:
        async for event in events:
            if not isinstance(event, Field):
                raise InvalidParameter("Parameter file is for uploads only. Send this request without it.")
            fields.append((event.name, event.value))
    return tuple(fields)


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Return API key and secret. BadCredentials when the header has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # not base64, not ASCII, not UTF-8
        user = colon = password = ""
    if scheme.lower() != "basic" or not colon:
        raise BadCredentials("Send the API key and its secret of this cloud as HTTP Basic credentials.")
    return user, password
