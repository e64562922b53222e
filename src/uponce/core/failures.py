"""The base of the tree of errors, and what a server cannot do. errors.py has the tree as a whole."""

from typing import ClassVar


class UponceError(Exception):
    """Base of the tree; never raised itself. `retry_after` is in seconds; the default is the class's."""

    code: ClassVar[str]
    retry_seconds: ClassVar[int | None] = None

    def __init__(self, message: str, *, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = self.retry_seconds if retry_after is None else retry_after

    @property
    def for_operator(self) -> str:
        """Say what is wrong to the person who runs the server: the detail, where there is one."""
        return self.detail or self.message


class Unavailable(UponceError):
    """The server cannot do this now. Nothing is spent, unless the error is OutcomeUnknown."""


class DatabaseUnavailable(Unavailable):
    """The server cannot reach or write its database."""

    code = "database_unavailable"
    retry_seconds = 2


class OutcomeUnknown(Unavailable):
    """The reply to a commit was lost, so the upload may be stored or not. Ask for the signature's status."""

    code = "outcome_unknown"
    retry_seconds = 2


class StorageUnavailable(Unavailable):
    """The server cannot reach or write its file storage."""

    code = "storage_unavailable"
    retry_seconds = 5


class StorageFull(Unavailable):
    """The file storage or the database has no space left."""

    code = "storage_full"
    retry_seconds = 5


class BlobCondemned(Unavailable):
    """The upload took too long: the sweeper removed its bytes before they were stored."""

    code = "attempt_expired"
    retry_seconds = 1


class ServerBusy(Unavailable):
    """The server is at a limit of simultaneous work."""

    code = "server_busy"
    retry_seconds = 5


class UpstreamUnavailable(Unavailable):
    """The relay cannot reach its upstream, or sends as much as it may. The upload cannot have completed there."""

    code = "upstream_unavailable"
    retry_seconds = 5


class SettingRefused(UponceError):
    """A setting is wrong or would break a guarantee. The operator must change it."""

    code = "setting_refused"
