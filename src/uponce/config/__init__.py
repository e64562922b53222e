"""Settings: the one place that reads the environment. Limits have the names of core/policy.py."""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from uponce.config.sources import PREFIX, Given, read_sources
from uponce.core.errors import SettingRefused
from uponce.core.policy import Limits
from uponce.core.values import ApiKey, KeyScope, KeyUses


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can set, with its default. Sizes in bytes, times in seconds.

    The reference of settings prints the texts.
    """

    data: Annotated[str, "Folder of the database, the media and the secret key."] = "./uponce-data"
    database: Annotated[
        str | None,
        "`sqlite:////path/to/file`, or `postgresql://user:password@host/database`. The default is `uponce.db` in the "
        "data folder.",
    ] = None
    database_connections: Annotated[int, "The most connections that one server process opens to PostgreSQL."] = 8
    database_seconds: Annotated[
        int, "Seconds that PostgreSQL may take to connect, to run one statement or to give a lock."
    ] = 5
    database_failover: Annotated[
        str,
        "What happens after PostgreSQL failed over or was restored. `fence` refuses all signatures made before, as "
        "`uponce fence` does. `trust` skips this. Use `trust` only with synchronous standbys, which miss no commit.",
    ] = "fence"
    storage: Annotated[
        str | None,
        "`file:///path/to/folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`. The default "
        "is `media` in the data folder.",
    ] = None
    pack_bytes: Annotated[
        int,
        "The largest blob, in bytes, that goes into a pack: a file of many blobs in the folder `packs` of the storage, "
        "which stores a group of uploads with one fsync. Each larger blob is a file. With 0, every blob is a file. "
        "Buckets have no packs.",
    ] = 256 * 1024
    storage_seconds: Annotated[int, "Seconds that one request to the bucket may take, retries included."] = 30
    storage_redirect: Annotated[
        int,
        "Seconds for which a delivery redirects to a presigned URL of the bucket. With 0, uponce sends the bytes.",
    ] = 0
    storage_accel: Annotated[
        str,
        "Lets the nginx in front send the bytes, by `X-Accel-Redirect`. Set it to nginx's internal location, such as "
        "`/blobs/`, for the folder `blobs` of the storage. When empty, uponce sends the bytes itself.",
    ] = ""
    secret_key: Annotated[
        str | None,
        "Encrypts API secrets at rest: 64 hex digits. The default is the file `secret.key` in the data folder, which "
        "the first start makes.",
    ] = None
    cloud: Annotated[str, "Name of the cloud (tenant) that the first start makes."] = "media"
    keys: Annotated[
        str | None,
        "API keys that must exist, separated by spaces or newlines: "
        "`cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload&window=3600&name=browser`. The part after `?` is "
        "optional. Use it to keep a pair that a backend already signs with. With this setting the first start makes "
        "no other keys and prints no secret. A key that exists is never changed.",
    ] = None
    keys_file: Annotated[
        str | None, "Path of a file that holds more such keys, one a line, such as a Docker or Kubernetes secret."
    ] = None
    host: Annotated[str, "Address to listen on. `0.0.0.0` is every address of this machine."] = "127.0.0.1"
    port: Annotated[int, "Port to listen on. 0 picks a free port."] = 8000
    workers: Annotated[int, "Number of server processes."] = 1
    drain_seconds: Annotated[
        int, "Seconds for which a server goes on serving after SIGTERM. `/readyz` answers 503 for this time."
    ] = 0
    instance: Annotated[
        str | None, "Name of this server in its log and its metrics. The default is the machine's name."
    ] = None
    metrics_token: Annotated[
        str,
        "Opens `/metrics` to requests with `Authorization: Bearer TOKEN`. Use visible ASCII, such as the output of "
        "`openssl rand -hex 32`. When empty, `/metrics` does not exist and uponce counts nothing.",
    ] = ""
    public_url: Annotated[
        str | None, "Base of the URLs in answers. The default is the host that the client called."
    ] = None
    trusted_proxies: Annotated[
        str,
        "Addresses or networks of the proxies in front, such as `127.0.0.1, 10.0.0.0/8`. uponce takes a client's "
        "address and scheme from `X-Forwarded-For` and `X-Forwarded-Proto` of these proxies only. Empty: of none.",
    ] = ""
    playground: Annotated[
        str,
        "The page `/playground`, on which people without a key upload to the cloud `playground`. `off`; `local` for "
        "browsers on this machine only; or `public` for every client that reaches this server.",
    ] = "off"
    playground_bytes: Annotated[int, "Most bytes of a file that the playground signs for."] = 100 * 1024 * 1024
    window: Annotated[int, "Seconds that a signature of a new key lives."] = 3600
    decoders: Annotated[int, "Number of decoder processes for each server process."] = 2
    decoder_seconds: Annotated[
        int,
        "Seconds of processor time that a decoder may use for one file. The file may take five times as long in all.",
    ] = 2
    decoder_seconds_per_grant: Annotated[
        int, "Seconds of decoder time that the refused files of one signature may use. Then the signature is refused."
    ] = 10
    decoder_memory: Annotated[
        int, "Bytes of memory that one decoder may use. A WebP of 100 megapixels needs 430 MiB, other files less."
    ] = 448 * 1024 * 1024
    sweep_seconds: Annotated[int, "Seconds between two sweeps of a running server."] = 300
    grace_seconds: Annotated[int, "Seconds for which a sweep spares unfinished uploads and orphans."] = 7200
    audit_days: Annotated[int, "Days for which uponce keeps the audit."] = 90
    log_level: Annotated[
        str,
        "`debug`, `info`, `warning` or `error`. `info` logs one line for each upload, deletion and refusal; `debug` "
        "logs every request.",
    ] = "warning"
    log_format: Annotated[str, "`text`, or `json` for one JSON object a line."] = "text"
    limits: Limits = Limits()

    @property
    def data_dir(self) -> Path:
        return Path(self.data).absolute()

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks in `trusted_proxies`; ValueError names the text that is none."""
        return tuple(ip_network(text) for text in self.trusted_proxies.replace(",", " ").split())

    @property
    def server_name(self) -> str:
        return self.instance or platform.node()

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir}/uponce.db"

    @property
    def storage_url(self) -> str:
        return self.storage or f"file://{self.data_dir}/media"


