"""Settings: the one place that reads the environment.

Every setting is a variable `UPONCE_<NAME>`, or the lower-case name in a TOML file named by `UPONCE_CONFIG`; the
environment wins. Limits have the names of core/policy.py.
"""

import os
import platform
import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from uponce.core.errors import SettingRefused
from uponce.core.policy import Limits

PREFIX = "UPONCE_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can set, with its default. Sizes in bytes, times in seconds.

    The reference of settings prints the texts.
    """

    data: Annotated[str, "Folder of the database, the media and the secret key, unless they are set apart."] = (
        "./uponce-data"
    )
    database: Annotated[
        str | None,
        "`sqlite:////path/to/file`, or `postgresql://user:password@host/database`; by default `uponce.db` in the data "
        "folder.",
    ] = None
    database_connections: Annotated[int, "Connections of each server process to PostgreSQL, at most."] = 8
    database_seconds: Annotated[int, "Seconds PostgreSQL may take to connect, for a statement, for a lock."] = 5
    database_failover: Annotated[
        str,
        "When another PostgreSQL has taken over, or one was restored: `fence` refuses all signatures from before, as "
        "`uponce fence` does; `trust` does not, for synchronous standbys, which lack no use.",
    ] = "fence"
    storage: Annotated[
        str | None,
        "`file:///path/to/folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; by default "
        "`media` in the data folder.",
    ] = None
    storage_seconds: Annotated[int, "Seconds one request to an object store may take, retries included."] = 30
    storage_redirect: Annotated[
        int,
        "Delivery redirects to the object store, by a URL that is good for so many seconds; 0 sends the bytes itself.",
    ] = 0
    storage_accel: Annotated[
        str,
        "Delivery leaves the bytes to the nginx in front, by `X-Accel-Redirect`: its internal location, such as "
        "`/blobs/`, for the folder `blobs` of the storage. Empty sends the bytes itself.",
    ] = ""
    secret_key: Annotated[
        str | None,
        "Encrypts API secrets at rest: 64 hex digits. By default `secret.key` in the data folder, made at need.",
    ] = None
    cloud: Annotated[str, "Name of the cloud (tenant) that a first start makes."] = "media"
    host: Annotated[str, "Address to listen on."] = "127.0.0.1"
    port: Annotated[int, "Port to listen on; 0 picks a free one."] = 8000
    workers: Annotated[int, "Server processes."] = 1
    drain_seconds: Annotated[
        int, "Seconds for which a server that is told to stop goes on serving, while `/readyz` says that it will go."
    ] = 0
    instance: Annotated[
        str | None, "What this server is called in its log and its metrics; by default the machine's name."
    ] = None
    metrics_token: Annotated[
        str,
        "Opens `/metrics` to who sends `Authorization: Bearer` and this: visible ASCII, such as `openssl rand -hex 32` "
        "makes. Empty: there is no such address, and nothing is counted.",
    ] = ""
    public_url: Annotated[str | None, "Base of the URLs in answers; by default the host that the client called."] = None
    trusted_proxies: Annotated[
        str,
        "Addresses or networks of the proxies in front, such as `127.0.0.1, 10.0.0.0/8`. uponce takes a client's "
        "address and scheme from `X-Forwarded-For` and `X-Forwarded-Proto` of these proxies only. Empty: of none.",
    ] = ""
    window: Annotated[int, "Seconds a signature lives; new keys get it."] = 3600
    decoders: Annotated[int, "Decoder processes for each server process."] = 2
    decoder_seconds: Annotated[int, "Seconds one file may take a decoder."] = 10
    decoder_memory: Annotated[int, "Bytes of address space of one decoder."] = 1024 * 1024 * 1024
    sweep_seconds: Annotated[int, "Seconds between two sweeps of a running server."] = 300
    grace_seconds: Annotated[int, "Seconds for which the sweeper spares unfinished uploads and orphans."] = 7200
    audit_days: Annotated[int, "Days for which the audit is kept."] = 90
    log_level: Annotated[str, "debug, info, warning or error."] = "warning"
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
_OWN = frozenset(Settings.__struct_fields__) - {"limits"}
# Read by this module itself, and so no field of Settings.
_META = frozenset({"config"})


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment, a TOML file and the command line; the last one wins.

    SettingRefused names the variable, the value and what is expected. An unknown UPONCE_ variable is refused too:
    a misspelt limit would be no limit.
    """
    environment = os.environ if environ is None else environ
    given = {name.removeprefix(PREFIX).lower(): value for name, value in environment.items() if name.startswith(PREFIX)}
    values: dict[str, Any] = {**_read_file(given.pop("config", None)), **given}
    values |= {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(values) - _OWN - _LIMITS - _META)
    if unknown:
        raise SettingRefused(f"There is no setting {PREFIX}{unknown[0].upper()}. docs/reference/settings.md lists all.")
    limits = {name: _convert(name, values.pop(name), int) for name in list(values) if name in _LIMITS}
    types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    own = {name: _convert(name, value, types[name]) for name, value in values.items()}
    return _checked(Settings(**own, limits=Limits(**limits)))


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables from which `load` makes the same settings again: how worker processes get them."""
    values = {**msgspec.structs.asdict(settings), **{name: getattr(settings.limits, name) for name in _LIMITS}}
    del values["limits"]
    return {PREFIX + name.upper(): str(value) for name, value in values.items() if value is not None}


def cloudinary_url(environ: Mapping[str, str] | None = None) -> str | None:
    """CLOUDINARY_URL, by which a command reaches a server on another machine."""
    return (os.environ if environ is None else environ).get("CLOUDINARY_URL")


def _read_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingRefused(f"{PREFIX}CONFIG={path} cannot be read: {error}.") from error


def _convert(name: str, value: Any, type_: Any) -> Any:
    try:
        return msgspec.convert(value, type_, strict=False)
    except msgspec.ValidationError as error:
        raise SettingRefused(f"{PREFIX}{name.upper()}={value!r} is not valid: {error}.") from None


_POSITIVE = (
    "workers",
    "window",
    "decoders",
    "decoder_seconds",
    "decoder_memory",
    "sweep_seconds",
    "database_connections",
    "database_seconds",
    "storage_seconds",
)


def _checked(settings: Settings) -> Settings:
    for name in _POSITIVE:
        _require(getattr(settings, name) >= 1, name, getattr(settings, name), "at least 1")
    for name in _LIMITS:
        value = getattr(settings.limits, name)
        _require(value >= (0 if name == "skew" else 1), name, value, "a positive number")
    failover = settings.database_failover
    _require(failover in ("fence", "trust"), "database_failover", failover, "fence or trust")
    _require(settings.storage_redirect >= 0, "storage_redirect", settings.storage_redirect, "0 or a number of seconds")
    accel = settings.storage_accel
    _require(not accel or accel[0] == accel[-1] == "/", "storage_accel", accel, "empty, or a location like /blobs/")
    _require(settings.drain_seconds >= 0, "drain_seconds", settings.drain_seconds, "0 or a number of seconds")
    _require(0 <= settings.port <= 65535, "port", settings.port, "0 to 65535")
    url = settings.public_url
    good_url = url is None or (urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).netloc))
    _require(good_url, "public_url", url, "a URL like https://media.example")
    try:
        _ = settings.proxy_networks
    except ValueError as error:
        expected = f"IP addresses or networks, separated by commas ({error})"
        _require(False, "trusted_proxies", settings.trusted_proxies, expected)
    token = settings.metrics_token
    _require(re.fullmatch(r"[!-~]*", token) is not None, "metrics_token", "…", "empty, or visible ASCII without spaces")
    level = settings.log_level.lower()
    _require(level in ("debug", "info", "warning", "error"), "log_level", level, "debug, info, warning or error")
    return settings


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise SettingRefused(f"{PREFIX}{name.upper()}={value} is not valid: it must be {expected}.")
