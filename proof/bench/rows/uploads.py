"""Small uploads, each with its own signature: against the peers, and against a key whose signatures work many times."""

from collections.abc import Sequence
from functools import partial

from proof.bench import peers
from proof.bench.measure import Measured, Sample, Traffic, latencies, send
from proof.bench.requests import uploads
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.servers import Key, Server, uponce

_MOST_A_SECOND = 9000
_WARM_UP_SECONDS = 0.5


def measure(server: Server, setup: Setup, *, unlimited: bool = False) -> Sample:
    key = server.keys()[unlimited]
    return figures(upload_pictures(server, setup, key))


def upload_pictures(server: Server, setup: Setup, key: Key) -> Measured:
    """Upload as fast as the server answers, after a short warm-up."""
    send(server, pictures(server, setup, key, _WARM_UP_SECONDS))
    return send(server, pictures(server, setup, key, setup.seconds))[0]


def pictures(server: Server, setup: Setup, key: Key, seconds: float, rate: float = 0.0) -> Traffic:
    count = int((rate or _MOST_A_SECOND) * seconds) + 1
    heads = uploads(server, key, setup.picture, count)
    return Traffic(heads, setup.picture, seconds=seconds, rate=rate)


def figures(measured: Measured) -> Sample:
    return {"uploads/s": measured.rate, **latencies(measured.outcome), **measured.costs}


WORKERS = {1: "1 worker", 2: "2 workers"}


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    return [Case(version.named(words), uponce(version.python, workers), measure) for workers, words in WORKERS.items()]


def _peers(setup: Setup) -> Sequence[Case]:
    return [Case(name, program, peers.upload_pictures) for name, program in peers.UPLOADS.items()]


_BEST = tuple(f"uponce, {words}" for words in WORKERS.values())

P1 = Row(
    "P1",
    "100 KB JPEG, signed single-use, durable and inspected, 16 connections",
    _own,
    (
        Claim("busboy + better-sqlite3, durable", _BEST, ("busboy, durable",), at_least=1.3),
        Claim("express + multer, not durable", _BEST, ("express, not durable",), at_least=1.0),
        Claim("moonshot: busboy + better-sqlite3, durable", _BEST, ("busboy, durable",), at_least=3.0),
    ),
    _peers,
)


def _two_keys(setup: Setup, version: Version) -> Sequence[Case]:
    program = uponce(version.python)
    return [
        Case(version.named("single-use"), program, measure),
        Case(version.named("unlimited"), program, partial(measure, unlimited=True)),
    ]


P4 = Row(
    "P4",
    "The price of single use: P1 against the same server with a key of unlimited uses",
    _two_keys,
    (Claim("an unlimited key", ("uponce, single-use",), ("uponce, unlimited",), at_least=0.95),),
)