_LIMITS = frozenset(Limits.__dataclass_fields__)
_TYPES: dict[str, Any] = {**get_type_hints(Settings), **dict.fromkeys(_LIMITS, int)}
del _TYPES["limits"]
_SECRET = frozenset({"secret_key", "metrics_token", "keys"})
MASK = "********"


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the settings of the command line, the environment, `.env` and the TOML file.

    SettingRefused names the setting as it was written, its value and what is expected. An unknown name is refused
    too: a misspelt limit would be no limit.
    """
    given = gather(environ, **overrides)
    values = {name: _converted(name, setting) for name, setting in given.items()}
    limits = {name: values.pop(name) for name in list(values) if name in _LIMITS}
    settings = Settings(**values, limits=Limits(**limits))
    for name, works, expected in _judged(settings):
        if not works:
            raise _refused(name, given[name], expected)
    return settings


def gather(environ: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, Given]:
    """Return all settings that were given, by lower-case name. Without `environ`: those of this process and `.env`."""
    found = read_sources(environ) | {
        name: Given(value, "command line", "--" + name.replace("_", "-"))
        for name, value in overrides.items()
        if value is not None
    }
    for name, given in found.items():
        if name not in _TYPES:
            raise SettingRefused(f"There is no setting {given.name} ({given.source}). `uponce settings` lists all.")
    return found


def shown(name: str, value: Any) -> Any:
    """Return the value as people may see it: without secrets and without passwords of URLs."""
    if name in _SECRET and value:
        return MASK
    if name == "database" and isinstance(value, str):
        return re.sub(r"(://[^:/@]*:)[^@]*@", rf"\1{MASK}@", value)
    return value


def effective(environ: Mapping[str, str] | None = None, **overrides: Any) -> list[dict[str, Any]]:
    """Return every setting with its effective value (secrets masked) and where that value comes from."""
    settings, given = load(environ, **overrides), gather(environ, **overrides)
    values = _flat(settings) | {"database": settings.database_url, "storage": settings.storage_url}
    values |= {"data": str(settings.data_dir), "instance": settings.server_name}
    return [
        {
            "name": PREFIX + name.upper(),
            "value": shown(name, values[name]),
            "source": given[name].source if name in given else "default",
        }
        for name in _TYPES
    ]


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which `load` makes the same settings again: worker processes get them."""
    return {PREFIX + name.upper(): str(value) for name, value in _flat(settings).items() if value is not None}


def cloudinary_url(environ: Mapping[str, str] | None = None) -> str | None:
    """Return CLOUDINARY_URL, by which a command reaches a server on another machine."""
    return (os.environ if environ is None else environ).get("CLOUDINARY_URL")


