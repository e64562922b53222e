"""What is told to whoever watches the server: how many and how long, and nothing about anybody."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Metrics(Protocol):
    """Nothing here waits or raises. No argument is a client's invention: there are as many values as code can name."""

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request is over. `route` is a template; `status` is 0 when there was no answer."""

    def sending(self) -> AbstractContextManager[object]:
        """Around a request that sends an upload, or a part of one."""

    def received(self, size: int) -> None:
        """Bytes of such a request's body."""

    def refused(self, code: str) -> None:
        """Such a request was refused, by the code of an error."""

    def committing(self) -> AbstractContextManager[object]:
        """Around the commit of an upload."""

    def stored(self) -> None:
        """An upload was committed."""

    def swept(self, blobs: int, size: int, grants: int, now: float) -> None:
        """A sweep ended and removed that many; `size` in bytes."""

    def sweep_failed(self) -> None:
        """A sweep of a running server failed."""


class NoMetrics:
    """Nobody watches."""

    def answered(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def sending(self) -> AbstractContextManager[object]:
        return nullcontext()

    def received(self, size: int) -> None: ...

    def refused(self, code: str) -> None: ...

    def committing(self) -> AbstractContextManager[object]:
        return nullcontext()

    def stored(self) -> None: ...

    def swept(self, blobs: int, size: int, grants: int, now: float) -> None: ...

    def sweep_failed(self) -> None: ...
