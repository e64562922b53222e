"""Services: what every use case takes. The ports, the policies, and what this process counts and knows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

from uponce.app import ports
from uponce.app.attempts import Attempts
from uponce.app.owner import renew
from uponce.app.unbroken import Shared
from uponce.core.errors import SettingRefused, StorageUnavailable, UponceError
from uponce.core.parameters import UploadSpec
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

# Returns the effect that a stored upload leaves in this cloud, or None. It must not wait: the thread of the database
# calls it.
EffectOf = Callable[[UploadSpec, str], ports.NewEffect | None]
# Returns the facts of a whole file, or None if only the inspector can find out. It uses no decoder and refuses nothing.
OrdinaryReader = Callable[[bytes | memoryview, ResourceType | None, Limits], MediaFacts | None]


class Ownership:
    """What this process found when it last asked whose storage it is."""

    def __init__(self) -> None:
        self._refusal: SettingRefused | None = None

    def check(self) -> None:
        """Raise StorageUnavailable if another database has the storage: its sweeps would delete a file that is stored
        there now."""
        refusal = self._refusal  # read once: another thread may change it
        if refusal is not None:
            raise StorageUnavailable(
                "The server's storage cannot be used now. Nothing was stored. Send the request again later.",
                detail=refusal.message,
            )

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Inside, the caller asks whose storage it is. Note the answer."""
        try:
            yield
        except SettingRefused as error:
            self._refusal = error
            raise
        self._refusal = None

    async def look(self, database: ports.Database, blobs: ports.BlobStore) -> None:
        """Ask again, with two short reads, and `check`. Without an owner the answer is that of the last sweep."""
        owner = await blobs.owner()
        if owner is not None:
            # The owner may be noted there later: a storage that takes no writes still delivers.
            with suppress(SettingRefused), self.noting(), suppress(StorageUnavailable):
                await renew(database, blobs, owner)
        self.check()


class Metrics:
    """Counts and times for the operator, and nothing about any client. This class itself keeps none of them.

    No method waits or raises. Label values come from code, never from clients, so their number is bounded.
    """

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that is over. `route` is a template; `status` is 0 if there was no answer."""

    def sending(self) -> AbstractContextManager[object]:
        """Measure a request that sends an upload, or a part of one, while the context is open."""
        return nullcontext()

    def received(self, size: int) -> None:
        """Count bytes of such a request's body."""

    def refused(self, code: str) -> None:
        """Count the refusal of such a request, by the code of its error."""

    def committing(self) -> AbstractContextManager[object]:
        """Measure the commit of an upload, while the context is open."""
        return nullcontext()

    def stored(self) -> None:
        """Count an upload that was committed."""

    def purged(self, grants: int) -> None:
        """Count the grants that a purge forgot."""

    def purge_succeeded(self, now: float) -> None:
        """Show when the last purge ended well."""

    def swept(self, size: int) -> None:
        """Count a blob that a sweep deleted. `size` in bytes."""

    def sweep_succeeded(self, now: float) -> None:
        """Show when the last sweep of the whole store ended well."""

    def background_failed(self, work: str) -> None:
        """Count a failed round of what a running server repeats beside its requests."""

    def waiting(self, waiting: ports.Waiting) -> None:
        """Show how many uploads are pending, and how many effects in the outbox wait, by the database."""


@dataclass(frozen=True, slots=True)
class Services:
    """The ports and policies of a server.

    `put_group` exists if the blob store takes small blobs in groups, and `hold_small` if it takes them one by one from
    memory. `presigner` exists if delivery redirects to the store, and `location_of` if a server in front sends the
    bytes. `upstream` passes uploads on. A relay that `inspects` checks each file before it passes the file on.
    `readiness` is the check of the ports, and whether the database is frozen. `after_commit` decides which uploads
    leave which effects: see outbox.py.
    """

    database: ports.Database
    blobs: ports.BlobStore
    inspector: ports.Inspector
    read_ordinary: OrdinaryReader
    clock: ports.Clock
    ids: ports.Ids
    upstream: ports.UpstreamClient
    limits: Limits = field(default_factory=Limits)
    attempts: Attempts = field(default_factory=Attempts)
    ownership: Ownership = field(default_factory=Ownership)
    readiness: Shared[tuple[Mapping[str, UponceError | None], bool]] = field(default_factory=Shared)
    put_group: ports.PutGroup | None = None
    hold_small: ports.HoldSmall | None = None
    presigner: ports.Presigner | None = None
    location_of: ports.LocationOf | None = None
    metrics: Metrics = field(default_factory=Metrics)
    inspects: bool = False
    after_commit: Sequence[EffectOf] = ()
