"""The signed parameters: which exist, how each value is read, what each becomes.

A parameter is supported (for an upload `SUPPORTED`, for a deletion `OF_DESTROY`), known to Cloudinary but not supported
yet (`UNSUPPORTED`), or unknown. The last two are refused by name: nothing is ignored. A switch of a missing feature
(`SWITCHES`) is accepted while it is off, because an absent feature and a feature switched off have the same result.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from uponce.core.canonical import UNSIGNED, collect
from uponce.core.errors import InvalidParameter, UnknownParameter, UnsupportedParameter
from uponce.core.formats import canonical_format
from uponce.core.naming import Naming, check_public_id
from uponce.core.values import DeliveryType, ResourceType

MAX_TAGS = 1000
MAX_TAG_LENGTH = 255
MAX_CONTEXT_LENGTH = 1024
MAX_NONCE_LENGTH = 255
MAX_SOURCE_LENGTH = 255
MAX_CALLBACK_LENGTH = 2048
MAX_USES = 1_000_000

SWITCHES = frozenset(
    """
    accessibility_analysis async auto_chaptering auto_transcription backup cinemagraph_analysis colors exif faces
    image_metadata media_metadata phash quality_analysis return_delete_token unique_display_name
    use_filename_as_display_name visual_search
    """.split()
)

UNSUPPORTED = frozenset(
    """
    access_control asset_folder auto_tagging background_removal batch_id categorization custom_coordinates
    detection display_name eager eager_notification_url eval face_coordinates format headers manifest_json
    manifest_transformation metadata moderation notification_url ocr on_success proxy quality_override raw_convert
    regions responsive_breakpoints similarity_search template template_vars transformation upload_preset
    """.split()
)


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What the signed parameters ask for. None means: not asked. Sizes in bytes, times in seconds."""

    naming: Naming = field(default_factory=Naming)
    discard_original_filename: bool = False
    overwrite: bool = True
    type: DeliveryType = DeliveryType.UPLOAD
    tags: tuple[str, ...] = ()
    context: tuple[tuple[str, str], ...] = ()
    allowed_formats: frozenset[str] | None = None
    max_bytes: int | None = None
    sha256: str | None = None
    origin: tuple[str, ...] | None = None
    valid_for: int | None = None
    max_uses: int | None = None
    callback: str | None = None


def read_parameters(params: Mapping[str, str], names: Collection[str] | None = None) -> UploadSpec:
    """Collected parameters → UploadSpec, or an error that names the parameter, the value and the cure.

    `names` are those that the call knows; by default an upload's.
    """
    _refuse_foreign(params, SUPPORTED if names is None else names)
    values: dict[str, Any] = {name: read(name, params[name]) for name, read in _READERS.items() if name in params}
    naming = Naming(**{name: values.pop(name) for name in _NAMING if name in values})
    for name in _ACCEPTED_ONLY:
        values.pop(name, None)
    return UploadSpec(naming=naming, **values)


def collect_known(fields: Iterable[tuple[str, str]], *more: str) -> dict[str, str]:
    """`collect`, but UnknownParameter for an unknown name with an empty value, which nothing after this would see.

    `more` are names that this call alone knows.
    """
    fields = tuple(fields)
    params = collect(fields)
    for sent_name, value in fields:
        name = sent_name.removesuffix("[]")
        if value == "" and name not in KNOWN and name not in more:
            raise _unknown(name)
    return params


def _refuse_foreign(params: Mapping[str, str], names: Collection[str]) -> None:
    for name in params:
        if name in names or name in UNSIGNED:
            continue
        if name in UNSUPPORTED or name in SWITCHES:
            raise UnsupportedParameter(f"Parameter {name} is not supported by this server yet. Sign without it.")
        raise _unknown(name)


def _unknown(name: str) -> UnknownParameter:
    return UnknownParameter(f"Unknown parameter {shown(name)}. Check its spelling, or sign without it.")


def shown(text: str) -> str:
    """What a client sent, as a message may repeat it."""
    return "".join(c if c.isprintable() else "?" for c in text[:100])


def _text(name: str, value: str, *, limit: int) -> str:
    if len(value) > limit:
        raise InvalidParameter(f"Parameter {name} has {len(value)} characters, the limit is {limit}. Shorten it.")
    return value


_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def _boolean(name: str, value: str) -> bool:
    if value not in _BOOLEANS:
        raise InvalidParameter(f"Parameter {name} must be 1, 0, true or false, not '{shown(value)}'.")
    return _BOOLEANS[value]


def _off(name: str, value: str) -> None:
    """A switch of a feature that is missing here."""
    if _BOOLEANS.get(value, True):
        raise UnsupportedParameter(
            f"Parameter {name} is not supported by this server yet, except switched off. Sign without it."
        )


def _public_access(name: str, value: str) -> None:
    """Some clients send JavaScript's word `undefined`; Cloudinary ignores it."""
    if value not in ("public", "undefined"):
        raise UnsupportedParameter(
            f"Parameter access_mode={shown(value)} is not supported by this server yet, except access_mode=public. "
            "Sign type=authenticated for an asset that needs a signed delivery URL."
        )


def _positive(name: str, value: str, *, limit: int) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value) or not 1 <= int(value) <= limit:
        raise InvalidParameter(f"Parameter {name} must be a whole number from 1 to {limit}, not '{shown(value)}'.")
    return int(value)


def _public_id(name: str, value: str) -> str:
    return check_public_id(value, parameter=name)


