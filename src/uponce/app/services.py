"""Services: the frozen bundle of ports and policies that every use case takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from uponce.app.attempts import Attempts
from uponce.app.owner import Ownership
from uponce.app.ports import (
    BlobStore,
    Clock,
    Database,
    FrontServer,
    GroupStore,
    Ids,
    Inspector,
    Metrics,
    NoMetrics,
    Presigner,
    UpstreamClient,
)
from uponce.core.parameters import UploadSpec
from uponce.core.policy import Limits

# Returns the details of an effect that a stored upload leaves, None if it leaves none. It waits for nothing: the thread
# of the database calls it.
DetailsOf = Callable[[UploadSpec], str | None]


@dataclass(frozen=True, slots=True)
class Services:
    """`group_store` is there when the blob store takes small blobs in groups. `presigner` is there when delivery
    redirects to the store, and `front` when a server in front sends the bytes. `upstream` passes uploads on. A
    relay that `inspects` judges each file before. `after_commit` says, by the name of each effect, which uploads leave
    it: see outbox.py."""

    database: Database
    blobs: BlobStore
    inspector: Inspector
    clock: Clock
    ids: Ids
    limits: Limits = field(default_factory=Limits)
    attempts: Attempts = field(default_factory=Attempts)
    ownership: Ownership = field(default_factory=Ownership)
    group_store: GroupStore | None = None
    presigner: Presigner | None = None
    front: FrontServer | None = None
    metrics: Metrics = field(default_factory=NoMetrics)
    upstream: UpstreamClient | None = None
    inspects: bool = False
    after_commit: Mapping[str, DetailsOf] = field(default_factory=dict)
