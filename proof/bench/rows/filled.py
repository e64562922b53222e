"""Uploads and look-ups with a ledger and a catalog of many rows, against empty ones."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from proof.bench.database import fill, known_grants
from proof.bench.measure import Sample, Traffic, latencies, send
from proof.bench.requests import grant_of, look_ups, signed_fields, upload
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.rows import uploads
from proof.bench.servers import Program, Server, uponce

_KNOWN = 1000
_MOST_A_SECOND = 5000


def measure(server: Server, setup: Setup, *, filled: bool) -> Sample:
    once, unlimited = server.keys()
    database = server.data / "uponce.db"
    known = [key.hex() for key in known_grants(database, _KNOWN)] if filled else spend_some(server, setup, _KNOWN)
    count = int(_MOST_A_SECOND * setup.seconds)
    asked = Traffic(look_ups(server, unlimited, known, count), seconds=setup.seconds, connections=1)
    (looked_up,) = send(server, asked)
    uploaded = uploads.upload_pictures(server, setup, once)
    found = {f"look-up {name}": figure for name, figure in latencies(looked_up.outcome).items()}
    return {**uploads.figures(uploaded), **found}


def spend_some(server: Server, setup: Setup, count: int) -> list[str]:
    """Use so many signatures; their ids."""
    key = server.keys()[0]
    fields = [signed_fields(key) for _ in range(count)]
    heads = [upload(server, key, setup.picture, each) for each in fields]
    send(server, Traffic(heads, setup.picture, seconds=60))
    return [grant_of(key, each) for each in fields]


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    program = uponce(version.python)
    folder = setup.cache / f"filled-{setup.rows}-{version.label.replace(' ', '-')}"
    return [
        Case(version.named("empty"), program, partial(measure, filled=False)),
        Case(version.named("filled"), program, partial(measure, filled=True), partial(_filled, folder, program, setup)),
    ]


def _filled(folder: Path, program: Program, setup: Setup) -> Path:
    """Return the folder. It is kept from run to run, because filling it takes minutes."""
    done = folder / "filled"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        with Server(program, folder) as server:
            spend_some(server, setup, 1)
        fill(folder / "uponce.db", setup.rows)
        done.touch()
    return folder


P5 = Row(
    "P5",
    "Uploads and look-ups of a signature's status with a full ledger and catalog, against empty ones",
    _own,
    (
        Claim("uploads, over empty", ("uponce, filled",), ("uponce, empty",), at_least=0.9),
        Claim("look-up p99, over empty", ("uponce, filled",), ("uponce, empty",), figure="look-up p99 ms", at_most=2.0),
    ),
)
