"""The account behind a relay: its URL, the fields that uponce sends it, and how uponce finds an asset there again."""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from uponce.core.account import account_url, read_account
from uponce.core.errors import InvalidParameter, shown
from uponce.core.formats import FORMATS, canonical_format
from uponce.core.naming import RANDOM_LENGTH, UNIQUE_SUFFIX_LENGTH, Naming
from uponce.core.parameters import CONTEXT_BAR, OWN, UNSIGNED, UploadSpec, read_parameters
from uponce.core.signature import sign, string_to_sign
from uponce.core.values import Algorithm, Grant, ResourceType, Upstream

URL_FORM = "cloudinary://KEY:SECRET@CLOUD?upload_prefix=https://api.cloudinary.com"
# The options of the URL: the pattern of each, and its default.
_OPTIONS = {
    "upload_prefix": (r"https?://[^/?#\s&@]+(/[^?#\s&]*)?", "https://api.cloudinary.com"),
    "signature_algorithm": ("sha1|sha256", "sha1"),
    "window": ("[1-9][0-9]{0,8}", "3600"),
    "identify": ("public_id|context", "public_id"),
}
_DEFAULTS = {name: default for name, (_, default) in _OPTIONS.items()}
MARKER = "uponce"  # the context key of an asset whose public_id the upstream chooses
_NOT_IN_NAMES = re.compile("[=\0-\x1f\x7f]")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

# A relay obeys these itself and sends none of them to the upstream. A `callback` would turn the answer into a redirect.
_OF_RELAY = OWN | {"timestamp", "callback"}
_NAMES = ("public_id", "public_id_prefix", "folder", "asset_folder")
_IN_PATHS = (*_NAMES, "type")

# Other extensions of what Cloudinary or uponce takes as an image or a video.
_OTHER_MEDIA = frozenset(
    """
    ai apng arw avifs bw caf cr2 cr3 dib djvu dng ept eps eps3 fbx flif glb gltf hdp heic heics heif heifs hif indd jfi
    jif jp2 jxl jxr m1v m2v m3u8 m4p mp2 mpd mxf nef obj ogm ply ps psd qt spx svgz tga u3ma usdz vob wdp weba wma
    """.split()
)
_EXTENSION = re.compile(r"(?=.*[a-z])[a-z0-9]{1,10}", re.IGNORECASE)


def parse_upstream(url: str, secret: str | None = None) -> Upstream:
    """Return the account that the URL of a relay names.

        cloudinary://KEY:SECRET@CLOUD[?upload_prefix=…&signature_algorithm=…&window=…&identify=context]

    `secret` is for a URL without one; it is empty if it was lost. Raise InvalidParameter for a URL of another form. The
    error never repeats the secret.
    """
    try:
        account = read_account(url, secret)
    except ValueError as error:
        raise _bad_url(str(error)) from None
    options = {**_DEFAULTS, **account.options}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise _bad_url(f"it has the unknown option {name}")
        pattern, _ = _OPTIONS[name]
        if not re.fullmatch(pattern, value):
            raise _bad_url(f"{name} does not match {pattern}")
    return Upstream(
        account.cloud,
        account.api_key,
        account.secret,
        options["upload_prefix"].rstrip("/"),
        Algorithm(options["signature_algorithm"]),
        int(options["window"]),
        marked=options["identify"] == "context",
    )


def url_of(upstream: Upstream) -> str:
    """Return the URL without the secret: `cloudinary://KEY@CLOUD?upload_prefix=…`."""
    options = {
        "upload_prefix": upstream.prefix,
        "signature_algorithm": upstream.algorithm.value,
        "window": str(upstream.window),
        "identify": "context" if upstream.marked else "public_id",
    }
    chosen = {name: value for name, value in options.items() if value != _DEFAULTS[name]}
    return account_url(upstream.api_key, "", upstream.cloud, **chosen)


