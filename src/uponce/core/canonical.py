"""Which parameters are signed, in what order, with which escapes: the exact bytes behind a signature.

The rules are those of Cloudinary's SDKs (`api_sign_request`), applied to the strings *as received*:

1. `file`, `cloud_name`, `resource_type`, `api_key` and `signature` are omitted. So are options that only mean something
   inside an SDK: npm's SDK sends every option of a presigned upload as a field, and some mobile clients send the header
   `X-Unique-Upload-Id` as a field too. These fields have no effect;
2. `name[]`, repeated, becomes `name` with its values joined by `,` in order of arrival;
3. empty values are left out: posting an empty parameter means not posting it;
4. version 2 replaces `&` by `%26` in each `name=value`; version 1 does not, so that in version 1 one value can
   pose as several parameters (CVE-2025-12613);
5. the `name=value` strings are sorted and joined with `&`.

The SDKs sort `name=value` strings (Python, npm 2.1) or names (npm ≥ 2.7). The two agree for all parameter names
that exist, since none is another's prefix followed by a character below `=`.
"""

import re
from collections.abc import Iterable, Mapping

from uponce.core.errors import DuplicateParameter, InvalidParameter

_SURROGATES = re.compile("[\ud800-\udfff]")

SDK_OPTIONS = frozenset({"stream", "chunk_size", "timeout", "x_unique_upload_id"})
UNSIGNED = frozenset({"file", "cloud_name", "resource_type", "api_key", "signature"}) | SDK_OPTIONS


def collect(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fields in order of arrival → one value per name. What is verified and what is used are this one object.

    Raises DuplicateParameter when a scalar stands twice, also as `name` beside `name[]`; in the query and in
    the body counts as twice. InvalidParameter for lone surrogates, which no SDK could have signed.
    """
    params: dict[str, str] = {}
    arrays: set[str] = set()
    for sent_name, value in fields:
        if _SURROGATES.search(sent_name + value):
            raise InvalidParameter("A parameter contains a lone surrogate, which is not a character. Send valid UTF-8.")
        is_array = sent_name.endswith("[]")
        name = sent_name[:-2] if is_array else sent_name
        if is_array and name in arrays:
            params[name] += "," + value
            continue
        if name in params:
            raise DuplicateParameter(f"Parameter {name} was sent more than once. Send it once.")
        params[name] = value
        if is_array:
            arrays.add(name)
    return {name: value for name, value in params.items() if value != ""}


def string_to_sign(params: Mapping[str, str], *, version: int = 2) -> str:
    """The canonical text of collected parameters, without the secret."""
    pairs = [f"{name}={value}" for name, value in params.items() if name not in UNSIGNED and value != ""]
    if version == 2:
        pairs = [pair.replace("&", "%26") for pair in pairs]
    return "&".join(sorted(pairs))


def refuse_ambiguous_escapes(params: Mapping[str, str]) -> None:
    """Version 2 escapes `&` but not `%`, so `x&y` and `x%26y` sign alike; the second spelling is refused."""
    for name, value in params.items():
        if name not in UNSIGNED and "%26" in f"{name}={value}":
            raise InvalidParameter(f"Parameter {name} contains %26, which signs like &. Send the & itself.")
