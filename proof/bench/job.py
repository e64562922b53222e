"""What the load generator receives, and what it returns."""

import resource
from itertools import pairwise

import msgspec

LONG_PAUSE = 0.1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Requests to 127.0.0.1: each is a head of `head_size` bytes from the file `heads`, `file` and `tail`.

    Heads (request line, headers, the form up to the file) are made beforehand, because each has its own signature. The
    job ends after `seconds`, but not before the first answer, or when the heads have run out (`cycle`: they start
    again). `rate` is requests a second, each sent at its moment, also if the one before has no answer. 0 sends the next
    one as soon as its connection is free.
    """

    port: int
    heads: str
    head_size: int
    file: str | None = None
    tail: str = ""
    connections: int = 16
    seconds: float = 1.0
    rate: float = 0.0
    cycle: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. Times in seconds; latencies from when a request was due to the end of its answer.

    `answers` by status; `broken` were cut off before their answer was complete. `received` and `sent` in bytes,
    `pause` is the longest time without any answer, which ended `paused_at` seconds after the start; `pauses` are all
    of at least LONG_PAUSE. `cpu` is what the generator itself used.
    """

    seconds: float
    answers: dict[int, int]
    broken: int
    received: int
    sent: int
    p50: float
    p99: float
    worst: float
    pause: float
    paused_at: float
    pauses: int
    cpu: float


class Tally:
    """Counts while the clock runs."""

    def __init__(self) -> None:
        self.received = self.sent = self._broken = 0
        self._answers: dict[int, int] = {}
        self._latencies: list[float] = []
        self.moments: list[float] = []
        self._cpu = _cpu()

    def count(self, status: int | None, due: float, now: float) -> None:
        """Count an answer, or a missing one (None)."""
        if status is None:
            self._broken += 1
            return
        self._answers[status] = self._answers.get(status, 0) + 1
        self._latencies.append(now - due)
        self.moments.append(now)

    def outcome(self, begun: float, ended: float) -> Outcome:
        ordered = sorted(self._latencies) or [0.0]
        moments = [begun, *self.moments, ended]
        pauses = [(after - before, after - begun) for before, after in pairwise(moments)]
        pause, paused_at = max(pauses)
        return Outcome(
            seconds=ended - begun,
            answers=self._answers,
            broken=self._broken,
            received=self.received,
            sent=self.sent,
            p50=ordered[len(ordered) // 2],
            p99=ordered[len(ordered) * 99 // 100],
            worst=ordered[-1],
            pause=pause,
            paused_at=paused_at,
            pauses=sum(length >= LONG_PAUSE for length, _ in pauses),
            cpu=_cpu() - self._cpu,
        )


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
