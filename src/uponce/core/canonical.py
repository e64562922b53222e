"""Which parameters are signed, in what order, with which escapes: the exact bytes behind a signature.

The rules are those of Cloudinary's SDKs (`api_sign_request`), applied to the strings *as received*:

1. the parameters that are never signed are omitted (UNSIGNED in parameters.py);
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
from uponce.core.parameters import PARAMETERS, UNSIGNED, unknown

_SURROGATES = re.compile("[\ud800-\udfff]")


def collect(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one value per name of fields in order of arrival. This one object is both verified and used.

    Raise DuplicateParameter if a scalar was sent twice: also as `name` beside `name[]`, also in the query and in the
    body. Raise InvalidParameter for a lone surrogate, which no SDK could have signed.
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


def collect_known(fields: Iterable[tuple[str, str]], *more: str) -> dict[str, str]:
    """Return what `collect` returns. Raise UnknownParameter for an unknown name with an empty value.

    `more` are names that this call alone knows.
    """
    fields = tuple(fields)
    params = collect(fields)
    for sent_name, value in fields:
        name = sent_name.removesuffix("[]")
        if value == "" and name not in PARAMETERS and name not in more:
            raise unknown(name)
    return params


def string_to_sign(params: Mapping[str, str], *, version: int = 2) -> str:
    """Return the canonical text of collected parameters, without the secret."""
    pairs = [f"{name}={value}" for name, value in params.items() if name not in UNSIGNED and value != ""]
    if version == 2:
        pairs = [pair.replace("&", "%26") for pair in pairs]
    return "&".join(sorted(pairs))


def refuse_ambiguous_escapes(params: Mapping[str, str]) -> None:
    """Raise InvalidParameter for `%26`: version 2 escapes `&` but not `%`, so `x&y` and `x%26y` sign alike."""
    for name, value in params.items():
        if name not in UNSIGNED and "%26" in f"{name}={value}":
            raise InvalidParameter(f"Parameter {name} contains %26, which signs like &. Send the & itself.")
