"""Small uploads, each with its own signature: against the peers, and against a key whose signatures work many times."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from proof.bench import peers
from proof.bench.measure import Measured, Sample, Traffic, latencies, send
from proof.bench.requests import uploads
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.servers import Key, Server, uponce

CONNECTIONS = 16
_MOST_A_SECOND = 9000
_WARM_UP_SECONDS = 0.5


def measure(server: Server, setup: Setup, *, unlimited: bool = False, connections: int = CONNECTIONS) -> Sample:
    key = server.keys()[unlimited]
    return figures(upload_pictures(server, setup, key, connections))


def upload_pictures(server: Server, setup: Setup, key: Key, connections: int = CONNECTIONS) -> Measured:
    """Upload as fast as the server answers, after a short warm-up."""
    for seconds in (_WARM_UP_SECONDS, setup.seconds):
        (measured,) = send(server, replace(pictures(server, setup, key, seconds), connections=connections))
    return measured


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
        Claim("busboy, durable: CPU", _BEST, ("busboy, durable",), figure="server CPU ms each", at_most=0.75),
        Claim("one worker", ("uponce, 2 workers",), ("uponce, 1 worker",), at_least=1.0),
        Claim("moonshot: busboy + better-sqlite3, durable", _BEST, ("busboy, durable",), at_least=3.0),
    ),
    _peers,
)

P11 = Row(
    "P11",
    "P1 with one connection: each upload waits for the one before",
    lambda setup, version: [
        Case(version.named("one connection"), uponce(version.python), partial(measure, connections=1))
    ],
    (
        Claim(
            "busboy + better-sqlite3, durable: p50",
            ("uponce, one connection",),
            ("busboy, durable, one connection",),
            figure="p50 ms",
            at_most=0.8,
        ),
    ),
    lambda setup: [
        Case(
            "busboy, durable, one connection",
            peers.UPLOADS["busboy, durable"],
            partial(peers.upload_pictures, connections=1),
        )
    ],
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
