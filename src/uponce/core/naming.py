"""public_ids: which ones are allowed, how uponce makes one for an upload, and the delivery URLs that name one.

A public_id is a name in the catalog and never a path on disk. uponce refuses the characters ``?&#\\%<>+`` and the
double quote everywhere: with `&` in a public_id the response signature would itself be a valid upload signature.

A delivery URL without a transformation reads

    /<cloud>/<resource_type>/<type>/[s--<signature>--/][v<version>/]<public_id>[.<extension>]

The signature covers the *escaped* text after the version. So uponce parses the raw path, and decodes each part once.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import takewhile
from urllib.parse import quote, unquote, unquote_to_bytes

from uponce.core.errors import InvalidParameter, NotFound, UnsupportedCall, shown
from uponce.core.values import AssetName, DeliveryType, ResourceType

MAX_LENGTH = 255
# Before NFC. NFC makes one character of up to four (as of U+1F82). Its time grows with the square of the length of a
# run of combining marks.
_MAX_WRITTEN = 4 * MAX_LENGTH
RANDOM_LENGTH = 20
UNIQUE_SUFFIX_LENGTH = 6
# uponce cuts a filename instead of refusing it. Name, suffix and folder together then fit into MAX_LENGTH.
_MAX_STEM = 200
_MAX_EXTENSION = 40

_FORBIDDEN = frozenset('?&#\\%<>+"')
# Controls, invisible formatting (direction marks, zero-width), surrogates, private use, unassigned, line ends.
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ORDINARY = re.compile(f"[A-Za-z0-9_-]{{1,{MAX_LENGTH}}}")  # such a name passes every check
# Segments that a delivery URL reads as something else: a version, a signature.
_RESERVED_FIRST = re.compile(r"v[0-9]+|s--.*--")


def check_public_id(public_id: str, *, parameter: str = "public_id", is_folder: bool = False) -> str:
    """Return the public_id in Unicode form NFC. Raise InvalidParameter with the reason if it is not allowed."""
    if not is_folder and _ORDINARY.fullmatch(public_id):
        return public_id
    normal = unicodedata.normalize("NFC", public_id) if len(public_id) <= _MAX_WRITTEN else public_id
    problem = _problem(normal, is_folder)
    if problem:
        raise InvalidParameter(f"{parameter} ({shown(public_id)}) is invalid: {problem}")
    return normal


def _problem(public_id: str, is_folder: bool) -> str | None:
    if len(public_id) > MAX_LENGTH:
        return f"it has {len(public_id)} characters, {MAX_LENGTH} are allowed"
    bad = next((char for char in public_id if _is_forbidden(char)), None)
    if bad is not None:
        code = f"U+{ord(bad):04X}"
        named = f"'{bad}' ({code})" if bad.isprintable() else code
        return f"the character {named} is not allowed"
    segments = public_id.split("/")
    if "" in segments:
        return "it begins or ends with '/', has '//' in it, or is empty"
    if "." in segments or ".." in segments:
        return "it has a '.' or '..' segment"
    if any(segment != segment.strip() or segment.endswith(".") for segment in segments):
        return "a segment begins or ends with a space, or ends with a dot"
    if (is_folder or len(segments) > 1) and _RESERVED_FIRST.fullmatch(segments[0]):
        return "its first folder looks like a version (v123) or a signature (s--…--)"
    return None


def _is_forbidden(char: str) -> bool:
    return char in _FORBIDDEN or unicodedata.category(char) in _FORBIDDEN_CATEGORIES


@dataclass(frozen=True, slots=True)
class Naming:
    """What an upload's parameters say about its name."""

    public_id: str | None = None
    public_id_prefix: str | None = None
    folder: str | None = None
    use_filename: bool = False
    unique_filename: bool = True
    filename_override: str | None = None

    def name(self, kind: ResourceType, filename: str | None, random: str, suffix: str) -> str:
        """Return the checked public_id of a new asset.

        `random` (20 characters) is the name if the parameters and the file give none. `suffix` (6) makes a filename
        unique. Raw assets keep the filename's extension in their public_id, images and videos do not.
        """
        return check_public_id(self.written(kind, filename, random, suffix))

    def check_length(self) -> None:
        """Raise InvalidParameter if the name is too long for every file: refuse it before the file arrives."""
        shortest = len(self.written(ResourceType.IMAGE, "a", "r" * RANDOM_LENGTH, "s" * UNIQUE_SUFFIX_LENGTH))
        if shortest > MAX_LENGTH:
            raise InvalidParameter(
                f"folder, public_id_prefix and public_id make a name of at least {shortest} characters, {MAX_LENGTH} "
                "are allowed. Sign shorter ones."
            )

    def written(self, kind: ResourceType, filename: str | None, random: str, suffix: str) -> str:
        """Return the public_id that `name` returns, unchecked: another server may allow it."""
        base = self.bare(kind, filename, random, suffix)
        return f"{above}{base.strip('/')}" if (above := self._above()) else base

    def bare(self, kind: ResourceType, filename: str | None, random: str, suffix: str) -> str:
        """Return what `written` returns, without folder and prefix."""
        source = self.filename_override or filename
        return self.public_id or self._from_filename(kind, source, suffix) or random + _extension(kind, source)

    def _above(self) -> str:
        return "".join(f"{name}/" for part in (self.folder, self.public_id_prefix) if (name := (part or "").strip("/")))

    def _from_filename(self, kind: ResourceType, source: str | None, suffix: str) -> str | None:
        if not self.use_filename or not source:
            return None
        unique = f"_{suffix}" if self.unique_filename else ""
        # The room for the stem is the same for each kind: a relay names an upload to `auto` before its kind is known.
        room = MAX_LENGTH - len(self._above() + unique + _extension(ResourceType.RAW, source))
        stem = _cleaned(split_filename(source)[0], min(max(room, 1), _MAX_STEM))
        return stem + unique + _extension(kind, source) if stem else None