def preset_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Return the keys of `keys` and `keys_file`. SettingRefused names the setting and never the secret."""
    found = _parsed_keys(settings.keys or "", settings.window, f"{PREFIX}KEYS")
    if settings.keys_file is None:
        return found
    source = f"{PREFIX}KEYS_FILE={settings.keys_file}"
    try:
        text = Path(settings.keys_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingRefused(f"{source} cannot be read: {error}.") from error
    return found + _parsed_keys(text, settings.window, source)


def parse_key(url: str, window: int, source: str = "this line") -> ApiKey:
    """Return the key that `cloudinary://KEY:SECRET@CLOUD?uses=…&scope=…&window=…&name=…` describes.

    `window` is the default. The query may also have `upload_prefix`, which SDKs read. SettingRefused names `source`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    cloud = parts.netloc.rpartition("@")[2]  # `hostname` would lower its case
    if parts.scheme != "cloudinary" or not (parts.username and parts.password and cloud) or parts.path.strip("/"):
        raise SettingRefused(f"{source} must have keys like cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload.")
    options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    options.pop("upload_prefix", None)
    api_key = unquote(parts.username)
    unknown = sorted(options.keys() - {"uses", "scope", "window", "name"})
    if unknown:
        raise SettingRefused(
            f"{source}, key {api_key}: there is no option {unknown[0]}. Use uses, scope, window, name."
        )
    try:
        return ApiKey(
            api_key=api_key,
            cloud=cloud,
            secrets=(unquote(parts.password),),
            uses=KeyUses(options.get("uses", "once")),
            scope=KeyScope(options.get("scope", "upload")),
            window=int(options.get("window", window)),
            name=options.get("name", ""),
        )
    except ValueError:
        raise SettingRefused(
            f"{source}, key {api_key}: uses must be once or unlimited, scope upload or all, window a number of seconds."
        ) from None


def _parsed_keys(text: str, window: int, source: str) -> tuple[ApiKey, ...]:
    return tuple(parse_key(word, window, source) for word in text.split())


def _flat(settings: Settings) -> dict[str, Any]:
    limits = {name: getattr(settings.limits, name) for name in settings.limits.__dataclass_fields__}
    return {name: value for name, value in msgspec.structs.asdict(settings).items() if name != "limits"} | limits


def _converted(name: str, given: Given) -> Any:
    try:
        return msgspec.convert(given.value, _TYPES[name], strict=False)
    except msgspec.ValidationError:
        raise _refused(name, given, "a whole number" if _TYPES[name] is int else "text") from None


def _refused(name: str, given: Given, expected: str) -> SettingRefused:
    value = shown(name, given.value)
    return SettingRefused(f"{given.name}={value} ({given.source}) is not valid: it must be {expected}.")


_POSITIVE = (
    "workers",
    "window",
    "playground_bytes",
    "decoders",
    "decoder_seconds",
    "decoder_seconds_per_grant",
    "decoder_memory",
    "sweep_seconds",
    "database_connections",
    "database_seconds",
    "storage_seconds",
)
_NOT_NEGATIVE = (
    "storage_redirect",
    "pack_bytes",
    "drain_seconds",
    "grace_seconds",
    "audit_days",
    "skew",
    "small_body_bytes",
)
_CHOICES = {
    "database_failover": ("fence", "trust"),
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("text", "json"),
    "playground": ("off", "local", "public"),
}


def _judged(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    """Yield for each setting that could be wrong: its name, whether it can work, and what is expected."""
    values = _flat(settings)
    for name in (*_POSITIVE, *sorted(_LIMITS - set(_NOT_NEGATIVE))):
        yield name, values[name] >= 1, "at least 1"
    for name in _NOT_NEGATIVE:
        yield name, values[name] >= 0, "0 or more"
    for name, choices in _CHOICES.items():
        yield name, values[name].lower() in choices, " or ".join(choices)
    yield "storage_accel", re.fullmatch("(/|/.*/)?", settings.storage_accel) is not None, "empty, or like /blobs/"
    yield "port", 0 <= settings.port <= 65535, "0 to 65535"
    yield "host", settings.host != "", "an address of this machine, such as 127.0.0.1"
    yield "public_url", settings.public_url is None or _is_url(settings.public_url), "a URL like https://media.example"
    # Behind a server in front, every client seems to be on this machine.
    hidden = settings.playground == "local" and settings.public_url is not None
    yield "playground", not hidden, "off or public where UPONCE_PUBLIC_URL is set"
    yield "trusted_proxies", _are_networks(settings), "IP addresses or networks, separated by commas"
    yield "metrics_token", re.fullmatch(r"[!-~]*", settings.metrics_token) is not None, "visible ASCII without spaces"


def _is_url(text: str) -> bool:
    try:
        return urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).netloc)
    except ValueError:
        return False


def _are_networks(settings: Settings) -> bool:
    try:
        _ = settings.proxy_networks
    except ValueError:
        return False
    return True
