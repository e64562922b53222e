"""The parameters of calls, one row each: the calls that take it, how its value is read, and where the value goes.

uponce ignores no parameter. It refuses every parameter that is not in the table. It refuses by name the parameters that
Cloudinary has and uponce does not support yet. It accepts the switch of a missing feature while the switch is off.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from functools import lru_cache, partial
from typing import Any, TypeVar

from uponce.core.errors import InvalidParameter, UnknownParameter, UnsupportedParameter, shown
from uponce.core.formats import canonical_format
from uponce.core.naming import Naming, check_public_id
from uponce.core.values import DeliveryType, ResourceType

E = TypeVar("E", bound=StrEnum)

MAX_TAGS = 1000
MAX_TAG_LENGTH = 255
MAX_CONTEXT_LENGTH = 1024
MAX_URL_LENGTH = 2048
MAX_NONCE_LENGTH = 255
MAX_SOURCE_LENGTH = 255
MAX_CALLBACK_LENGTH = 2048
MAX_USES = 1_000_000

# No user info, no fragment, nothing that two parsers could read differently, and no host that cannot exist.
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST = rf"{_LABEL}(\.{_LABEL})*\.?|\[[0-9a-f:.]+\]"
_URL = re.compile(rf"https?://({_HOST})(:(?P<port>[0-9]{{1,5}}))?([/?][!\"$-\[\]-~]*)?", re.ASCII | re.IGNORECASE)
# `int()` alone would accept signs, spaces, underscores and full-width digits.
_DIGITS = re.compile(r"0|[1-9][0-9]{0,12}", re.ASCII)
_MILLISECONDS_FROM = 10**12
_ORIGIN = re.compile(r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?", re.ASCII)
CONTEXT_BAR = re.compile(r"(?<!\\)\|")  # what separates the entries of a context
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """The upload that the signed parameters ask for. None: not sent. Sizes in bytes, times in seconds."""

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
    notification_url: str | None = None


class Call(StrEnum):
    """The calls that take signed parameters."""

    UPLOAD = "upload"
    DESTROY = "destroy"


class Use(Enum):
    """Where a parameter's value goes."""

    SPEC = "the field of the same name in the UploadSpec"
    NAMING = "the field of the same name in its Naming"
    SIGNED_ONLY = "nothing here: signature.py checks the timestamp, and a nonce only makes signatures differ"
    NO_EFFECT = "nothing: no result would differ"
    SWITCH = "nothing: uponce accepts the switch of a missing feature while it is off"
    REFUSED = "a refusal by name: Cloudinary knows the parameter, and uponce does not support it yet"
    UNSIGNED = "it is never signed, so it decides no more than the URL: it proves, repeats the URL, or has no effect"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row. `read` makes a value from the name and the text, or raises. The reference page prints `meaning`.

    Cloudinary does not know a parameter that `is_own`: a relay obeys it here, and does not pass it on.
    """

    name: str
    use: Use
    read: Callable[[str, str], Any] | None = None
    meaning: str = ""
    calls: tuple[Call, ...] = (Call.UPLOAD,)
    is_own: bool = False


# How the text of one parameter becomes a value. Each reader raises an error that names the parameter and the cure.


def text(name: str, value: str, *, limit: int) -> str:
    if len(value) > limit:
        raise InvalidParameter(f"Parameter {name} has {len(value)} characters, the limit is {limit}. Shorten it.")
    return value


def timestamp(_: str, value: str) -> int:
    return parse_timestamp(value)


def parse_timestamp(text: str) -> int:
    """Return Unix seconds. A number of 13 digits counts as milliseconds, which Directus sends."""
    if not _DIGITS.fullmatch(text):
        raise InvalidParameter(
            f"Invalid timestamp {text[:20]!r}. Send Unix seconds as plain digits, for example 1767225600."
        )
    number = int(text)
    return number // 1000 if number >= _MILLISECONDS_FROM else number


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
    found = _URL.fullmatch(value)
    if not found or len(value) > MAX_URL_LENGTH or not 1 <= int(found["port"] or 80) <= 65_535:
        raise InvalidParameter(
            f"Parameter {name} must be one http or https URL of at most {MAX_URL_LENGTH} ASCII characters, with a host "
            f"and port that can exist, without a user name and without #, not '{shown(value)}'."
        )
    return value


def public_id(name: str, value: str) -> str:
    return check_public_id(value, parameter=name)


def folder(name: str, value: str) -> str | None:
    """Return the folder without slashes around it. Return None for `/`, which is no folder."""
    bare = value.strip("/")
    return None if value and not bare else check_public_id(bare, parameter=name, is_folder=True)


def choice(name: str, value: str, *, choices: type[E], also: tuple[str, ...] = ()) -> E:
    """Return the choice of this text. The error also names the words in `also`, which the caller reads itself."""
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
    for pair in filter(None, CONTEXT_BAR.split(value)):
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
        if not _ORIGIN.fullmatch(origin):
            raise InvalidParameter(
                f"Parameter {name} must be a web origin like https://app.example, not '{shown(origin)}'. Sign it as "
                "browsers send it: in lower-case ASCII, without the port 80 of http or 443 of https."
            )
    return found


_EVERY = tuple(Call)

_nonce, _filename = partial(text, limit=MAX_NONCE_LENGTH), partial(text, limit=255)
_callback, _source = partial(text, limit=MAX_CALLBACK_LENGTH), partial(text, limit=MAX_SOURCE_LENGTH)
_seconds, _bytes = partial(positive, limit=10**9), partial(positive, limit=10**15)
_uses, _type = partial(positive, limit=MAX_USES), partial(choice, choices=DeliveryType)

_own = partial(Parameter, is_own=True)

_SUPPORTED = (
    Parameter("timestamp", Use.SIGNED_ONLY, timestamp, "When it was signed: Unix seconds.", _EVERY),
    Parameter(
        "public_id", Use.NAMING, public_id, "The name of the asset. At most 255 characters with folders.", _EVERY
    ),
    Parameter("public_id_prefix", Use.NAMING, folder, "A folder in front of the public_id."),
    Parameter("folder", Use.NAMING, folder, "A folder in front of the prefix and the public_id."),
    Parameter("use_filename", Use.NAMING, boolean, "Name the asset after the file. Default: no."),
    Parameter("unique_filename", Use.NAMING, boolean, "Add six random characters to that name. Default: yes."),
    Parameter("filename_override", Use.NAMING, _filename, "Replaces the file's name."),
    Parameter("discard_original_filename", Use.SPEC, boolean, "Store no original filename. Default: no."),
    Parameter("overwrite", Use.SPEC, boolean, "Whether an asset of this name may be replaced. Default: yes."),
    Parameter(
        "type", Use.SPEC, _type, "`upload`, or `private` or `authenticated`, which need a signed delivery URL.", _EVERY
    ),
    Parameter("tags", Use.SPEC, tags, "Tags, separated by commas."),
    Parameter("context", Use.SPEC, context, "Own values: `key=value|key2=value2`."),
    Parameter(
        "allowed_formats", Use.SPEC, formats, "[Formats](formats.md) that the file may have, separated by commas."
    ),
    _own("nonce", Use.SIGNED_ONLY, _nonce, "Any text. It makes signatures of equal parameters differ.", _EVERY),
    _own("valid_for", Use.SPEC, _seconds, "Seconds that the signature lives, at most the window of the key.", _EVERY),
    _own("max_bytes", Use.SPEC, _bytes, "Maximum size of the file, in bytes."),
    _own("sha256", Use.SPEC, sha256, "The SHA-256 that the file must have: 64 hex digits."),
    _own("origin", Use.SPEC, origins, "Web origins that may use the signature, separated by commas."),
    _own("max_uses", Use.SPEC, _uses, "How many uploads may use the signature. Default: what the key allows."),
    Parameter(
        "callback",
        Use.SPEC,
        _callback,
        "No effect on an upload by a script or program. uponce refuses a form with it that a browser posts.",
    ),
    Parameter(
        "notification_url",
        Use.SPEC,
        url,
        "Where uponce posts the answer of the upload too. Default: `UPONCE_NOTIFICATION_URL`.",
    ),
    # There is no CDN to invalidate, and no eager transformation, metadata field or asset folder to modify.
    Parameter("invalidate", Use.NO_EFFECT, boolean, calls=_EVERY),
    Parameter("source", Use.NO_EFFECT, _source),
    Parameter("access_mode", Use.NO_EFFECT, public_access),
    Parameter("eager_async", Use.NO_EFFECT, boolean),
    Parameter("clear_invalid", Use.NO_EFFECT, boolean),
    Parameter("use_asset_folder_as_public_id_prefix", Use.NO_EFFECT, boolean),
)
_SWITCHES = """
    accessibility_analysis async auto_chaptering auto_transcription backup cinemagraph_analysis colors exif faces
    image_metadata media_metadata phash quality_analysis return_delete_token unique_display_name
    use_filename_as_display_name visual_search
    """
_REFUSED = """
    access_control asset_folder auto_tagging auto_video_details background_removal batch_id categorization
    custom_coordinates detection display_name eager eager_notification_url eval face_coordinates format headers
    manifest_json manifest_transformation metadata moderation ocr on_success proxy public_ids quality_override
    raw_convert regions responsive_breakpoints similarity_search template template_vars transformation unsigned
    upload_preset
    """
_UNSIGNED = (
    Parameter("file", Use.UNSIGNED, meaning="The bytes, or a data URI. Sign `sha256` to bind them."),
    Parameter("api_key", Use.UNSIGNED, meaning="Names the key that signed."),
    Parameter("signature", Use.UNSIGNED, meaning="Proves all signed parameters."),
    Parameter("cloud_name", Use.UNSIGNED, meaning="Must repeat the cloud in the URL."),
    Parameter("resource_type", Use.UNSIGNED, meaning="Must repeat the type in the URL, or narrow `auto`."),
    # npm's SDK sends every option of a presigned upload as a field, and some mobile clients send the header
    # X-Unique-Upload-Id as a field too.
    Parameter("stream", Use.UNSIGNED, meaning="No effect: an option of SDKs."),
    Parameter("chunk_size", Use.UNSIGNED, meaning="No effect: an option of SDKs."),
    Parameter("timeout", Use.UNSIGNED, meaning="No effect: an option of SDKs."),
    Parameter("x_unique_upload_id", Use.UNSIGNED, meaning="No effect: only the header X-Unique-Upload-Id counts."),
)
ROWS = (
    *_SUPPORTED,
    *(Parameter(name, Use.SWITCH, off) for name in _SWITCHES.split()),
    *(Parameter(name, Use.REFUSED, calls=()) for name in _REFUSED.split()),
    *_UNSIGNED,
)
PARAMETERS = {row.name: row for row in ROWS}


def names(*uses: Use) -> tuple[str, ...]:
    """Return the names of all parameters of these uses."""
    return tuple(row.name for row in ROWS if row.use in uses)


UNSIGNED = frozenset(names(Use.UNSIGNED))
OWN = frozenset(row.name for row in ROWS if row.is_own)
_OF_UPLOADS_YET = frozenset({"notification_url"})  # Cloudinary takes these with other calls too
_SIGNED_ONLY = names(Use.SIGNED_ONLY)
_ASKS_NOTHING = UNSIGNED | frozenset(_SIGNED_ONLY)
_MOST_REMEMBERED, _LONGEST_REMEMBERED = 256, 1024  # sets of parameters, and characters in the values of one


def read_parameters(params: Mapping[str, str], call: Call | None = Call.UPLOAD) -> UploadSpec:
    """Return what collected parameters ask for. `call` None accepts parameters of every call: to look a signature up.

    Raise a ParameterRefused that names the parameter, the value and the cure.

    A back end mostly signs the same parameters, so what these ask for is remembered.
    """
    asking = tuple(pair for pair in params.items() if pair[0] not in _ASKS_NOTHING)
    is_short = sum(len(value) for _, value in asking) <= _LONGEST_REMEMBERED
    spec: UploadSpec = (_remembered if is_short else _remembered.__wrapped__)(asking, call)
    for name in _SIGNED_ONLY:
        if name in params and (read := PARAMETERS[name].read):
            read(name, params[name])
    return spec


@lru_cache(_MOST_REMEMBERED)
def _remembered(params: tuple[tuple[str, str], ...], call: Call | None) -> UploadSpec:
    rows = [(_row(name, call), value) for name, value in params]
    found = [(row, row.read(row.name, value)) for row, value in rows if row.read is not None]
    naming = Naming(**{row.name: value for row, value in found if row.use is Use.NAMING})
    naming.check_length()
    return UploadSpec(naming=naming, **{row.name: value for row, value in found if row.use is Use.SPEC})


def _row(name: str, call: Call | None) -> Parameter:
    """Return the row of a parameter that the call takes. Raise for any other parameter."""
    row = PARAMETERS.get(name)
    if row is None:
        raise unknown(name)
    if row.use is Use.UNSIGNED or (call in row.calls if call else row.calls):
        return row
    if row.use in (Use.REFUSED, Use.SWITCH) or name in _OF_UPLOADS_YET:
        raise UnsupportedParameter(f"Parameter {name} is not supported by this server yet. Sign without it.")
    raise unknown(name)


def unknown(name: str) -> UnknownParameter:
    return UnknownParameter(f"Unknown parameter {shown(name)}. Check its spelling, or sign without it.")


def narrowed(requested: ResourceType | None, params: Mapping[str, str]) -> ResourceType | None:
    """Return the resource type of the URL, or if that is `auto`, the one in the fields: Go's SDK posts all to `auto`.

    The field decides no more than the URL, which is not signed either. Raise InvalidParameter for another word.
    """
    named = params.get("resource_type") or "auto"
    if requested is not None or named == "auto":
        return requested
    return choice("resource_type", named, choices=ResourceType, also=("auto",))