def _extension(kind: ResourceType, filename: str | None) -> str:
    """Return `.pdf`, or an empty text if the kind keeps no extension or the cleaned extension is empty."""
    if kind is not ResourceType.RAW:
        return ""
    extension = _cleaned(split_filename(filename or "")[1], _MAX_EXTENSION)
    return f".{extension}" if extension else ""


def split_filename(filename: str) -> tuple[str, str]:
    """Return name and extension of the last path segment. Browsers and attackers send whole paths."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = last.rpartition(".")
    return (stem, extension) if dot and stem else (last, "")


def original_filename(filename: str) -> str | None:
    """Return the name without path and extension, or None without a name.

    It is a label that other programs write into headers and pages. So it has no controls and no marks of direction.
    """
    return _UNSEEN.sub("", split_filename(filename)[0]) or None


def _cleaned(text: str, length: int) -> str:
    normal = unicodedata.normalize("NFC", text[:_MAX_WRITTEN])
    allowed = "".join("_" if _is_forbidden(c) or c.isspace() else c for c in normal)
    return allowed.strip("_.")[:length].rstrip("_.")


def folder_of(public_id: str) -> str:
    """Return the text before the last `/`, or an empty text."""
    return public_id.rpartition("/")[0]


_SIGNATURE = re.compile(r"s--([A-Za-z0-9_-]{8}|[A-Za-z0-9_-]{32})--")
_VERSION = re.compile(r"v([0-9]{1,20})", re.ASCII)
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9_./-]*")  # most names; the match takes a tenth of the time of quote()
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
    transformation. A folder may have such a name too, so the catalog decides. `unversioned` is what SDKs sign for a
    transformation with a version behind it: `source` without that version. It signs no asset of these names.
    """

    candidates: tuple[tuple[AssetName, str | None], ...]
    version: int | None
    signature: str | None
    source: str
    transformation: str | None = None
    unversioned: str | None = None


def parse_path(raw_path: str) -> DeliveryPath:
    """Return the parts of a path that is still escaped. Raise NotFound unless the path is a delivery URL."""
    segments = raw_path.removeprefix("/").split("/")
    if len(segments) < 4:
        raise NotFound("Resource not found")
    cloud, resource_type, type_, *rest = segments
    signature = _SIGNATURE.fullmatch(rest[0]) if len(rest) > 1 else None
    if signature:
        rest = rest[1:]
    transformation = list(takewhile(_TRANSFORMATION.fullmatch, rest[:-1]))
    behind = rest[len(transformation) :]
    has_version = transformation and len(behind) > 1 and _VERSION.fullmatch(behind[0])
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
        transformation="/".join(transformation)[:100] or None,
        unversioned="/".join([*transformation, *behind[1:]]) if has_version else None,
    )


def _normal(name: str) -> str:
    """Return the name in form NFC. Raise ValueError, before that slow step, if the name is too long for any asset."""
    if len(name) > _MAX_WRITTEN:
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
    if _NEVER_ESCAPED.fullmatch(text):
        return text
    # SDKs escape the tilde, which quote() never does.
    return quote(text, safe="/:-_.").replace("~", "%7E")


def spellings_of(source: str) -> tuple[str, ...]:
    """Return the texts that a signature of this URL may cover.

    They are the text as sent, that with each form of the tilde, and the name: unescaped, and escaped as this server
    does. Some clients replace the `%7E` of a signed URL by `~`, as RFC 3986 §6.2.2.2 lets them. The SDKs of PHP, Go and
    .NET sign the name before they escape it. A proxy or `encodeURI` that escapes a path again leaves `(1)` as it is. No
    name has a `%`, so all these texts name the same asset.
    """
    plain, raw = _TILDE.sub("~", source), unquote(source)
    tildes = (plain, plain.replace("~", "%7E")) if "~" in plain else ()
    return tuple(dict.fromkeys((source, *tildes, raw, source_of(raw, None))))


def path_of(name: AssetName, version: int, format_: str | None, signature: str | None = None) -> str:
    """Return the canonical delivery path of an asset."""
    signed = f"s--{signature}--/" if signature else ""
    source = source_of(name.public_id, format_)
    return f"/{quote(name.cloud, safe='')}/{name.resource_type}/{name.type}/{signed}v{version}/{source}"
