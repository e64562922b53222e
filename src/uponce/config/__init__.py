"""Settings: the one place that reads the environment. Each setting is a row of settings.py or of core/policy.py."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from uponce.config.rules import NOTED, SECRET, ValueRule, between
from uponce.config.settings import Settings
from uponce.config.sources import ENCODING, PREFIX, RESOLVED, Given, read_sources
from uponce.core.account import read_account
from uponce.core.errors import SettingRefused
from uponce.core.policy import Limits
from uponce.core.values import Algorithm, ApiKey, GivenKey, KeyScope, KeyUses

__all__ = ["PREFIX", "Settings"]  # defined elsewhere, and imported from here

_LIMITS = tuple(Limits.__dataclass_fields__)
_TYPES: dict[str, Any] = {**get_type_hints(Settings), **dict.fromkeys(_LIMITS, int)}
del _TYPES["limits"]
# The notes in the rows of Settings, besides the type: meaning, rule, SECRET, NOTED.
_NOTES = {name: get_args(hint)[1:] for name, hint in get_type_hints(Settings, include_extras=True).items()}
_NOTED = {name for name, notes in _NOTES.items() if NOTED in notes}
_NOTED |= {name for name, limit in Limits.__dataclass_fields__.items() if limit.metadata["noted"]}
MASK = "********"
_OPTIONS = ("uses", "scope", "window", "name", "signature_algorithm")  # of a key
_SCHEME = re.compile(r"^[\w+.-]+://")
_USER = re.compile("^[^/?#]*@")
_QUERY_PASSWORD = re.compile(r"([?&][^=&#]*password=)[^&#]*", re.IGNORECASE)
_WORD_PASSWORD = re.compile(r"(?s)((?:^|\s)\w*password\s*=).*", re.IGNORECASE)  # host=… password=…, to its end


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the settings of the command line, the environment, `.env` and the TOML file.

    Raise SettingRefused for a wrong value: the error names the setting as it was written, its value and what is
    expected. Refuse an unknown name too: a misspelt limit would be no limit.
    """
    given = gather(environ, **overrides)
    settings = _of_flat({name: _converted(name, setting) for name, setting in given.items()})
    for name, works, expected in _judged(settings):
        if not works:
            default = Given(_flat(settings)[name], "default", PREFIX + name.upper())
            raise _refused(name, given.get(name, default), expected)
    return settings if "cloud" in given else msgspec.structs.replace(settings, cloud=_default_cloud(settings))


def noted(settings: Settings) -> dict[str, str]:
    """Return the values that a server notes for commands in shells without its settings, by lower-case name."""
    return {name: str(value) for name, value in _flat(settings).items() if name in _NOTED and value is not None}


def with_noted(settings: Settings, found: Mapping[str, str]) -> Settings:
    """Return the settings of a shell, except those in `found`: what a server noted counts."""
    known = {name: msgspec.convert(found[name], _TYPES[name], strict=False) for name in found.keys() & _NOTED}
    return _of_flat(_flat(settings) | known)


def _default_cloud(settings: Settings) -> str:
    """Return the cloud name of the account behind a relay: then delivery URLs that an SDK makes are the account's."""
    if settings.relay is None:
        return settings.cloud
    try:
        return read_account(settings.relay).cloud
    except ValueError:  # the start refuses this URL
        return settings.cloud


def gather(environ: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, Given]:
    """Return all given settings, by lower-case name. Without `environ`: those of this process and `.env`."""
    found = read_sources(environ) | {
        name: Given(value, "command line", "--" + name.replace("_", "-"))
        for name, value in overrides.items()
        if value is not None
    }
    for name, given in found.items():
        if name not in _TYPES:
            raise SettingRefused(f"There is no setting {given.name} ({given.source}). `uponce settings` lists all.")
    return found


def masked(name: str, value: Any) -> Any:
    """Return the value for output: without secrets, and without passwords in URLs. A list may have any."""
    if value and (SECRET in _NOTES.get(name, ()) or not isinstance(value, str | int | float)):
        return MASK
    if not isinstance(value, str):
        return value
    for pattern in (_QUERY_PASSWORD, _WORD_PASSWORD):
        value = pattern.sub(rf"\1{MASK}", value)
    return _without_user_info(value)


def _without_user_info(url: str) -> str:
    """Mask all between the scheme and the last @, except a name before a colon, also if the URL is not well formed.

    A path with a colon and an @ is masked too: it looks like a password. Without a colon, its @ does not count.
    """
    rest = _SCHEME.sub("", url)
    scheme = url.removesuffix(rest)
    before, _, place = rest.rpartition("@")
    if rest.startswith("/") and scheme in ("", "file://", "sqlite://"):
        return url
    name, colon, _ = before.partition(":")
    if not colon:
        return scheme + (_USER.sub(f"{MASK}@", rest) if scheme else rest)
    kept = "" if re.search("[/?#@]", name) else f"{name}:"
    return f"{scheme}{kept}{MASK}@{place}"


