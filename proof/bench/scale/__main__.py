"""Measure full databases against empty ones: `make scale`.

    python -m proof.bench.scale [--fill 100000] [--rounds 3] [--seconds 2] [--record]

Exit code 0 when all could be measured, whatever came out. What was filled is deleted at the end.
"""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from proof.bench import folders, place
from proof.bench.measure import Sample
from proof.bench.report import printed
from proof.bench.result import CaseResult, Result, judged
from proof.bench.row import Claim, Row
from proof.bench.scale.figures import Clock, Side, changes, live, measure, measure_sweep
from proof.bench.scale.stores import PostgresStore, SqliteStore, Store
from proof.bench.servers import BenchmarkError
from tests.postgres import Postgres

CACHE = Path(__file__).parents[1] / ".cache"
RECORDS = Path(__file__).parents[2] / "records/scale.jsonl"
_KNOWN = 1000
_FEW_ROWS = 1000  # "empty" is that much, so that a page of the list has something to show
_EMPTY, _FILLED, _SWEEP = "empty", "filled", ", during a sweep"

Opener = Callable[[str, Clock], Store]


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options = _options(words)
    facts = {**place.facts(), "command": shlex.join(["python", "-m", "proof.bench.scale", *words])}
    options.cache.mkdir(parents=True, exist_ok=True)
    try:
        with folders.scratch(options.cache) as scratch:
            for engine, opened in _ENGINES.items():
                with opened(scratch) as opener:
                    cases = asyncio.run(_engine(opener, options))
                _tell(engine, cases, options, facts)
    except BenchmarkError as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    return 0


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m proof.bench.scale", description="Full databases against empty ones."
    )
    parser.add_argument("--fill", type=int, default=100_000, help="rows of ledger, catalog and audit")
    parser.add_argument("--rounds", type=int, default=3, help="four at most: the ledger is as long")
    parser.add_argument("--seconds", type=float, default=2, help="of uploads in each round")
    parser.add_argument("--record", action="store_true", help="add the results to proof/records/scale.jsonl")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the databases lie meanwhile")
    return parser.parse_args(words)


@contextmanager
def _sqlite(scratch: Path) -> Iterator[Opener]:
    yield lambda name, clock: SqliteStore(scratch / name, clock)


@contextmanager
def _postgres(scratch: Path) -> Iterator[Opener]:
    """On the same disk, with the settings that PostgreSQL comes with."""
    server = Postgres(under=scratch)
    try:
        server.start()
        yield lambda name, clock: PostgresStore(server.fresh_schema(), clock)
    finally:
        server.stop()


_ENGINES = {"SQLite": _sqlite, "PostgreSQL": _postgres}


async def _engine(opener: Opener, options: argparse.Namespace) -> list[CaseResult]:
    with ExitStack() as opened:
        rows = {_EMPTY: _FEW_ROWS, _FILLED: options.fill}
        sides = {name: await _side(opener, name, count, opened) for name, count in rows.items()}
        sizes = sides[_FILLED].store.bytes_a_row(options.fill)
        samples = await _rounds(sides, options.rounds, partial(measure, seconds=options.seconds))
        forgotten = await _rounds(sides, options.rounds, measure_sweep)
    return [
        *(CaseResult(name, found) for name, found in samples.items()),
        *(CaseResult(name + _SWEEP, found) for name, found in forgotten.items()),
        CaseResult("bytes a row", [sizes]),
    ]


async def _side(opener: Opener, name: str, rows: int, opened: ExitStack) -> Side:
    clock = Clock()
    store = opened.enter_context(closing(opener(name, clock)))
    await live(store, clock)
    store.fill(rows, changes(rows))
    return Side(store, clock, store.known(_KNOWN))


async def _rounds(
    sides: Mapping[str, Side], rounds: int, look: Callable[[Side], Awaitable[Sample]]
) -> Mapping[str, list[Sample]]:
    """Round by round, every other one backwards: what drifts hits both alike."""
    samples: dict[str, list[Sample]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            side = sides[name]
            print(f"  round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            side.store.settle()
            samples[name].append(await look(side))
    return samples


def _tell(engine: str, cases: Sequence[CaseResult], options: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    title = f"{options.fill:,} rows in ledger, catalog and audit, against empty ones"
    row = Row(engine, title, lambda setup, version: (), _claims(cases[0]))
    result = Result(row=engine, title=title, cases=cases, claims=judged(row, cases), **facts)
    print(printed(result), flush=True)
    if options.record:
        with RECORDS.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")


def _claims(case: CaseResult) -> Sequence[Claim]:
    """Twice what it takes on empty tables at most, half of what they do at least."""
    return [_claim(figure) for figure in case.samples[0]]


def _claim(figure: str) -> Claim:
    if figure.endswith("/s"):
        return Claim(figure, (_FILLED,), (_EMPTY,), figure=figure, at_least=0.5)
    return Claim(figure, (_FILLED,), (_EMPTY,), figure=figure, at_most=2.0)


if __name__ == "__main__":
    sys.exit(main())
