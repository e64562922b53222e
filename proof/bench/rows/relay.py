"""A relay in front of an account, which is an uponce too: what the relay adds to the same uploads sent directly.

For large files each server has one core: two servers on the same two cores would measure the machine.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from proof.bench.client import Client
from proof.bench.measure import Sample
from proof.bench.requests import TAIL, signed_fields, upload
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.rows import parts, uploads
from proof.bench.servers import MIB, Program, Server, uponce

_WARM_UPS = 20
_SLOW = 64
_SLOW_MEGABYTES = 4
_STEPS, _LOOK_EVERY = 256, 32
_ROOM = {"max_unverified_uploads": 2 * _SLOW, "max_unverified_per_address": 2 * _SLOW, "min_chunk_bytes": 1}


def on_core(core: int, program: Program) -> Program:
    return replace(program, command=("taskset", "--cpu-list", str(core), *program.command))


@contextmanager
def relay(account: Server, python: str, where: Callable[[Program], Program] = lambda it: it) -> Iterator[Server]:
    """Yield a second server that passes uploads on to the first one."""
    key, secret, cloud = account.keys()[1]
    url = f"cloudinary://{key}:{secret}@{cloud}?upload_prefix={account.base}"
    program = where(uponce(python, relay=url, min_chunk_bytes=1))
    with Server(program, account.data.with_name(f"{account.data.name}-r")) as it:
        yield it


def measure_added(account: Server, setup: Setup, *, python: str) -> Sample:
    """Send one request at a time, to the account and to the relay by turns."""
    picture, size = setup.picture, setup.picture.stat().st_size
    taken: tuple[list[float], list[float]] = ([], [])
    with relay(account, python) as front, ExitStack() as stack:
        servers = (account, front)
        clients = [stack.enter_context(closing(Client(server, picture))) for server in servers]
        end = time.perf_counter() + 2 * setup.seconds
        while time.perf_counter() < end or len(taken[1]) <= 2 * _WARM_UPS:
            for server, client, times in zip(servers, clients, taken, strict=True):
                key = server.keys()[0]
                head = upload(server, key, picture, signed_fields(key))
                begun = time.perf_counter()
                client.ask(head, 0, size, TAIL)
                times.append(1000 * (time.perf_counter() - begun))
    direct, relayed = (statistics.quantiles(times[_WARM_UPS:], n=100) for times in taken)
    return {
        "added ms": relayed[49] - direct[49],
        "direct p50 ms": direct[49],
        "direct p99 ms": direct[98],
        "relay p50 ms": relayed[49],
        "relay p99 ms": relayed[98],
    }


def measure_rate(account: Server, setup: Setup, *, python: str) -> Sample:
    with relay(account, python) as front:
        return uploads.measure(front, setup)


def measure_film(account: Server, setup: Setup, *, python: str, send: parts.Send) -> Sample:
    with relay(account, python, partial(on_core, 1)) as front:
        return parts.measure(front, setup, send=send)


def measure_slow(account: Server, setup: Setup, *, python: str) -> Sample:
    """Measure the relay's memory while 64 uploads arrive, above that of an idle relay that has passed one upload on."""
    film = setup.film(min(_SLOW_MEGABYTES, setup.megabytes))
    size = film.stat().st_size
    with relay(account, python) as front, ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(front, film))) for _ in range(_SLOW)]
        _begin(front, clients[0], film)
        clients[0].ask(b"", 0, size, TAIL)
        idle = front.proportional()
        for client in clients:
            _begin(front, client, film)
        used = []
        for step in range(_STEPS):
            for client in clients:
                client.send(size * step // _STEPS, size * (step + 1) // _STEPS)
            if step % _LOOK_EVERY == _LOOK_EVERY - 1:
                used.append(front.proportional() - idle)
        for client in clients:  # an upload that is not under way any more is an error here
            client.ask(b"", tail=TAIL)
    return {"memory above idle MiB": max(used) / MIB, "uploads under way": float(_SLOW)}


def _begin(front: Server, client: Client, film: Path) -> None:
    key = front.keys()[0]
    client.send(head=upload(front, key, film, signed_fields(key)))


_ADDED, _RATE, _MEMORY = "100 KB, one connection", "100 KB, 16 connections", f"{_SLOW} slow uploads"
_SENDS: dict[str, parts.Send] = {parts.ONE: parts.at_once, parts.CHUNKS: parts.in_chunks}
_RELAY, _DIRECT = "relay, ", "direct, "


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    program, python = uponce(version.python, **_ROOM), version.python
    cases = [
        Case(version.named(_RELAY + _ADDED), program, partial(measure_added, python=python)),
        Case(version.named(_DIRECT + _RATE), program, uploads.measure),
        Case(version.named(_RELAY + _RATE), program, partial(measure_rate, python=python)),
    ]
    for name, send in _SENDS.items():
        through = partial(measure_film, python=python, send=send)
        cases.append(Case(version.named(_DIRECT + name), on_core(0, program), partial(parts.measure, send=send)))
        cases.append(Case(version.named(_RELAY + name), on_core(0, program), through))
    return [*cases, Case(version.named(_RELAY + _MEMORY), program, partial(measure_slow, python=python))]


def _of(name: str) -> Sequence[str]:
    return (f"uponce, {name}",)


P10 = Row(
    "P10",
    "A relay in front of an account that is an uponce: 100 KB JPEGs, an MP4 of 500 MB with one core a server, 64 slow "
    "uploads at a time",
    _own,
    (
        Claim("added to the median, ms", _of(_RELAY + _ADDED), figure="added ms", at_most=5),
        Claim("directly, 16 connections", _of(_RELAY + _RATE), _of(_DIRECT + _RATE)),
        Claim("directly, 500 MB in one request", _of(_RELAY + parts.ONE), _of(_DIRECT + parts.ONE), at_least=0.8),
        Claim("directly, 500 MB in chunks", _of(_RELAY + parts.CHUNKS), _of(_DIRECT + parts.CHUNKS)),
        Claim("memory above idle", _of(_RELAY + _MEMORY), figure="memory above idle MiB", at_most=16),
    ),
)
