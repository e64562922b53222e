"""The ports of uploads that arrive in several requests."""

from collections.abc import Sequence
from typing import Protocol

from uponce.app.ports.commits import Committed, Draft
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.values import Caller, Grant


class OpenSeries(Protocol):
    """Series that are not complete yet."""

    async def create_series(self, new: Series, *, per_key: int, in_all: int, complete_before: int = 0) -> Series:
        """Begin a series with its first grant. If a series of this upload_id exists, return it unchanged.

        Raise TooManySeries if the API key has `per_key` unfinished series, or if there are `in_all`. Otherwise raise as
        `join_series` does. Of complete shared series that began before `complete_before`, as many hold no use of the
        grant as it has uses left.
        """

    async def join_series(self, series_id: str, grant: Grant, *, most: int) -> Series:
        """Add the grant to the series. Repeating it changes nothing. Raise TooManySignatures if it has `most` others.

        Raise SignatureUsed, SignatureRevoked, StaleRequest and UnknownApiKey as `commit` does. Raise SignatureInUse if
        other series hold all remaining uses of the grant, SeriesGone if the series has ended. Until the series ends,
        `purge` keeps the grant.
        """

    async def record_span(
        self, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart] = ()
    ) -> Series:
        """Record that these bytes are durable, and the size of the whole unless it is None. Return the new series.

        Raise ChunkConflict if the total or the span contradicts what is recorded, SeriesGone if the series has ended.
        For a shared series, `parts` are exactly the bytes of the span that were not recorded before. Raise
        ChunkInProgress if another request has recorded some of them since.
        """

    async def commit_series(self, series_id: str, draft: Draft, caller: Caller) -> Committed:
        """Commit as `commit` does, for all grants of a series together, and end the series.

        Raise SeriesGone if it has ended before. If one of the grants is used up or revoked, the refusal names it, and
        no grant is spent.
        """

    async def end_series(self, series_id: str, *, if_empty: bool = False) -> bool:
        """End the series without an asset: nothing is spent, and its grants are free again.

        Return False if it does not exist, or stays: with `if_empty`, a series with recorded bytes stays.
        """

    async def note_arrival(self, series_id: str, size: int) -> None:
        """Count bytes of a series that have arrived and are not recorded yet. They only show how fast the series is."""

    async def end_old_series(self, older_than: float, empty: float) -> Sequence[str]:
        """End some series that were begun longer ago than `older_than` seconds. Return their blob keys.

        Series without an arrived byte end after `empty` seconds. One call ends few series if these have many parts or
        signatures. Repeat the call until it returns no key.
        """

    async def end_slowest_series(
        self, api_key: str, *, per_key: int, in_all: int, rate: int, seconds: int
    ) -> Sequence[str]:
        """End the slowest series if the key has `per_key` of them, or if there are `in_all`. Return its blob key.

        The rate counts over a series' whole life, of at least `seconds`. A series stays if it keeps `rate` bytes per
        second, or if all bytes of the file are recorded.
        """

    async def slowest_complete_series(
        self, api_key: str, *, per_key: int, in_all: int, older_than: int, shared_older_than: int, most: int
    ) -> Sequence[Series]:
        """Return the slowest complete series if the key has `per_key` series, or if there are `in_all`: at most `most`.

        They were begun longer ago than `older_than` seconds, or `shared_older_than` if they are shared. A request may
        be completing each of them.
        """


class SeriesReader(Protocol):
    """Reads series, their signatures and their parts."""

    async def find_series(self, series_id: str) -> Series | None: ...

    async def find_named_series(self, cloud: str, api_key: str, upload_id: str) -> Series | None: ...

    async def find_series_of(self, grant_key: bytes) -> Sequence[Series]:
        """Return all series that the grant belongs to."""

    async def has_joined_series(self, series_id: str, grant_key: bytes) -> bool: ...

    async def series_grants(self, series_id: str) -> Sequence[Grant]:
        """Return all grants of the series, in the order of their keys. After its end, return an empty list."""

    async def series_parts(self, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
        """Return the first `limit` parts of a shared series with bytes of the span, in order and without overlap."""