def effective(environ: Mapping[str, str] | None = None, **overrides: Any) -> list[dict[str, Any]]:
    """Return every setting with its effective value (secrets masked) and the source of that value."""
    settings, given = load(environ, **overrides), gather(environ, **overrides)
    values = _flat(settings) | {"database": settings.database_url, "storage": settings.storage_url}
    values |= {"data": str(settings.data_dir), "instance": settings.server_name}
    return [
        {
            "name": PREFIX + name.upper(),
            "value": masked(name, values[name]),
            "source": given[name].source if name in given else "default",
        }
        for name in _TYPES
    ]


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which `load` makes the same settings again, whatever files say by then.

    Worker processes get them. One that starts later must spend signatures where the others do.
    """
    given = {PREFIX + name.upper(): str(value) for name, value in _flat(settings).items() if value is not None}
    return given | {RESOLVED: "1"}


def cloudinary_url(environ: Mapping[str, str] | None = None) -> str | None:
    """Return CLOUDINARY_URL, with which a command finds a server on another machine."""
    return (os.environ if environ is None else environ).get("CLOUDINARY_URL")


def _flat(settings: Settings) -> dict[str, Any]:
    limits = {name: getattr(settings.limits, name) for name in settings.limits.__dataclass_fields__}
    return {name: value for name, value in msgspec.structs.asdict(settings).items() if name != "limits"} | limits


def _of_flat(values: Mapping[str, Any]) -> Settings:
    """Return the settings of which `_flat` returns these values. Others have their defaults."""
    limits = {name: value for name, value in values.items() if name in _LIMITS}
    own = {name: value for name, value in values.items() if name not in _LIMITS}
    return Settings(**own, limits=Limits(**limits))


def _rules(name: str) -> list[ValueRule]:
    return [note for note in _NOTES.get(name, ()) if isinstance(note, ValueRule)]


def _converted(name: str, given: Given) -> Any:
    try:
        value = msgspec.convert(given.value, _TYPES[name], strict=False)
    except msgspec.ValidationError:
        raise _refused(name, given, "a whole number" if _TYPES[name] is int else "text") from None
    return value.lower() if any(rule.any_case for rule in _rules(name)) else value


def _refused(name: str, given: Given, expected: str) -> SettingRefused:
    value = masked(name, given.value)
    return SettingRefused(f"{given.name}={value} ({given.source}) is not valid: it must be {expected}.")


def _judged(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Yield for each setting with a rule: its name, whether the value can work, and what is expected."""
    values = _flat(settings)
    for name in _NOTES:
        for rule in _rules(name):
            yield name, rule.works(values[name]), rule.expected
    for name, limit in Limits.__dataclass_fields__.items():
        rule = between(limit.metadata["least"], limit.metadata["most"])
        yield name, rule.works(values[name]), rule.expected
    fits = settings.playground == "off" or settings.playground_keep_bytes >= settings.playground_bytes
    yield "playground_keep_bytes", fits, f"at least UPONCE_PLAYGROUND_BYTES, which is {settings.playground_bytes}"
    fence = settings.limits.relay_fence
    yield "relay_answer", settings.limits.relay_answer <= fence, f"at most UPONCE_RELAY_FENCE, which is {fence}"
    # Behind a server in front, every client seems to be on this machine.
    hidden = settings.playground == "local" and settings.public_url is not None
    yield "playground", not hidden, "off or public where UPONCE_PUBLIC_URL is set"


def preset_keys(settings: Settings) -> tuple[GivenKey, ...]:
    """Return the keys of `keys` and `keys_file`. Raise SettingRefused, which names the setting and never the secret.

    A setting without a key is refused: the first start would make other keys, and print their secrets.
    """
    found = () if settings.keys is None else _parsed_keys(settings.keys, settings.window, f"{PREFIX}KEYS")
    if settings.keys_file is None:
        return found
    source = f"{PREFIX}KEYS_FILE={settings.keys_file}"
    try:
        text = Path(settings.keys_file).read_text(ENCODING)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingRefused(f"{source} cannot be read: {error}.") from error
    return found + _parsed_keys(text, settings.window, source)


def parse_key(url: str, window: int, source: str) -> GivenKey:
    """Return the key that `cloudinary://KEY:SECRET@CLOUD?uses=…&scope=…&window=…&name=…` describes.

    `window` is the default. With `signature_algorithm=sha256` the key refuses SHA-1. The query may also have
    `upload_prefix`, which SDKs read. Raise SettingRefused, which names
    `source`, for any other text.
    """
    try:
        account = read_account(url)
    except ValueError:
        raise SettingRefused(
            f"{source} must have keys like cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload."
        ) from None
    api_key, options = account.api_key, account.options
    unknown = sorted(options.keys() - {"upload_prefix", *_OPTIONS})
    if unknown:
        raise SettingRefused(f"{source}, key {api_key}: there is no option {unknown[0]}. Use {', '.join(_OPTIONS)}.")
    try:
        algorithm = Algorithm(options.get("signature_algorithm", Algorithm.SHA1))
        key = ApiKey(
            api_key=api_key,
            cloud=account.cloud,
            secrets=(account.secret,),
            uses=KeyUses(options.get("uses", "once")),
            scope=KeyScope(options.get("scope", "upload")),
            window=int(options.get("window", window)),
            name=options.get("name", ""),
            algorithms=(algorithm,) if algorithm is Algorithm.SHA256 else tuple(Algorithm),
        )
    except ValueError:
        raise SettingRefused(
            f"{source}, key {api_key}: uses must be once or unlimited, scope upload or all, window a number of seconds,"
            " signature_algorithm sha1 or sha256."
        ) from None
    return GivenKey(key, "window" in options)


def _parsed_keys(text: str, window: int, source: str) -> tuple[GivenKey, ...]:
    words = text.split()
    if not words:
        raise SettingRefused(f"{source} has no key. Write a key there, or remove the setting.")
    return tuple(parse_key(word, window, source) for word in words)
