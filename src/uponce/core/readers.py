"""How the text of one parameter becomes a value. Each reader raises an error that names the parameter and the cure."""

import re
from enum import StrEnum
from typing import TypeVar

from uponce.core.errors import InvalidParameter, UnsupportedParameter
from uponce.core.formats import canonical_format
from uponce.core.freshness import parse_timestamp
from uponce.core.naming import check_public_id

E = TypeVar("E", bound=StrEnum)

MAX_TAGS = 1000
MAX_TAG_LENGTH = 255
MAX_CONTEXT_LENGTH = 1024

MAX_URL_LENGTH = 2048

# No user info, no fragment, and nothing that two parsers could read differently.
_URL = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?([/?][!-~]*)?", re.ASCII | re.IGNORECASE)
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def shown(text: str) -> str:
    """Return text of a client as a message may repeat it: printable and short."""
    return "".join(c if c.isprintable() else "?" for c in text[:100])


def text(name: str, value: str, *, limit: int) -> str:
    if len(value) > limit:
        raise InvalidParameter(f"Parameter {name} has {len(value)} characters, the limit is {limit}. Shorten it.")
    return value


def timestamp(_: str, value: str) -> int:
    return parse_timestamp(value)


def boolean(name: str, value: str) -> bool:
    if value not in _BOOLEANS:
        raise InvalidParameter(f"Parameter {name} must be 1, 0, true or false, not '{shown(value)}'.")
    return _BOOLEANS[value]


def off(name: str, value: str) -> None:
    """Accept the switch of a missing feature while it is off: both have the same result."""
    if _BOOLEANS.get(value, True):
        raise UnsupportedParameter(
            f"Parameter {name} is not supported by this server yet, except switched off. Sign without it."
        )


def public_access(name: str, value: str) -> None:
    """Accept `public`, and JavaScript's word `undefined`, which some clients send and Cloudinary ignores."""
    if value not in ("public", "undefined"):
        raise UnsupportedParameter(
            f"Parameter {name}={shown(value)} is not supported by this server yet, except {name}=public. "
            "Sign type=authenticated for an asset that needs a signed delivery URL."
        )


def positive(name: str, value: str, *, limit: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value) or not 1 <= int(value) <= limit:
        raise InvalidParameter(f"Parameter {name} must be a whole number from 1 to {limit}, not '{shown(value)}'.")
    return int(value)


def url(name: str, value: str) -> str:
    if len(value) > MAX_URL_LENGTH or not _URL.fullmatch(value) or "\\" in value or "#" in value:
        raise InvalidParameter(
            f"Parameter {name} must be one http or https URL of at most {MAX_URL_LENGTH} ASCII characters, without a "
            f"user name and without #, not '{shown(value)}'."
        )
    return value


def public_id(name: str, value: str) -> str:
    return check_public_id(value, parameter=name)


def folder(name: str, value: str) -> str | None:
    """Return the folder without slashes around it. None for `/`, which is no folder."""
    bare = value.strip("/")
    return None if value and not bare else check_public_id(bare, parameter=name, is_folder=True)


def choice(name: str, value: str, *, choices: type[E], also: tuple[str, ...] = ()) -> E:
    """Return the choice of this text. The error also names the words that the caller reads itself."""
    try:
        return choices(value)
    except ValueError:
        *first, last = [*map(str, choices), *also]
        raise InvalidParameter(
            f"Parameter {name} must be {', '.join(first)} or {last}, not '{shown(value)}'."
        ) from None


def _list(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.strip() for item in value.split(",") if item.strip()))


def tags(name: str, value: str) -> tuple[str, ...]:
    found = _list(value)
    if len(found) > MAX_TAGS:
        raise InvalidParameter(f"Parameter {name} has {len(found)} tags, the limit is {MAX_TAGS}. Send fewer tags.")
    longest = max((len(tag) for tag in found), default=0)
    if longest > MAX_TAG_LENGTH:
        raise InvalidParameter(f"A tag has {longest} characters, the limit is {MAX_TAG_LENGTH}. Shorten it.")
    return found


def context(name: str, value: str) -> tuple[tuple[str, str], ...]:
    """Read `k=v|k2=v2`. A backslash escapes `=` and `|`; elsewhere it is a backslash, as SDKs send it."""
    text(name, value, limit=MAX_CONTEXT_LENGTH)
    pairs: dict[str, str] = {}
    for pair in filter(None, re.split(r"(?<!\\)\|", value)):
        key, *rest = re.split(r"(?<!\\)=", pair, maxsplit=1)
        if not key or not rest:
            raise InvalidParameter(f"Parameter {name} must read key=value|key2=value2, not '{shown(pair)}'.")
        pairs[_unescaped(key)] = _unescaped(rest[0])
    return tuple(pairs.items())


def _unescaped(value: str) -> str:
    return re.sub(r"\\([=|])", r"\1", value)


def formats(name: str, value: str) -> frozenset[str]:
    items = _list(value)
    for item in items:
        if "/" in item or item.startswith("."):
            raise InvalidParameter(
                f"'{shown(item)}' in parameter {name} is no format. Write an extension without a dot, such as gif."
            )
    found = frozenset(map(canonical_format, items))
    if not found:
        raise InvalidParameter(f"Parameter {name} names no format. Sign {name}=jpg,png, or sign without it.")
    return found


def sha256(name: str, value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise InvalidParameter(
            f"Parameter {name} must be 64 lower-case hex digits, not '{shown(value)}'. Sign the SHA-256 of the file."
        )
    return value


def origins(name: str, value: str) -> tuple[str, ...]:
    found = _list(value)
    if not found:
        raise InvalidParameter(
            f"Parameter {name} names no origin. Sign {name}=https://app.example, or sign without it."
        )
    for origin in found:
        if not re.fullmatch(r"https?://[^/?#\s]+", origin):
            raise InvalidParameter(
                f"Parameter {name} must be a web origin like https://app.example, not '{shown(origin)}'."
            )
    return found
