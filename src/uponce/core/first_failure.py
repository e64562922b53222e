"""FirstFailure: work of several steps, in which a step that fails does not keep the later steps from running."""

from collections.abc import Iterator
from contextlib import contextmanager

from uponce.core.errors import Unavailable


class FirstFailure:
    """Keep the first failure of some kinds, and raise the failure after all steps. `count` is how many there were."""

    def __init__(self, *kinds: type[Unavailable]) -> None:
        """Without kinds, keep failures of every kind."""
        self._kinds = kinds or (Unavailable,)
        self._first: Unavailable | None = None
        self.count = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Run a step. A failure of these kinds ends the step, and is kept. Other errors pass through."""
        try:
            yield
        except self._kinds as error:
            self._first = self._first or error
            self.count += 1

    def raise_it(self) -> None:
        """Raise the first failure. Return if no step failed."""
        if self._first is not None:
            raise self._first
