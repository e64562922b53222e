"""`uponce.sign`: sign one upload in any Python program, without a request to the server."""

import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Literal, TypedDict, Unpack
from uuid import UUID

from uponce.core.account import Account, read_account
from uponce.core.errors import InvalidParameter, SettingRefused, UponceError, shown
from uponce.core.signature import mint_fields, refuse_empty_limits

__all__ = ["Params", "ResourceType", "Signed", "UponceError", "account_of", "sign"]

Texts = str | Sequence[str] | Set[str]
ResourceType = Literal["auto", "image", "video", "raw"]
_NONCE_BYTES = 12


class Params(TypedDict, total=False):
    """The parameters of an upload. Sizes in bytes, times in seconds. Commas join lists and sorted sets."""

    public_id: str
    public_id_prefix: str
    folder: str
    use_filename: bool
    unique_filename: bool
    filename_override: str
    discard_original_filename: bool
    overwrite: bool
    type: Literal["upload", "private", "authenticated"]
    tags: Texts
    context: str | Mapping[str, str]
    allowed_formats: Texts
    max_bytes: int
    valid_for: int
    max_uses: int
    origin: Texts
    sha256: str
    nonce: str
    timestamp: int
    callback: str
    notification_url: str


class Signed(TypedDict):
    """Where to post an upload, and the fields to send before the file. As JSON it is what a page needs."""

    url: str
    fields: dict[str, str]


def sign(
    cloudinary_url: str | None = None, /, *, resource_type: ResourceType = "auto", **params: Unpack[Params]
) -> Signed:
    """Return the address and the signed fields of one upload.

    `cloudinary_url` is the line that the server printed on its first start; by default the environment variable
    CLOUDINARY_URL. Each call signs a new nonce, so each signature is different and works once.

    Raise SettingRefused if that line lacks a part. Raise a ParameterRefused for a parameter that the server would
    refuse, and for an empty limit, such as `origin=""`. None sets no limit. Both are an `uponce.UponceError`.
    """
    account = account_of(cloudinary_url)
    texts = {name: _text(name, value) for name, value in params.items() if value is not None}
    refuse_empty_limits(texts)
    fields = mint_fields(
        texts,
        api_key=account.api_key,
        secret=account.secret,
        now=time.time(),
        nonce=secrets.token_hex(_NONCE_BYTES),
    )
    return {"url": f"{account.base}/v1_1/{account.cloud}/{resource_type}/upload", "fields": fields}


def account_of(cloudinary_url: str | None = None) -> Account:
    """Return the parts of a CLOUDINARY_URL. Raise SettingRefused if a part is missing; the error shows no secret."""
    text = os.environ.get("CLOUDINARY_URL", "") if cloudinary_url is None else cloudinary_url
    with suppress(ValueError):
        account = read_account(text)
        if re.match(r"https?://[^/?#]", account.base):
            return account
    raise SettingRefused("CLOUDINARY_URL must read cloudinary://KEY:SECRET@CLOUD?upload_prefix=http://HOST:PORT.")


def _text(name: str, value: object) -> str:
    """Return the value as SDKs write it: booleans as 1 and 0, lists with commas, a context as escaped `k=v|k2=v2`.

    Raise InvalidParameter for a value of another type. Its text, such as `<generator object …>`, is never meant.
    """
    if isinstance(value, bool):
        return str(int(value))
    if name == "context" and isinstance(value, Mapping):
        return "|".join(f"{_escaped(_one(name, key))}={_escaped(_one(name, text))}" for key, text in value.items())
    if isinstance(value, Set):  # a set has another order in each process
        return _joined(name, sorted(_one(name, item) for item in value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return _joined(name, [_one(name, item) for item in value])
    return _one(name, value)


def _joined(name: str, items: Sequence[str]) -> str:
    """Raise InvalidParameter for a comma inside an item: it would make two of it, the second of a user's choice."""
    for item in items:
        if "," in item:
            raise InvalidParameter(
                f"Parameter {name} has the item '{shown(item)}', and commas separate items. Send it without a comma."
            )
    return ",".join(items)


def _one(name: str, value: object) -> str:
    if not isinstance(value, str | int | float | UUID):
        raise InvalidParameter(
            f"Parameter {name} has a value of type {type(value).__name__}. Pass text, an integer or a list of texts."
        )
    return str(value)


def _escaped(text: str) -> str:
    """Escape `=` and `|`. Raise InvalidParameter for a backslash at the end, which would escape the next sign."""
    if text.endswith("\\"):
        raise InvalidParameter("A name or a value in context ends with a backslash. Leave it out.")
    return text.replace("=", r"\=").replace("|", r"\|")