def _bad_url(problem: str) -> InvalidParameter:
    return InvalidParameter(
        f"The URL of the upstream is not usable: {problem}. Write {URL_FORM}, where the part after ? is optional."
    )


def read_relayed(params: Mapping[str, str]) -> UploadSpec:
    """Return what the parameters ask of a relay. The upstream reads the others, so uponce refuses none of those here.

    But a look-up of the asset must be possible: its path has the parameters of `_IN_PATHS`, and none of its names has
    an edge that the account may trim. And no name has a `=`: the signed text `a=b=c` must not be read as the name `a=b`
    with the value `c`.
    """
    for name in params:
        if _NOT_IN_NAMES.search(name):
            raise InvalidParameter(
                f"The parameter name '{shown(name)}' contains = or a control character. Send a name without it."
            )
    for name in _IN_PATHS:
        if not {".", ".."}.isdisjoint(params.get(name, "").split("/")):
            raise InvalidParameter(
                f"{name} ({shown(params[name])}) is invalid: it has a '.' or '..' segment. Sign it without one."
            )
    for name in _NAMES:
        value, edge = params.get(name, ""), "a space or '/'"
        bare = value
        if name != "public_id":
            bare, edge = value.strip("/"), "a space"  # look-ups have no slashes around a folder
        if bare != bare.strip().strip("/") or "//" in value:
            raise InvalidParameter(
                f"{name} ({shown(value)}) is invalid: it begins or ends with {edge}, or has '//' in it. Sign it "
                "without these."
            )
    return replace(read_obeyed(params), naming=_relayed_naming(params))


def read_obeyed(params: Mapping[str, str]) -> UploadSpec:
    """Return what the parameters ask of uponce itself, such as `max_bytes`. No other parameter counts."""
    return read_parameters({name: value for name, value in params.items() if name in _OF_RELAY})


def _is_on(params: Mapping[str, str], name: str, default: str = "0") -> bool:
    return params.get(name, default) in ("1", "true")


