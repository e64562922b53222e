"""Starting, helping, idling."""

import subprocess
import time
from collections.abc import Sequence
from functools import partial

from proof.bench.measure import Sample
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.servers import MIB, Server, uponce

_SETTLE_SECONDS = 1.0


def measure(server: Server, setup: Setup, *, python: str) -> Sample:
    time.sleep(_SETTLE_SECONDS)
    idle = server.proportional() / MIB
    begun = time.perf_counter()
    subprocess.run([python, "-m", "uponce", "--help"], check=True, capture_output=True)
    return {
        "start to first 200, s": server.start_seconds,
        "uponce --help, s": time.perf_counter() - begun,
        "idle memory, MiB": idle,
    }


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    return [Case(version.named("start"), uponce(version.python), partial(measure, python=version.python))]


_CASE = ("uponce, start",)

P8 = Row(
    "P8",
    "A first start until /readyz says 200; `uponce --help`; idle memory of server and decoders (PSS)",
    _own,
    (
        Claim("seconds to start", _CASE, figure="start to first 200, s", at_most=1.5),
        Claim("seconds for --help", _CASE, figure="uponce --help, s", at_most=0.25),
        Claim("MiB when idle", _CASE, figure="idle memory, MiB", at_most=120),
    ),
)
