"""Read and write delivery URLs without transformations.

    /<cloud>/<resource_type>/<type>/[s--<signature>--/][v<version>/]<public_id>[.<extension>]

The signature covers the *escaped* text after the version. So uponce parses the raw path, and decodes each part once.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import takewhile
from urllib.parse import quote, unquote_to_bytes

from uponce.core.errors import NotFound, UnsupportedCall
from uponce.core.naming import MAX_WRITTEN_LENGTH
from uponce.core.values import AssetName, DeliveryType, ResourceType

_SIGNATURE = re.compile(r"s--([A-Za-z0-9_-]{8}|[A-Za-z0-9_-]{32})--")
_VERSION = re.compile(r"v([0-9]{1,20})", re.ASCII)
_TILDE = re.compile("%7[Ee]")
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,10}")
_ACTION = (
    "(?:a|ac|af|ar|b|bl|bo|br|c|co|cs|d|dl|dn|dpr|du|e|eo|f|fl|fn|fps|g|h|if|ki|l|o|p|pg|q|r|so|sp|t|u|vc|vs|w|x|y|z"
    r"|\$[A-Za-z0-9]+)"
)
_TRANSFORMATION = re.compile(rf"{_ACTION}_[^,]+(?:,{_ACTION}_[^,]+)*")
_OTHER_TYPES = frozenset(
    """
    animoto asset dailymotion facebook fetch gravatar hulu list multi sprite text twitter twitter_name vimeo
    worldstarhiphop youtube
    """.split()
)


@dataclass(frozen=True, slots=True)
class DeliveryPath:
    """A parsed delivery URL.

    `candidates` are the names that the last part can mean, likeliest first. Each has the extension that the URL then
    asks for: `a.b` is `a` as a `b`, or an asset called `a.b` in its own format. `source` is the text that a signature
    covers. `version` is None if the URL has no version. `transformation` is the leading text that reads like a
    transformation. A folder may have such a name too, so the catalog decides.
    """

    candidates: tuple[tuple[AssetName, str | None], ...]
    version: int | None
    signature: str | None
    source: str
    transformation: str | None = None


def parse_path(raw_path: str) -> DeliveryPath:
    """Return the parts of a path that is still escaped. Raise NotFound unless the path is a delivery URL."""
    segments = raw_path.removeprefix("/").split("/")
    if len(segments) < 4:
        raise NotFound("Resource not found")
    cloud, resource_type, type_, *rest = segments
    signature = _SIGNATURE.fullmatch(rest[0]) if len(rest) > 1 else None
    if signature:
        rest = rest[1:]
    transformation = _transformation(rest)
    version = _VERSION.fullmatch(rest[0]) if len(rest) > 1 else None
    if version:
        rest = rest[1:]
    source = "/".join(rest)
    if type_ in _OTHER_TYPES:
        raise UnsupportedCall(
            f"Delivery type {type_} is not supported by uponce yet. Use upload, private or authenticated."
        )
    try:
        kind, delivery = ResourceType(resource_type), DeliveryType(type_)
        # The catalog holds names in form NFC; a URL may spell one as its file system does.
        public_id = _normal(unquote_to_bytes(source).decode())
        owner = unquote_to_bytes(cloud).decode()
    except ValueError:
        raise NotFound("Resource not found") from None
    return DeliveryPath(
        candidates=_candidates(owner, kind, delivery, public_id),
        version=version and int(version[1]),
        signature=signature and signature[1],
        source=source,
        transformation=transformation,
    )


def _transformation(segments: list[str]) -> str | None:
    """Return the leading segments that read like a transformation, without the public_id."""
    named = takewhile(_TRANSFORMATION.fullmatch, segments[:-1])
    return "/".join(named)[:100] or None


def _normal(name: str) -> str:
    """Return the name in form NFC. Raise ValueError, before that slow step, if the name is too long for any asset."""
    if len(name) > MAX_WRITTEN_LENGTH:
        raise ValueError
    return unicodedata.normalize("NFC", name)


def _candidates(
    cloud: str, kind: ResourceType, type_: DeliveryType, public_id: str
) -> tuple[tuple[AssetName, str | None], ...]:
    whole = (AssetName(cloud, kind, type_, public_id), None)
    stem, dot, extension = public_id.rpartition(".")
    if kind is ResourceType.RAW or not dot or not stem or not _EXTENSION.fullmatch(extension):
        return (whole,)
    return (AssetName(cloud, kind, type_, stem), extension.lower()), whole


def source_of(public_id: str, format_: str | None) -> str:
    """Return the escaped public_id with its extension, as in a URL and under a delivery signature."""
    text = f"{public_id}.{format_}" if format_ else public_id
    # SDKs escape the tilde, which quote() never does.
    return quote(text, safe="/:-_.").replace("~", "%7E")


def spellings_of(source: str) -> tuple[str, ...]:
    """Return the texts that a signature of this URL may cover: the same URL as sent, and with each form of the tilde.

    Some clients replace the `%7E` of a signed URL by `~`, as RFC 3986 §6.2.2.2 lets them.
    """
    plain = _TILDE.sub("~", source)
    return (source,) if "~" not in plain else (source, plain, plain.replace("~", "%7E"))


def path_of(name: AssetName, version: int, format_: str | None, signature: str | None = None) -> str:
    """Return the canonical delivery path of an asset."""
    signed = f"s--{signature}--/" if signature else ""
    source = source_of(name.public_id, format_)
    return f"/{quote(name.cloud, safe='')}/{name.resource_type}/{name.type}/{signed}v{version}/{source}"
