"""Services: the frozen bundle of ports and policies that every use case takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from uponce.app.attempts import Attempts
from uponce.app.owner import Ownership
from uponce.app.ports import (
    BlobStore,
    Clock,
    Database,
    Ids,
    Inspector,
    LocationOf,
    Metrics,
    Presigner,
    PutGroup,
    UpstreamClient,
)
from uponce.app.unbroken import Shared
from uponce.core.errors import UponceError
from uponce.core.parameters import UploadSpec
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

# Returns the details of the effect that a stored upload leaves, or None for no effect. It must not wait: the thread of
# the database calls it.
DetailsOf = Callable[[UploadSpec], str | None]
# Returns the facts of a whole file, or None if only the inspector can find out. It uses no decoder and refuses nothing.
OrdinaryReader = Callable[[bytes | memoryview, ResourceType | None, Limits], MediaFacts | None]


@dataclass(frozen=True, slots=True)
class Services:
    """The ports and policies of a server.

    `put_group` exists if the blob store takes small blobs in groups. `presigner` exists if delivery redirects to the
    store, and `location_of` if a server in front sends the bytes. `upstream` passes uploads on. A relay that `inspects`
    checks each file before it passes the file on. `readiness` is the check of the ports, and whether the database is
    frozen. `after_commit` decides, by the name of each effect, which uploads leave the effect: see outbox.py.
    """

    database: Database
    blobs: BlobStore
    inspector: Inspector
    read_ordinary: OrdinaryReader
    clock: Clock
    ids: Ids
    limits: Limits = field(default_factory=Limits)
    attempts: Attempts = field(default_factory=Attempts)
    ownership: Ownership = field(default_factory=Ownership)
    readiness: Shared[tuple[Mapping[str, UponceError | None], bool]] = field(default_factory=Shared)
    put_group: PutGroup | None = None
    presigner: Presigner | None = None
    location_of: LocationOf | None = None
    metrics: Metrics = field(default_factory=Metrics)
    upstream: UpstreamClient | None = None
    inspects: bool = False
    after_commit: Mapping[str, DetailsOf] = field(default_factory=dict)
