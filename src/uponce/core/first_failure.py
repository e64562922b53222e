"""FirstFailure: work of several steps, in which a step that fails does not keep the later steps from running."""

from collections.abc import Iterator
from contextlib import contextmanager

from uponce.core.errors import Unavailable


class FirstFailure:
    """Keep the first failure of a kind, and raise the failure after all steps."""

    def __init__(self, kind: type[Unavailable] = Unavailable) -> None:
        self._kind = kind
        self._first: Unavailable | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Run a step. A failure of the kind ends the step, and is kept. Other errors pass through."""
        try:
            yield
        except self._kind as error:
            self._first = self._first or error

    def raise_it(self) -> None:
        """Raise the first failure. Return if no step failed."""
        if self._first is not None:
            raise self._first
