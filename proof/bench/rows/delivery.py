"""Originals: many small ones, and a range of a large one."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

from proof.bench import peers
from proof.bench.measure import Sample, Traffic, latencies, send
from proof.bench.requests import get, signed_fields
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.servers import BenchmarkError, Server, uponce

_CONNECTIONS = 64
_RANGE = {"Range": "bytes=1000000-"}


def get_picture(server: Server, setup: Setup, path: str) -> Sample:
    heads = [get(server, path)]
    warm_up = Traffic(heads, seconds=0.5, connections=_CONNECTIONS, cycle=True)
    send(server, warm_up)
    (measured,) = send(server, Traffic(heads, seconds=setup.seconds, connections=_CONNECTIONS, cycle=True))
    return {"GET/s": measured.rate, **latencies(measured.outcome), **measured.costs}


def get_range(server: Server, setup: Setup, path: str) -> Sample:
    heads = [get(server, path, _RANGE)]
    (measured,) = send(server, Traffic(heads, seconds=setup.seconds, connections=1, cycle=True, expect=206))
    return {"MB/s": measured.outcome.received / 1e6 / measured.outcome.seconds, **measured.costs}


def get_behind_nginx(server: Server, setup: Setup) -> Sample:
    path = _stored(server, setup.picture)
    with Server(peers.in_front_of(server), server.data.with_name(f"{server.data.name}-front")) as nginx:
        return get_picture(nginx, setup, path)


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    program = uponce(version.python)
    return [
        Case(version.named("GET"), program, lambda s, u: get_picture(s, u, _stored(s, u.picture))),
        Case(version.named("range"), program, lambda s, u: get_range(s, u, _stored(s, u.film(u.megabytes)))),
    ]


def _stored(server: Server, file: Path) -> str:
    """Upload it; the path of its URL."""
    key = server.keys()[0]
    with file.open("rb") as body:
        fields = {**signed_fields(key), "file": (file.name, body.read())}
    url = f"{server.base}/v1_1/{key.cloud}/auto/upload"
    answer = urllib3.request("POST", url, fields=fields, timeout=60)  # type: ignore[arg-type]
    if answer.status != 200:
        raise BenchmarkError(f"{file.name} was not taken: {answer.data[:500]!r}")
    return urlsplit(str(answer.json()["url"])).path


def _peers(setup: Setup) -> Sequence[Case]:
    picture, film = setup.picture, setup.film(setup.megabytes)
    small = partial(get_picture, path=f"/{picture.name}")
    large = partial(get_range, path=f"/{film.name}")
    behind = uponce(sys.executable, storage_accel="/blobs/")
    return [
        Case("uponce behind nginx, GET", behind, get_behind_nginx),
        *(Case(f"{name} GET", peers.serving(name, picture), small) for name in peers.STATIC),
        Case("nginx range", peers.serving("nginx", film), large),
    ]


P6 = Row(
    "P6",
    "GET of a 100 KB original, 64 connections; a range over one of 500 MB, one connection",
    _own,
    (
        Claim("express static", ("uponce, GET",), ("express GET",), at_least=1.0),
        Claim("moonshot: Caddy", ("uponce, GET",), ("caddy GET",), at_least=1.0),
        Claim("nginx, GET: CPU", ("uponce, GET",), ("nginx GET",), figure="server CPU ms each", at_most=2.0),
        Claim("nginx, GET, with nginx in front", ("uponce behind nginx, GET",), ("nginx GET",), at_least=0.8),
        Claim("nginx, range", ("uponce, range",), ("nginx range",), at_least=0.9),
    ),
    _peers,
)
