"""The address of the server: where it listens, what `serve` writes into the data folder, how other commands find it."""

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from uponce.cli.options import warn
from uponce.config import Settings, masked
from uponce.config.rules import EVERY_ADDRESS, http_url
from uponce.core.account import account_url
from uponce.core.errors import SettingRefused
from uponce.core.values import Algorithm, ApiKey

log = logging.getLogger("uponce")

_FILE = "running.json"
_PROBE_SECONDS = 10  # a busy server answers late
_LAST_PROBE_SECONDS = 2  # a server that ends waits for no other one
_BACKLOG = 2048
_LOCAL = ("127.0.0.1", "::1", "localhost")


def outside_url(settings: Settings) -> str | None:
    """Return a URL for other machines if the server listens on every address, else None."""
    if settings.host not in EVERY_ADDRESS:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # chooses the outgoing address; a datagram socket sends nothing by this
        return http_url(probe.getsockname()[0], settings.port)
    return http_url(socket.gethostname(), settings.port)


def unreachable(settings: Settings) -> str | None:
    """Return a warning if the server posts notifications whose URLs other machines cannot call, else None.

    On a machine of a developer the receiver is often local too, and no front server stands before uponce.
    """
    if not settings.notification_url or settings.public_url is not None:
        return None
    is_behind = settings.trusted_proxies != "" and settings.host in _LOCAL
    if settings.host not in EVERY_ADDRESS and not is_behind:
        return None
    return (
        f"UPONCE_HOST is {settings.host}, so URLs in notifications lead to this machine only. Set UPONCE_PUBLIC_URL to "
        "the address that clients use."
    )


def find_base_url(settings: Settings, url: str | None = None) -> str:
    """Return the base of the URLs of the server on this data folder, or `url` if it is given.

    A line on stderr warns if no server answers there. What is signed for that address works once a server runs there.
    """
    if url is not None:
        return checked_url(url)
    written = _read(settings.data_dir / _FILE)
    if written is None:
        warn(f"No server runs on {settings.data_dir}. This is for {settings.base_url}; use --url for another address.")
        return settings.base_url
    if not _answers(written["local"]):
        warn(
            f"No server answers at {written['local']}, where the last one listened. Start `uponce serve`, or use --url."
        )
    return settings.public_url.rstrip("/") if settings.public_url is not None else written["url"]


def running_server(settings: Settings) -> str | None:
    """Return the local URL of the server on this data folder, if it answers."""
    written = _read(settings.data_dir / _FILE)
    return written["local"] if written is not None and _answers(written["local"]) else None


def checked_url(url: str) -> str:
    """Return the URL without a slash at its end. Raise SettingRefused unless it is a URL of HTTP."""
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    with suppress(ValueError, LocationParseError):
        parts = parse_url(url)
        if parts.scheme in ("http", "https") and parts.host:
            return url.rstrip("/")
    raise SettingRefused(
        f"--url {masked('url', url)} is not an address. Write it like http://127.0.0.1:8000 or https://media.example."
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 picks a free port. Clients that connect before the server serves wait.

    Raise SettingRefused, with the cure, if the system refuses it.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise SettingRefused(
            f"UPONCE_HOST={host} is not an address of this machine: {getattr(error, 'strerror', None) or error}. Use "
            "127.0.0.1, 0.0.0.0 for every address, or an address that `ip address` shows."
        ) from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        place = f"{host}:{port}" if port else host
        raise SettingRefused(f"Cannot listen on {place}: {error.strerror}. {_cure(error, host)}") from error
    listener.listen(_BACKLOG)
    return listener


def _cure(error: OSError, host: str) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"UPONCE_HOST={host} is not an address of this machine."
    if error.errno == errno.EACCES:
        return "Choose a UPONCE_PORT above 1023, and a server such as nginx or Caddy in front of it."
    return "Choose another UPONCE_PORT."


@contextmanager
def announced(settings: Settings) -> Iterator[None]:
    """Let other commands find this server in the data folder while it runs.

    Afterwards they find the earlier server on this folder, if it still answers.
    """
    path = settings.data_dir / _FILE
    earlier = _read(path)
    facts = {"url": settings.base_url, "local": http_url(settings.host, settings.port), "pid": os.getpid()}
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        _write(path, facts)
    except OSError as error:
        log.warning(
            "Commands cannot find this server: %s cannot be written (%s). Use their option --url.", path, error.strerror
        )
    try:
        yield
    finally:
        if (_read(path) or facts)["pid"] == os.getpid():  # else another server on this folder has written there since
            with suppress(OSError):
                if (
                    earlier is not None
                    and earlier["local"] != facts["local"]
                    and _answers(earlier["local"], _LAST_PROBE_SECONDS)
                ):
                    _write(path, earlier)
                else:
                    path.unlink()


def cloudinary_url(key: ApiKey, base: str) -> str:
    """Return the CLOUDINARY_URL of a key, as the Node and Python SDKs read it. They sign with SHA-1 by default."""
    algorithm = {} if Algorithm.SHA1 in key.algorithms else {"signature_algorithm": "sha256"}
    return account_url(key.api_key, key.secrets[0], key.cloud, upload_prefix=base, **algorithm)


def _read(path: Path) -> dict[str, str] | None:
    with suppress(OSError, ValueError):
        read = json.loads(path.read_text())
        if isinstance(read, dict) and {"url", "local", "pid"} <= read.keys():
            return read
    return None


def _write(path: Path, facts: Mapping[str, object]) -> None:
    draft = path.with_name(f"{_FILE}.{os.getpid()}")
    draft.write_text(json.dumps(facts) + "\n")
    draft.replace(path)


def _answers(url: str, seconds: float = _PROBE_SECONDS) -> bool:
    import urllib3

    with suppress(urllib3.exceptions.HTTPError):
        answer = urllib3.request("GET", f"{url}/healthz", retries=False, timeout=urllib3.Timeout(seconds))
        return answer.status == 200
    return False
