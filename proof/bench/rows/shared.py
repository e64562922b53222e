"""Small uploads with what many servers can share: PostgreSQL, and a bucket, beside SQLite and a disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from proof.bench.row import Case, Row, Setup, Version
from proof.bench.rows.uploads import measure
from proof.bench.servers import uponce
from tests.postgres import Postgres
from tests.stores.seaweedfs import SeaweedFS


@contextmanager
def _postgres(folder: Path) -> Iterator[Mapping[str, str]]:
    server = Postgres(under=folder)
    try:
        server.start()
        yield {"UPONCE_DATABASE": server.fresh_schema()}
    finally:
        server.stop()


@contextmanager
def _postgres_and_bucket(folder: Path) -> Iterator[Mapping[str, str]]:
    store = SeaweedFS()
    try:
        store.run()
        with _postgres(folder) as database:
            yield {**database, **store.environment, "UPONCE_STORAGE": store.fresh_url()}
    finally:
        store.stop()


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    program = uponce(version.python)
    on = {"PostgreSQL + disk": _postgres, "PostgreSQL + bucket": _postgres_and_bucket}
    return [
        Case(version.named("SQLite + disk"), program, measure),
        *(Case(version.named(words), replace(program, beside=beside), measure) for words, beside in on.items()),
    ]


P12 = Row(
    "P12",
    "P1 on PostgreSQL and in a bucket (SeaweedFS), all on this machine, beside SQLite and its disk",
    _own,
    (),
)