def _folder(name: str, value: str) -> str:
    return check_public_id(value.strip("/"), parameter=name, is_folder=True)


def _type(name: str, value: str) -> DeliveryType:
    try:
        return DeliveryType(value)
    except ValueError:
        raise InvalidParameter(
            f"Parameter type must be upload, private or authenticated, not '{shown(value)}'."
        ) from None


def _list(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.strip() for item in value.split(",") if item.strip()))


def _tags(name: str, value: str) -> tuple[str, ...]:
    tags = _list(value)
    if len(tags) > MAX_TAGS:
        raise InvalidParameter(f"Parameter tags has {len(tags)} tags, the limit is {MAX_TAGS}. Send fewer tags.")
    longest = max((len(tag) for tag in tags), default=0)
    if longest > MAX_TAG_LENGTH:
        raise InvalidParameter(f"A tag has {longest} characters, the limit is {MAX_TAG_LENGTH}. Shorten it.")
    return tags


def _context(name: str, value: str) -> tuple[tuple[str, str], ...]:
    """`k=v|k2=v2`, where a backslash escapes `=` and `|`; before anything else it is a backslash, as SDKs send it."""
    if len(value) > MAX_CONTEXT_LENGTH:
        raise InvalidParameter(
            f"Parameter context has {len(value)} characters, the limit is {MAX_CONTEXT_LENGTH}. Shorten it."
        )
    pairs: dict[str, str] = {}
    for pair in filter(None, re.split(r"(?<!\\)\|", value)):
        key, *text = re.split(r"(?<!\\)=", pair, maxsplit=1)
        if not key or not text:
            raise InvalidParameter(f"Parameter context must read key=value|key2=value2, not '{shown(pair)}'.")
        pairs[_unescaped(key)] = _unescaped(text[0])
    return tuple(pairs.items())


def _unescaped(text: str) -> str:
    return re.sub(r"\\([=|])", r"\1", text)


def _formats(name: str, value: str) -> frozenset[str]:
    formats = frozenset(canonical_format(item) for item in _list(value))
    if not formats:
        raise InvalidParameter(
            "Parameter allowed_formats names no format. Sign allowed_formats=jpg,png, or sign without it."
        )
    return formats


def _sha256(name: str, value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise InvalidParameter(
            f"Parameter sha256 must be 64 lower-case hex digits, not '{shown(value)}'. Sign the SHA-256 of the file."
        )
    return value


def _origins(name: str, value: str) -> tuple[str, ...]:
    origins = _list(value)
    if not origins:
        raise InvalidParameter("Parameter origin names no origin. Sign origin=https://app.example, or sign without it.")
    for origin in origins:
        if not re.fullmatch(r"https?://[^/?#\s]+", origin):
            raise InvalidParameter(
                f"Parameter origin must be a web origin like https://app.example, not '{shown(origin)}'."
            )
    return origins


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "timestamp": partial(_text, limit=13),
    "public_id": _public_id,
    "public_id_prefix": _folder,
    "folder": _folder,
    "use_filename": _boolean,
    "unique_filename": _boolean,
    "filename_override": partial(_text, limit=255),
    "discard_original_filename": _boolean,
    "overwrite": _boolean,
    "type": _type,
    "tags": _tags,
    "context": _context,
    "allowed_formats": _formats,
    "nonce": partial(_text, limit=MAX_NONCE_LENGTH),
    "valid_for": partial(_positive, limit=10**9),
    "max_bytes": partial(_positive, limit=10**15),
    "sha256": _sha256,
    "origin": _origins,
    "max_uses": partial(_positive, limit=MAX_USES),
    "invalidate": _boolean,
    "source": partial(_text, limit=MAX_SOURCE_LENGTH),
    "callback": partial(_text, limit=MAX_CALLBACK_LENGTH),
    "access_mode": _public_access,
    "eager_async": _boolean,
    "clear_invalid": _boolean,
    "use_asset_folder_as_public_id_prefix": _boolean,
    **dict.fromkeys(sorted(SWITCHES), _off),
}
_NAMING = ("public_id", "public_id_prefix", "folder", "use_filename", "unique_filename", "filename_override")
# Accepted without effect, because no result would differ: there is no CDN to invalidate, and no eager transformation,
# metadata field or asset folder that eager_async, clear_invalid and use_asset_folder_as_public_id_prefix could modify.
HARMLESS = (
    "invalidate",
    "source",
    "access_mode",
    "eager_async",
    "clear_invalid",
    "use_asset_folder_as_public_id_prefix",
)
# Signed, but not part of the UploadSpec: freshness.py reads the timestamp, a nonce only makes signatures differ.
_ACCEPTED_ONLY = ("timestamp", "nonce", *HARMLESS, *SWITCHES)

OF_DESTROY = ("timestamp", "public_id", "type", "invalidate", "nonce", "valid_for")
SUPPORTED = tuple(_READERS)
OF_ANY_CALL = SUPPORTED
KNOWN = frozenset({*SUPPORTED, *UNSUPPORTED, *UNSIGNED})


def check_route(params: Mapping[str, str], cloud: str, requested: ResourceType | None) -> None:
    """InvalidParameter when the unsigned `cloud_name` or `resource_type` contradicts the URL."""
    route = {"cloud_name": cloud, "resource_type": str(requested or "auto")}
    for name, expected in route.items():
        if params.get(name, expected) != expected:
            raise InvalidParameter(
                f"Parameter {name} is '{shown(params[name])}', but the URL says {expected}. Send the same, or omit it."
            )
