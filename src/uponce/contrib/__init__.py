"""Sign endpoints to paste into a backend: `uponce.contrib.starlette` (also FastAPI), `.django` and `.flask`.

They have one contract. A page posts `{"params": {…}}` as JSON and receives `{"url": …, "fields": {…}}`, or an error as
`{"error": {"code": …, "message": …}}`. Only JSON is accepted: a form of another site could otherwise use the cookies of
a user.

`authorise` receives the request and returns True, False, or parameters to sign for this user. It may read what the page
sent. For a body that is no such JSON, or larger than 16 KiB, `authorise` is not called, and the page receives an error.
`fixed` parameters are signed for every upload, unless `authorise` returns another value than None for them. A page may
choose only a nonce and what `allow` lists. `sign_endpoint` raises an UponceError at once for a CLOUDINARY_URL or a
fixed parameter that is wrong.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from uponce.core.errors import (
    FileTooLarge,
    InvalidParameter,
    MalformedRequest,
    ScopeDenied,
    SettingRefused,
    UnknownParameter,
    UponceError,
    shown,
)
from uponce.core.parameters import CONTEXT_BAR, tags
from uponce.core.signature import empty
from uponce.signing import Params, ResourceType, Signed, account_of, sign

MAX_BODY = 16 * 1024
HEADERS = {"Cache-Control": "no-store"}
Granted = bool | Mapping[str, Any]
Allow = Mapping[str, Collection[str]]


class SignReply(NamedTuple):
    """A status and a body for JSON."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SignRules:
    """The rules of an endpoint: `fixed` parameters for every upload, and those in `allow` that a page may ask for.

    `allow` has a list of values for each parameter that a page may choose. A value that ends with `*` allows every
    value with that beginning. Each tag and each entry of a context must be allowed. A page may always send a `nonce`.
    """

    cloudinary_url: str | None
    resource_type: ResourceType
    allow: Allow
    fixed: Params

    def __post_init__(self) -> None:
        """Raise for a wrong setting or parameter when the program starts, not at the first upload."""
        account_of(self.cloudinary_url)
        for name, values in self.allow.items():
            if isinstance(values, str) or name not in Params.__annotations__:
                raise SettingRefused(
                    f"allow={{'{name}': …}}: name a parameter of uponce.sign, and a list of its values."
                )
        self._sign({}, self.fixed)

    def reply(self, granted: Granted, content_type: str, body: bytes) -> SignReply:
        """Return the answer for the page. `granted` is what `authorise` returned."""
        try:
            return SignReply(200, self._signed(granted, content_type, body))
        except UponceError as error:
            status = 403 if isinstance(error, ScopeDenied) else 400
            return SignReply(status, {"error": {"code": error.code, "message": error.message}})

    def _signed(self, granted: Granted, content_type: str, body: bytes) -> Signed:
        if granted is False or not (granted is True or isinstance(granted, Mapping)):
            raise ScopeDenied("You are not allowed to upload here. Sign in, or ask the owner of this site.")
        asked, size = _read(content_type, body)
        own = {} if granted is True else granted
        # None for a user is no value, so it removes no fixed limit.
        kept = {name: value for name, value in self.fixed.items() if own.get(name) is None}
        chosen = {**own, **kept}
        for name, value in asked.items():
            self._check(name, value, chosen)
        limit = chosen.get("max_bytes")
        if isinstance(limit, int) and size > limit:
            raise FileTooLarge(f"File size too large. Got {size}. Maximum is {limit}.")
        return self._sign(asked, chosen)

    def _sign(self, asked: Mapping[str, str], chosen: Mapping[str, Any]) -> Signed:
        folder = chosen.get("folder")
        by_filename = "unique_filename" in self.allow or str(chosen.get("unique_filename", 1)).lower() in ("0", "false")
        if ("public_id" in self.allow or by_filename) and isinstance(folder, str) and not folder.strip("/"):
            raise empty("folder")  # the page could name any asset of the cloud
        params = cast(Params, {**asked, **chosen})
        return sign(self.cloudinary_url, resource_type=self.resource_type, **params)

    def _check(self, name: str, value: str, chosen: Mapping[str, Any]) -> None:
        if name in chosen:
            raise InvalidParameter(f"This site sets parameter {shown(name)}. Ask without it.")
        if name == "nonce":
            return
        values = self.allow.get(name)
        if values is None:
            allowed = ", ".join(["nonce", *self.allow])
            raise UnknownParameter(f"Parameter {shown(name)} cannot be chosen here. Ask only for: {allowed}.")
        for part in () if value in values else _parts(name, value):
            if not any(_fits(part, pattern) for pattern in values):
                raise InvalidParameter(
                    f"Parameter {name} cannot be '{shown(part)}' here. Choose one of: {', '.join(values)}."
                )


def _parts(name: str, value: str) -> Sequence[str]:
    """Return what must fit `allow`: each tag, each entry of a context, or the whole value of another parameter."""
    if name == "tags":
        return tags(name, value) or [value]
    if name == "context":
        return [entry for entry in CONTEXT_BAR.split(value) if entry] or [value]
    return [value]


def _fits(value: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return len(value) >= len(pattern) and value.startswith(pattern[:-1])
    return value == pattern


def is_readable(content_type: str, body: bytes) -> bool:
    """Return whether the rules can read the body. They refuse any other one, so nothing need be authorised for it."""
    try:
        _read(content_type, body)
    except UponceError:
        return False
    return True


def _read(content_type: str, body: bytes) -> tuple[dict[str, str], int]:
    """Return the parameters that a page asks for, and the size of its file if it says so."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise MalformedRequest("Send JSON with the header Content-Type: application/json.")
    if len(body) > MAX_BODY:
        raise MalformedRequest(f"The request is larger than {MAX_BODY} bytes. Send fewer or shorter parameters.")
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        read = None
    params = read.get("params", {}) if isinstance(read, dict) else None
    if not isinstance(params, dict):
        raise MalformedRequest('The request is not JSON like {"params": {"folder": "cats"}}.')
    for name, value in params.items():
        if not isinstance(value, str):
            raise InvalidParameter(f"Parameter {shown(name)} must be text.")
    file = read.get("file")
    size = file.get("size") if isinstance(file, dict) else None
    return params, size if isinstance(size, int) else 0
