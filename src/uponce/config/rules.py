"""The values that settings may have, and what an error says of others."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from uponce.core.policy import MOST_BYTES, MOST_NUMBER, MOST_SECONDS


@dataclass(frozen=True, slots=True)
class ValueRule:
    """The values that a setting may have. `expected` completes an error: "it must be …"."""

    expected: str
    works: Callable[[Any], bool]
    any_case: bool = False  # `load` makes the value lower-case, so all code can compare it directly


DAY = 86400
SECRET = "secret"  # no output shows the value
NOTED = "noted"  # a server writes the value to the database, for commands in shells without its settings


def between(least: int, most: int) -> ValueRule:
    return ValueRule(f"{least} to {most}", lambda number: least <= number <= most)


FOLDER = ValueRule(
    "a folder, such as ./uponce-data, without ~, which only shells replace", lambda text: text[:1] not in ("", "~")
)
WEEK = 7 * DAY  # the longest time that S3 signs a URL for, and that a key gives its signatures
DAYS = between(0, 36_500)
SECONDS = between(1, MOST_SECONDS)
MAYBE_SECONDS = between(0, MOST_SECONDS)
BYTES = between(1, MOST_BYTES)
AT_LEAST_1 = between(1, MOST_NUMBER)
PROCESSES = between(1, 1_000)
OF_A_SERVICE = between(1, DAY)  # in seconds; PostgreSQL and obstore take no times of years


def either(choices: Iterable[str]) -> str:
    """Return the choices as one text: `one, another or a third`."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def one_of(*choices: str) -> ValueRule:
    return ValueRule(" or ".join(choices), lambda text: text in choices, any_case=True)


def matching(pattern: str, expected: str) -> ValueRule:
    return ValueRule(expected, lambda text: re.fullmatch(pattern, text) is not None)


def is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # also for a port that is no number up to 65535
        return False


EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 compared, not bound


def http_url(host: str, port: int) -> str:
    """Return the URL of a server that listens there, for clients on its machine."""
    host = EVERY_ADDRESS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


def is_base(text: str) -> bool:
    """Return whether paths may follow the text. Only ASCII: browsers do not read other letters in headers."""
    pattern = r"https?://([^/?#@\s]+@)?([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?/?"
    return is_url(text) and text.isascii() and re.fullmatch(pattern, text, re.IGNORECASE) is not None


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks in a text. Raise ValueError, which names the word that is no network."""
    return tuple(map(_network, text.replace(",", " ").split()))


def _network(word: str) -> IPv4Network | IPv6Network:
    """Return the network. IPv4 inside IPv6, as `ss` shows it, becomes IPv4, as in the address of a client."""
    network = ip_network(word)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _are_networks(text: str) -> bool:
    try:
        networks(text)
    except ValueError:
        return False
    return True


NETWORKS = ValueRule(
    "IP addresses or networks, separated by commas, without host bits: 10.0.0.0/8 and not 10.0.0.5/8", _are_networks
)


DATABASE = ValueRule(
    "sqlite:////path/to/file or postgresql://user:password@host/database. Remove the setting to use uponce.db in the "
    "data folder",
    lambda url: url != "",
)


def _is_storage(url: str | None) -> bool:
    """Return False for an empty URL, and for one with credentials: no bucket has : or @ in its name."""
    place = re.match(r"[\w+.-]+://([^/]*)", url or "")
    return url != "" and not (place and {":", "@"} & {*place[1]})


STORES = ("file:///path/to/folder", "s3://bucket/prefix", "gs://bucket/prefix", "az://container/prefix")
STORAGE = ValueRule(
    f"{either(STORES)}, without credentials: they come from the environment. Remove the setting to use media in the "
    "data folder",
    _is_storage,
)
