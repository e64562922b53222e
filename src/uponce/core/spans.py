"""Spans: pairs of offsets. They say which bytes of a file have arrived when its parts arrive in any order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The bytes from `start` up to, and not including, `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    def meets(self, other: "Span") -> bool:
        """Return whether the spans have a byte in common. An empty span counts as its first byte."""
        return self.start < max(other.end, other.start + 1) and other.start < max(self.end, self.start + 1)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the bytes of the spans as ascending spans that neither overlap nor touch."""
    result: list[Span] = []
    for span in sorted(spans):
        if result and span.start <= result[-1].end:
            result[-1] = Span(result[-1].start, max(result[-1].end, span.end))
        elif span.size:
            result.append(span)
    return tuple(result)


def total_size(spans: Sequence[Span]) -> int:
    """Return the number of bytes in merged spans."""
    return sum(span.size for span in spans)


def split(span: Span, present: Sequence[Span]) -> Iterator[tuple[Span, bool]]:
    """Yield the span cut at the merged spans `present`, in order: each cut, and whether it is present."""
    position = span.start
    for known in present:
        start, end = max(known.start, position), min(known.end, span.end)
        if start >= end:
            continue
        if position < start:
            yield Span(position, start), False
        yield Span(start, end), True
        position = end
    if position < span.end:
        yield Span(position, span.end), False
