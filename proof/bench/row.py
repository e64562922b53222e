"""What a benchmark is made of: rows, each with servers to measure and targets to meet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proof.bench import fixtures
from proof.bench.measure import Sample
from proof.bench.servers import Program, Server


@dataclass(frozen=True, slots=True)
class Version:
    """An uponce to be measured: this one, or that of another commit with its own Python."""

    label: str
    python: str

    def named(self, words: str) -> str:
        return f"{self.label}, {words}"


@dataclass(frozen=True, slots=True)
class Setup:
    """How long and how much.

    `seconds` is of one measurement, `latency_seconds` of row P7; `rows` are in the filled database, `megabytes` in
    the film of which a range is asked for, and that comes in parts.
    """

    cache: Path
    seconds: float
    latency_seconds: float
    rows: int
    megabytes: int

    @property
    def picture(self) -> Path:
        return fixtures.picture(self.cache)

    def noise(self, size: int) -> Path:
        return fixtures.noise(self.cache, size)

    def film(self, megabytes: int) -> Path:
        return fixtures.film(self.cache, megabytes)


@dataclass(frozen=True, slots=True)
class Case:
    """One server and what is done to it. It starts again for each measurement: on an empty folder, or on a kept one."""

    name: str
    program: Program
    measure: Callable[[Server, Setup], Sample]
    kept: Callable[[], Path] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A target: a figure of one case, or its ratio to that of another case in the same round.

    Of several cases in `of` or `over` the one with the best median counts. `figure` None is a sample's first one. The
    median has to reach the target, or with `in_each` every round.
    """

    text: str
    of: Sequence[str]
    over: Sequence[str] = ()
    figure: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    in_each: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """`rounds` is for a row that is long enough to be measured less often than others."""

    number: str
    title: str
    own: Callable[[Setup, Version], Sequence[Case]]
    claims: Sequence[Claim]
    peers: Callable[[Setup], Sequence[Case]] = lambda setup: ()
    rounds: int | None = None
