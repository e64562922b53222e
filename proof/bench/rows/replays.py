"""A flood of spent signatures, and honest uploads beside it."""

from collections.abc import Sequence
from functools import partial

from proof.bench.measure import Sample, Traffic, send
from proof.bench.requests import signed_fields, upload
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.rows.uploads import WORKERS, pictures, upload_pictures
from proof.bench.servers import Server, uponce

_SPENT = 64
_SIZES = {"1 MB": 1_000_000, "10 KB": 10_000}
_HONEST_SHARE = 0.5  # of what the server takes when it has nothing else to do


def measure(server: Server, setup: Setup, *, size: int) -> Sample:
    key, file = server.keys()[0], setup.noise(size)
    spent = [signed_fields(key) for _ in range(_SPENT)]
    send(server, Traffic([upload(server, key, setup.picture, fields) for fields in spent], setup.picture, seconds=60))
    replays = Traffic(
        [upload(server, key, file, fields) for fields in spent],
        file,
        seconds=setup.seconds,
        cycle=True,
        expect=400,
    )
    (refused,) = send(server, replays)
    rate = _HONEST_SHARE * upload_pictures(server, setup, key).rate
    (alone,) = send(server, pictures(server, setup, key, setup.seconds, rate))
    beside, _ = send(server, pictures(server, setup, key, setup.seconds, rate), replays)
    return {
        "refusals/s": refused.rate,
        "GB/s sent": refused.outcome.sent / 1e9 / refused.outcome.seconds,
        "KB sent for each": refused.outcome.sent / 1000 / (refused.rate * refused.outcome.seconds),
        "honest uploads kept": beside.rate / alone.rate,
        **refused.costs,
    }


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    return [
        Case(version.named(_of(words, name)), uponce(version.python, workers), partial(measure, size=size))
        for name, size in _SIZES.items()
        for workers, words in WORKERS.items()
    ]


def _of(workers: str, name: str) -> str:
    return f"{workers}, replays of {name}"


def _best(name: str) -> Sequence[str]:
    return [f"uponce, {_of(workers, name)}" for workers in WORKERS.values()]


P3 = Row(
    "P3",
    "Refusing replays of spent signatures, fields first, 16 connections; honest uploads at half of P1's rate beside "
    "them",
    _own,
    (
        Claim("refusals a second", _best("10 KB"), at_least=5000),
        Claim("bytes sent, GB a second", _best("1 MB"), figure="GB/s sent", at_least=1.1),
        Claim("honest uploads that are kept", _best("1 MB"), figure="honest uploads kept", at_least=0.95),
    ),
)
