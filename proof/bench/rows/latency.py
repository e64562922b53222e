"""Latency at half of P1's rate, while signatures run out and the sweeper looks at every file."""

from collections.abc import Sequence
from dataclasses import replace

from proof.bench.database import add_expiring
from proof.bench.measure import Sample, latencies, send
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.rows.uploads import pictures, upload_pictures
from proof.bench.servers import Server, uponce

_SHARE = 0.5
_SWEEPS = 6


def measure(server: Server, setup: Setup) -> Sample:
    key = server.keys()[0]
    rate, seconds = _SHARE * upload_pictures(server, setup, key).rate, setup.latency_seconds
    add_expiring(server.data / "uponce.db", int(rate * seconds), seconds)
    (measured,) = send(server, pictures(server, setup, key, seconds, rate))
    outcome = measured.outcome
    return {
        "p99 / p50": outcome.p99 / outcome.p50,
        **latencies(outcome),
        "worst ms": 1000 * outcome.worst,
        "longest pause ms": 1000 * outcome.pause,
        "its end, s": outcome.paused_at,
        "pauses of 100 ms": float(outcome.pauses),
        "uploads/s": measured.rate,
        **measured.costs,
    }


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    sweep = max(1, int(setup.latency_seconds / _SWEEPS))
    program = uponce(version.python, sweep_seconds=sweep)
    command = ["proof.bench.eager" if word == "uponce" else word for word in program.command]
    return [Case(version.named("latency"), replace(program, command=command), measure)]


_CASE = ("uponce, latency",)

P7 = Row(
    "P7",
    "Latency at half of P1's rate, with signatures running out at the same rate and six sweeps over all files",
    _own,
    (
        Claim("p99 over p50, in each round", _CASE, at_most=3, in_each=True),
        Claim("longest pause, ms", _CASE, figure="longest pause ms", at_most=100),
    ),
    rounds=3,
)
