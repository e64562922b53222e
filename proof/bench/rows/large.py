"""Large uploads: one stream and eight, and the memory that they take."""

from collections.abc import Sequence
from functools import partial

from proof.bench import peers
from proof.bench.measure import Sample, Traffic, send
from proof.bench.requests import uploads
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.servers import MIB, Server, uponce

SHAPES = ((1, 500), (8, 100))
_NO_END = 600.0


def shape(streams: int, megabytes: int) -> str:
    return f"{streams} × {megabytes} MB"


def measure(server: Server, setup: Setup, *, streams: int, megabytes: int) -> Sample:
    film = setup.film(megabytes)
    heads = uploads(server, server.keys()[0], film, streams)
    return transfer(server, Traffic(heads, film, connections=streams, seconds=_NO_END))


def transfer(server: Server, traffic: Traffic) -> Sample:
    assert traffic.file is not None
    server.forget_peak()
    idle = server.resident()
    (measured,) = send(server, traffic)
    return {
        "MB/s": traffic.connections * traffic.file.stat().st_size / 1e6 / measured.outcome.seconds,
        "memory above idle MiB": (server.peak() - idle) / MIB,
        **measured.costs,
    }


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    return [
        Case(
            version.named(shape(streams, megabytes)),
            uponce(version.python),
            partial(measure, streams=streams, megabytes=megabytes),
        )
        for streams, megabytes in SHAPES
    ]


def _peers(setup: Setup) -> Sequence[Case]:
    return [
        Case(f"nginx PUT, {shape(*sizes)}", peers.NGINX, partial(_put, streams=sizes[0], megabytes=sizes[1]))
        for sizes in SHAPES
    ]


def _put(server: Server, setup: Setup, *, streams: int, megabytes: int) -> Sample:
    film = setup.film(megabytes)
    heads = peers.puts(server, film, streams)
    return transfer(server, Traffic(heads, film, tail="", connections=streams, seconds=_NO_END, expect=201))


def _claims() -> Sequence[Claim]:
    claims = []
    for sizes in SHAPES:
        of, over = (f"uponce, {shape(*sizes)}",), (f"nginx PUT, {shape(*sizes)}",)
        claims += [
            Claim(f"nginx DAV PUT, {shape(*sizes)}", of, over, at_least=1.0),
            Claim(f"moonshot: nginx DAV PUT, {shape(*sizes)}", of, over, at_least=1.4),
            Claim(f"memory above idle, {shape(*sizes)}", of, figure="memory above idle MiB", at_most=64),
        ]
    return claims


P2 = Row("P2", "An MP4 of 500 MB in one stream; eight of 100 MB at a time", _own, _claims(), _peers)
