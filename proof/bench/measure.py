"""One measurement: requests to a server, what came of them, and what they cost it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from proof.bench.job import Job, Outcome
from proof.bench.requests import TAIL
from proof.bench.servers import BenchmarkError, Server

# Figures by name, the one that matters first.
Sample = Mapping[str, float]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A stream of requests to be sent: heads of one length, the file that follows each, and how (see Job)."""

    heads: Iterable[bytes]
    file: Path | None = None
    tail: str = TAIL
    connections: int = 16
    seconds: float = 1.0
    rate: float = 0.0
    cycle: bool = False
    expect: int = 200


@dataclass(frozen=True, slots=True)
class Measured:
    """An outcome with the figures that tell what it cost."""

    outcome: Outcome
    costs: Sample

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.outcome.answers.values()) / self.outcome.seconds


def send(server: Server, *streams: Traffic) -> list[Measured]:
    """Send all the streams at once, each from a separate process. An answer of another kind is an error."""
    generators = [_generator(server, number, stream) for number, stream in enumerate(streams)]
    cpu, machine, begun = server.cpu(), _busy(), time.perf_counter()
    for process, job in generators:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
    outcomes = [_outcome(server, process) for process, _ in generators]
    for outcome, stream in zip(outcomes, streams, strict=True):
        _check(server, outcome, stream)
    used = server.cpu() - cpu
    generated = sum(outcome.cpu for outcome in outcomes)
    strangers = max(0.0, _busy() - machine - used - generated)
    count = sum(sum(outcome.answers.values()) for outcome in outcomes)
    available = (os.cpu_count() or 1) * (time.perf_counter() - begun)
    return [
        Measured(
            outcome,
            {
                "server CPU ms each": 1000 * used / max(1, count),
                "generator % of a core": 100 * outcome.cpu / outcome.seconds,
                "others % of the machine": 100 * strangers / available,
            },
        )
        for outcome in outcomes
    ]


def latencies(outcome: Outcome) -> Sample:
    return {"p50 ms": 1000 * outcome.p50, "p99 ms": 1000 * outcome.p99}


def _generator(server: Server, number: int, stream: Traffic) -> tuple[subprocess.Popen[bytes], Job]:
    heads = server.data.with_name(f"{server.data.name}-heads-{number}")
    sizes = set()
    with heads.open("wb") as file:
        for head in stream.heads:
            sizes.add(len(head))
            file.write(head)
    (size,) = sizes
    job = Job(
        port=server.port,
        heads=str(heads),
        head_size=size,
        connections=stream.connections,
        seconds=stream.seconds,
        rate=stream.rate,
        cycle=stream.cycle,
        file=None if stream.file is None else str(stream.file),
        tail="" if stream.file is None else stream.tail,
    )
    command: Sequence[str] = (sys.executable, "-m", "proof.bench.load")
    return subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE), job


def _outcome(server: Server, process: subprocess.Popen[bytes]) -> Outcome:
    assert process.stdout is not None
    with process.stdout as answer:
        text = answer.read()
    if process.wait() != 0:
        server.check_alive()
        raise BenchmarkError("The load generator failed; its message stands above.")
    return msgspec.json.decode(text, type=Outcome)


def _check(server: Server, outcome: Outcome, stream: Traffic) -> None:
    server.check_alive()
    if set(outcome.answers) != {stream.expect} or outcome.broken:
        raise BenchmarkError(
            f"Only answers {stream.expect} were expected: there were {outcome.answers}, and {outcome.broken} requests "
            f"were cut off. The server's last words:\n{server.output[-1000:]}"
        )


def _busy() -> float:
    """Seconds that the machine's cores were not idle."""
    times = psutil.cpu_times()
    return float(sum(times[:7]) - times.idle - times.iowait)
