"""Who writes which bytes of a shared blob: claims between the requests of one process.

They save work, and let a newer request take over from one whose connection is dead. No byte's safety hangs on them:
between processes, and machines, there are none, and the database decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from uponce.adapters.blobs.locks import WHOLE, in_progress
from uponce.core.spans import Span


class Claim:
    """On a span, until it is closed, or nobody has it any more: a cancelled caller has nobody who could close it."""

    def __init__(self, claims: "Claims", key: str, span: Span) -> None:
        self._claims = claims
        self.key = key
        self.span = span

    def is_wanted(self) -> bool:
        return self._claims.is_asked(self.key, self.span)

    def close(self) -> None:
        self._claims.held.discard(self)


class Claims:
    """What is held, and what is asked for."""

    def __init__(self) -> None:
        self.held: WeakSet[Claim] = WeakSet()
        self._asked: list[tuple[str, Span]] = []

    def hold(self, key: str, span: Span = WHOLE) -> Claim:
        """ChunkInProgress when somebody has a part of it."""
        if any(other.key == key and span.meets(other.span) for other in self.held):
            raise in_progress()
        claim = Claim(self, key, span)
        self.held.add(claim)
        return claim

    @contextmanager
    def asking(self, key: str, span: Span = WHOLE) -> Iterator[None]:
        self._asked.append((key, span))
        try:
            yield
        finally:
            self._asked.remove((key, span))

    def is_asked(self, key: str, span: Span) -> bool:
        return any(of == key and span.meets(asked) for of, asked in self._asked)
