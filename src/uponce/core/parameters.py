"""The parameters of calls, one row each: which calls take it, how its value is read, what becomes of the value.

uponce refuses every parameter that is not in the table, and by name every one that Cloudinary knows and uponce does not
support yet: nothing is ignored. A switch of a missing feature is accepted while it is off.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from functools import partial
from typing import Any

from uponce.core import readers
from uponce.core.errors import InvalidParameter, UnknownParameter, UnsupportedParameter
from uponce.core.naming import Naming
from uponce.core.readers import shown
from uponce.core.values import DeliveryType, ResourceType

MAX_NONCE_LENGTH = 255
MAX_SOURCE_LENGTH = 255
MAX_CALLBACK_LENGTH = 2048
MAX_USES = 1_000_000


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
    notification_url: str | None = None


class Call(StrEnum):
    """The calls that take signed parameters."""

    UPLOAD = "upload"
    DESTROY = "destroy"


class Use(Enum):
    """What becomes of a parameter's value."""

    SPEC = "the field of the same name in the UploadSpec"
    NAMING = "the field of the same name in its Naming"
    SIGNED_ONLY = "nothing here: freshness.py reads the timestamp, and a nonce only makes signatures differ"
    NO_EFFECT = "nothing: no result would differ"
    SWITCH = "nothing: uponce accepts the switch of a missing feature while it is off"
    REFUSED = "a refusal by name: Cloudinary knows the parameter, and uponce does not support it yet"
    UNSIGNED = "it is never signed, so it decides nothing: it proves, repeats the URL, or has no effect"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One row. `read` makes a value of the name and the text, or raises. The reference page prints `meaning`."""

    name: str
    use: Use
    read: Callable[[str, str], Any] | None = None
    calls: tuple[Call, ...] = (Call.UPLOAD,)
    meaning: str = ""


_EVERY = tuple(Call)

_SUPPORTED = (
    Parameter("timestamp", Use.SIGNED_ONLY, readers.timestamp, _EVERY, "When it was signed: Unix seconds."),
    Parameter("public_id", Use.NAMING, readers.public_id, _EVERY, "The name of the asset."),
    Parameter("public_id_prefix", Use.NAMING, readers.folder, meaning="A folder in front of the public_id."),
    Parameter("folder", Use.NAMING, readers.folder, meaning="A folder in front of the prefix and the public_id."),
    Parameter("use_filename", Use.NAMING, readers.boolean, meaning="Name the asset after the file. Default: no."),
    Parameter(
        "unique_filename", Use.NAMING, readers.boolean, meaning="Add six random characters to that name. Default: yes."
    ),
    Parameter("filename_override", Use.NAMING, partial(readers.text, limit=255), meaning="Replaces the file's name."),
    Parameter(
        "discard_original_filename", Use.SPEC, readers.boolean, meaning="Store no original filename. Default: no."
    ),
    Parameter(
        "overwrite", Use.SPEC, readers.boolean, meaning="Whether an asset of this name may be replaced. Default: yes."
    ),
    Parameter(
        "type",
        Use.SPEC,
        partial(readers.choice, choices=DeliveryType),
        _EVERY,
        "`upload`, or `private` or `authenticated`, which need a signed delivery URL.",
    ),
    Parameter("tags", Use.SPEC, readers.tags, meaning="Tags, separated by commas."),
    Parameter("context", Use.SPEC, readers.context, meaning="Own values: `key=value|key2=value2`."),
    Parameter(
        "allowed_formats",
        Use.SPEC,
        readers.formats,
        meaning="[Formats](formats.md) that the file may have, separated by commas.",
    ),
    Parameter(
        "nonce",
        Use.SIGNED_ONLY,
        partial(readers.text, limit=MAX_NONCE_LENGTH),
        _EVERY,
        "Any text. It makes signatures of equal parameters differ.",
    ),
    Parameter(
        "valid_for",
        Use.SPEC,
        partial(readers.positive, limit=10**9),
        _EVERY,
        "Seconds that the signature lives, at most the window of the key.",
    ),
    Parameter(
        "max_bytes", Use.SPEC, partial(readers.positive, limit=10**15), meaning="Maximum size of the file, in bytes."
    ),
    Parameter("sha256", Use.SPEC, readers.sha256, meaning="The SHA-256 that the file must have: 64 hex digits."),
    Parameter(
        "origin", Use.SPEC, readers.origins, meaning="Web origins that may use the signature, separated by commas."
    ),
    Parameter(
        "max_uses",
        Use.SPEC,
        partial(readers.positive, limit=MAX_USES),
        meaning="How many uploads may use the signature. Default: what the key allows.",
    ),
    Parameter(
        "callback",
        Use.SPEC,
        partial(readers.text, limit=MAX_CALLBACK_LENGTH),
        meaning="No effect on an upload by script. uponce refuses a form with it that a browser posts.",
    ),
    Parameter(
        "notification_url",
        Use.SPEC,
        readers.url,
        meaning="Where uponce posts the answer of the upload too. Default: `UPONCE_NOTIFICATION_URL`.",
    ),
    # There is no CDN to invalidate, and no eager transformation, metadata field or asset folder to modify.
    Parameter("invalidate", Use.NO_EFFECT, readers.boolean, _EVERY),
    Parameter("source", Use.NO_EFFECT, partial(readers.text, limit=MAX_SOURCE_LENGTH)),
    Parameter("access_mode", Use.NO_EFFECT, readers.public_access),
    Parameter("eager_async", Use.NO_EFFECT, readers.boolean),
    Parameter("clear_invalid", Use.NO_EFFECT, readers.boolean),
    Parameter("use_asset_folder_as_public_id_prefix", Use.NO_EFFECT, readers.boolean),
)
_SWITCHES = """
    accessibility_analysis async auto_chaptering auto_transcription backup cinemagraph_analysis colors exif faces
    image_metadata media_metadata phash quality_analysis return_delete_token unique_display_name
    use_filename_as_display_name visual_search
    """
_REFUSED = """
    access_control asset_folder auto_tagging background_removal batch_id categorization custom_coordinates
    detection display_name eager eager_notification_url eval face_coordinates format headers manifest_json
    manifest_transformation metadata moderation ocr on_success proxy quality_override raw_convert
    regions responsive_breakpoints similarity_search template template_vars transformation upload_preset
    """
_UNSIGNED = (
    Parameter("file", Use.UNSIGNED, meaning="The bytes, a data URI or a URL. Sign `sha256` to bind them."),
    Parameter("api_key", Use.UNSIGNED, meaning="Names the key that signed."),
    Parameter("signature", Use.UNSIGNED, meaning="Proves all signed parameters."),
    Parameter("cloud_name", Use.UNSIGNED, meaning="Must repeat the cloud in the URL."),
    Parameter("resource_type", Use.UNSIGNED, meaning="Must repeat the resource type in the URL."),
    # npm's SDK sends every option of a presigned upload as a field, and some mobile clients send the header
    # X-Unique-Upload-Id as a field too.
    Parameter("stream", Use.UNSIGNED, meaning="No effect: an option of SDKs."),
    Parameter("chunk_size", Use.UNSIGNED, meaning="No effect: an option of SDKs."),
    Parameter("timeout", Use.UNSIGNED, meaning="No effect: an option of SDKs."),
    Parameter("x_unique_upload_id", Use.UNSIGNED, meaning="No effect: only the header X-Unique-Upload-Id counts."),
)
ROWS = (
    *_SUPPORTED,
    *(Parameter(name, Use.SWITCH, readers.off) for name in _SWITCHES.split()),
    *(Parameter(name, Use.REFUSED, calls=()) for name in _REFUSED.split()),
    *_UNSIGNED,
)
PARAMETERS = {row.name: row for row in ROWS}


def names(*uses: Use) -> tuple[str, ...]:
    """Return the names of all parameters of these uses."""
    return tuple(row.name for row in ROWS if row.use in uses)


UNSIGNED = frozenset(names(Use.UNSIGNED))
_OF_UPLOADS_YET = frozenset({"notification_url"})  # Cloudinary takes them with other calls too


def read_parameters(params: Mapping[str, str], call: Call | None = Call.UPLOAD) -> UploadSpec:
    """Return what collected parameters ask for. `call` None: of any call, where a signature is only looked up.

    Raise a ParameterRefused that names the parameter, the value and the cure.
    """
    rows = [_row(name, call) for name in params]
    found = [(row, row.read(row.name, params[row.name])) for row in rows if row.read is not None]
    naming = Naming(**{row.name: value for row, value in found if row.use is Use.NAMING})
    return UploadSpec(naming=naming, **{row.name: value for row, value in found if row.use is Use.SPEC})


# A relay obeys these itself, and the upstream gets none. A `callback` would turn its answer into a redirect.
OF_RELAY = frozenset("nonce valid_for max_bytes sha256 origin max_uses timestamp callback".split())

_IN_PATHS = ("public_id", "public_id_prefix", "folder", "asset_folder", "type")


def read_relayed(params: Mapping[str, str]) -> UploadSpec:
    """Return what parameters ask of a relay. The upstream reads the others, so none of those is refused here.

    But a look-up of the asset must be possible: its path has the parameters of `_IN_PATHS`.
    """
    for name in _IN_PATHS:
        if not {".", ".."}.isdisjoint(params.get(name, "").split("/")):
            raise InvalidParameter(
                f"{name} ({shown(params[name])}) is invalid: it has a '.' or '..' segment. Sign it without one."
            )
    found = read_parameters({name: value for name, value in params.items() if name in OF_RELAY})
    return replace(found, naming=_relayed_naming(params))


def is_on(params: Mapping[str, str], name: str, default: str = "0") -> bool:
    return params.get(name, default) in ("1", "true")


def _relayed_naming(params: Mapping[str, str]) -> Naming:
    """Return how the upstream will name the asset: `use_filename` and the like count as the upstream reads them."""
    return Naming(
        public_id=params.get("public_id"),
        public_id_prefix=params.get("public_id_prefix"),
        folder=params.get("folder"),
        use_filename=is_on(params, "use_filename"),
        unique_filename=is_on(params, "unique_filename", "1"),
        filename_override=params.get("filename_override"),
    )


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


def check_route(params: Mapping[str, str], cloud: str, requested: ResourceType | None) -> None:
    """Raise InvalidParameter if the unsigned `cloud_name` or `resource_type` contradicts the URL."""
    route = {"cloud_name": cloud, "resource_type": str(requested or "auto")}
    for name, expected in route.items():
        if params.get(name, expected) != expected:
            raise InvalidParameter(
                f"Parameter {name} is '{shown(params[name])}', but the URL says {expected}. Send the same, or omit it."
            )