def _relayed_naming(params: Mapping[str, str]) -> Naming:
    """Return how the upstream will name the asset. `use_filename` and its like count as the upstream reads them."""
    return Naming(
        public_id=params.get("public_id"),
        public_id_prefix=params.get("public_id_prefix"),
        folder=params.get("folder"),
        use_filename=_is_on(params, "use_filename"),
        unique_filename=_is_on(params, "unique_filename", "1"),
        filename_override=params.get("filename_override"),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """Where the upload of one grant goes in the upstream, and how uponce finds its asset there.

    `kind` is the resource type in the URL, or `auto`. `fields` are sent with it; `signed` adds those that sign. `names`
    are the resource types and public_ids that the asset may have. An empty public_id stands for the `marker` in the
    asset's context. `is_own`: only uploads of this grant can have that marker, or that name if there is no marker.
    `account` is that of the upstream.
    """

    kind: str
    type: str
    fields: Mapping[str, str]
    names: tuple[tuple[str, str], ...] = ()
    marker: str | None = None
    is_own: bool = False
    account: str = ""


def aim(
    upstream: Upstream,
    spec: UploadSpec,
    params: Mapping[str, str],
    requested: ResourceType | None,
    filename: str | None,
    seed: bytes,
) -> Target:
    """Return where an upload goes. Equal seeds give equal names, so a repeated request finds the first one's asset.

    A public_id that is signed is kept. Otherwise uponce computes the public_id, as the upstream would shape it, and
    asks the upstream to replace no asset.
    """
    fields = passed_on(params)
    kind, delivery_type, account = str(requested or "auto"), params.get("type", "upload"), upstream.account
    if upstream.marked:
        marker = _digits(upstream.secret, b"marker" + seed, RANDOM_LENGTH)
        fields["context"] = _marked(marker, fields.get("context", ""))
        names = [(each, "") for each in _kinds(requested)]
        if signed_name := spec.naming.public_id:  # another upload may replace the asset, and with it the marker
            names += _placed(params, spec.naming, [(each, signed_name) for each in _kinds(requested)])
        return Target(kind, delivery_type, fields, tuple(names), marker, True, account)
    random = _digits(upstream.secret, b"name" + seed, RANDOM_LENGTH)
    suffix = _digits(upstream.secret, b"suffix" + seed, UNIQUE_SUFFIX_LENGTH)
    naming = spec.naming
    is_own = naming.public_id is None and (naming.unique_filename or not naming.use_filename)
    as_image, as_raw = (naming.bare(each, filename, random, suffix) for each in (ResourceType.IMAGE, ResourceType.RAW))
    # Only the upstream knows what a file to `auto` is. With an extension that no media format has, it is a document.
    extension = canonical_format(as_raw.removeprefix(as_image).removeprefix("."))
    is_media = extension in FORMATS or extension in _OTHER_MEDIA
    # A random name gets nothing else of the file's name: the end of `Ms. Doe 12.3.1980` is no extension.
    is_document = not is_media and bool(naming.use_filename or _EXTENSION.fullmatch(extension))
    is_raw = is_document if requested is None else requested is ResourceType.RAW
    bare = as_raw if is_raw else as_image
    if naming.public_id is None:
        fields["public_id"] = bare  # the upstream itself adds folder and prefix
        if is_own:
            fields.setdefault("overwrite", "false")
    names = [(each, bare) for each in _kinds(requested)]
    if requested is None:  # the upstream may add the extension to a file that it takes as raw
        names.append((ResourceType.RAW.value, as_raw))
    return Target(kind, delivery_type, fields, tuple(_placed(params, naming, names)), None, is_own, account)


def _placed(params: Mapping[str, str], naming: Naming, names: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return the names as the upstream completes them, with each folder that it may put before them."""
    folders = [naming.folder]
    if _is_on(params, "use_asset_folder_as_public_id_prefix"):  # accounts with fixed folders ignore it
        folders.insert(0, params.get("asset_folder"))
    found = dict[tuple[str, str], None]()
    for folder in folders:
        for kind, name in names:
            placed = replace(naming, folder=folder, public_id=name)
            found[kind, placed.written(ResourceType(kind), None, "", "")] = None
    return list(found)


def _marked(marker: str, context: str) -> str:
    """Return a context with the marker, which is first: a backslash at the end of another entry would swallow it."""
    others = [entry for entry in CONTEXT_BAR.split(context) if entry and not entry.startswith(f"{MARKER}=")]
    return "|".join([f"{MARKER}={marker}", *others])


def _kinds(requested: ResourceType | None) -> tuple[str, ...]:
    return tuple(each.value for each in ResourceType) if requested is None else (requested.value,)


def _digits(secret: str, message: bytes, length: int) -> str:
    """Return base-36 digits that only the holder of the secret can compute."""
    number = int.from_bytes(hmac.digest(secret.encode(), message, hashlib.sha256), "big")
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)


def seed_of(grant: Grant, attempt: str, key_hash: bytes | None) -> bytes:
    """Return the bytes that name the asset of an attempt: the grant, and for a grant of several uses also the upload.

    `key_hash` is of the client's Idempotency-Key: with it, a repeat has the name of the first attempt.
    """
    return grant.key if grant.max_uses == 1 else grant.key + (key_hash or attempt.encode())


def passed_on(params: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that the upstream receives: all signed ones, except those that uponce obeys itself."""
    kept = UNSIGNED | _OF_RELAY
    return {name: value for name, value in params.items() if name not in kept}


def signed(upstream: Upstream, fields: Mapping[str, str], timestamp: int) -> dict[str, str]:
    """Return `api_key`, `timestamp` and `signature`. With them the upstream accepts the fields."""
    stamp = str(timestamp)
    string = string_to_sign({**fields, "timestamp": stamp})
    signature = sign(string, upstream.secret, upstream.algorithm)
    return {"timestamp": stamp, "api_key": upstream.api_key, "signature": signature}
