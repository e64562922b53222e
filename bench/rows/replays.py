"""A flood of spent signatures, and honest uploads beside it."""

from collections.abc import Sequence

from bench.measure import Sample, Traffic, send
from bench.requests import signed_fields, upload
from bench.row import Case, Claim, Row, Setup, Version
from bench.rows.uploads import pictures, upload_pictures
from bench.servers import Server, uponce

_SPENT = 64
_HONEST_SHARE = 0.5  # of what the server takes when it has nothing else to do


def measure(server: Server, setup: Setup) -> Sample:
    key = server.keys()[0]
    spent = [signed_fields(key) for _ in range(_SPENT)]
    send(server, Traffic([upload(server, key, setup.picture, fields) for fields in spent], setup.picture, seconds=60))
    replays = Traffic(
        [upload(server, key, setup.block, fields) for fields in spent],
        setup.block,
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
        "KB sent for each": refused.outcome.sent / 1000 / (refused.rate * refused.outcome.seconds),
        "honest uploads kept": beside.rate / alone.rate,
        **refused.costs,
    }


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    return [Case(version.named("replays"), uponce(version.python), measure)]


P3 = Row(
    "P3",
    "Refusing replays of spent signatures, fields first, files of 1 MB, 16 connections; honest uploads at half of "
    "P1's rate beside them",
    _own,
    (
        Claim("refusals a second", ("uponce, replays",), at_least=5000),
        Claim("honest uploads that are kept", ("uponce, replays",), figure="honest uploads kept", at_least=0.9),
    ),
)
