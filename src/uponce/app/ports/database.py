"""The Database port, and what goes through it."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from uponce.app.ports.commits import Candidate, Committed, Draft, Outbox, Refusal, Reply
from uponce.app.ports.relaying import Relays
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.values import (
    ApiKey,
    Asset,
    AssetName,
    AuditRecord,
    Caller,
    Digest,
    Grant,
    GrantRecord,
    GrantStatus,
    ResourceType,
    Upstream,
)

T = TypeVar("T")

CONTEXT_WINDOW = 2_000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None


class Rule(StrEnum):
    """What must hold inside of the database; the statements `broken_…` in adapters/database/sql ask for it."""

    ADDRESSABLE = "addressable"  # an asset's blob key is 32 lower-case hex digits
    NOT_CONDEMNED = "not_condemned"  # no asset names a condemned blob
    WITHIN_USES = "within_uses"  # a grant has no more uses than it allows
    DATED = "dated"  # a grant has a time of spending exactly when it was spent
    PENDING = "pending"  # each pending use of a grant belongs to an upload that was passed on
    AUDITED = "audited"  # each use of a grant that is not pending has its audit row, while those are kept
    PURGED = "purged"  # a grant whose time was over an hour ago is forgotten
    AFTER_WATERMARK = "after_watermark"  # a grant's timestamp lies after its key's watermark


class Records(Protocol):
    """What the steps before a commit may read. All of it is durable. Each call blocks.

    DatabaseUnavailable says that the database fails: then the steps of no upload can go on.
    """

    def find_key(self, api_key: str) -> ApiKey | None:
        """As Keys.find_key."""

    def has_cloud(self, cloud: str) -> bool:
        """As Keys.has_cloud."""

    def find_grant(self, key: bytes) -> GrantRecord | None:
        """As Ledger.find_grant. A database may know nothing here: the commit decides in any case."""


A = TypeVar("A")  # an upload that has arrived
# Takes uploads through the steps before their commit.
Prepare = Callable[[Sequence[A], Records], Sequence[Candidate | Refusal | Exception]]


class Glance(Protocol):
    """Look-ups that wait for no disk, lock or thread, so the event loop may do them itself.

    DatabaseUnavailable says that such a look-up is not possible now: ask the database.
    """

    def version(self) -> Hashable:
        """A value that differs after each commit of any process. What was found after it stands while it is equal."""

    def find_asset(self, name: AssetName) -> Asset | None: ...


class Ledger(Protocol):
    """The ledger of grants, and the audit of what became of each."""

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        """Spend the grant and publish the asset, in one transaction: the only arbiter of who wins.

        Atomically: one use of the grant, the asset row, the audit row; of any number of concurrent commits of
        one grant exactly `max_uses` succeed. The others raise SignatureUsed. A revoked grant raises
        SignatureRevoked; a blob that the sweeper condemned BlobCondemned; a key that was revoked meanwhile
        UnknownApiKey; a timestamp that a purge has overtaken StaleRequest. These are certain and leave no trace.
        OutcomeUnknown is not: the caller must keep the blob and may ask `find_commit`.

        With an Idempotency-Key the answer is stored in the same transaction. Where one is stored for this grant and
        key already, nothing is spent and nothing published: the same bytes get it again, and other bytes are
        IdempotencyKeyReused.
        """

    async def commit_arrival(self, arrival: A, prepare: Prepare[A], most_refusals: int) -> Committed:
        """Take an upload through `prepare` and `commit`, together with all others that wait for the same `prepare`.

        `prepare` blocks and runs outside of the event loop, once for a group, before its transaction. It returns for
        each upload what to commit, or a refusal that is written to the audit in the same transaction (as
        `record_refusal` does), or an error that ends this upload. Errors are those of `prepare` and of `commit`.
        """

    async def delete(self, grant: Grant, name: AssetName, caller: Caller) -> Asset | None:
        """Spend one use of the grant and drop the asset, in one transaction; the asset as it was.

        Atomically: the use, the row, the audit row; what is refused, and how, is as for `commit`. None when there is no
        such asset: then nothing is spent, yet a grant that is used up or revoked is refused as such. No row names the
        asset's blob any more; deleting it is left to the caller, and to the sweeper. OutcomeUnknown: keep it.

        A later asset of that name is a new one, whose version begins with the time. So within the same second it may
        have the version of the deleted one: remembering that for every name which was ever deleted is not worth it.
        """

    async def find_reply(self, grant_key: bytes, idempotency_key: str) -> Reply | None:
        """The stored answer of a grant that was not revoked since; forgotten together with the grant."""

    async def find_grant(self, key: bytes) -> GrantRecord | None:
        """What the ledger knows of a grant."""

    async def list_grants(
        self, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
    ) -> Page[GrantRecord]:
        """Newest timestamp first. An unreadable cursor is InvalidParameter."""

    async def history(self, key: bytes, limit: int) -> Sequence[AuditRecord]:
        """The audit of a grant, oldest first."""

    async def revoke_grant(self, grant: Grant, caller: Caller) -> GrantRecord:
        """From now on the grant is refused. A grant that is used up stays as it is: see the record returned.

        A pending upload may still spend its use, since it may have completed upstream. If its use comes back, the grant
        stays revoked.
        """

    async def record_refusal(self, grant: Grant, code: str, caller: Caller, most: int = 20) -> None:
        """Note a refused use of a genuine signature: in an audit row each for the first `most` of a grant.

        All further refusals of the grant are counted in one more row, which has the time and caller of the last one.
        """

    async def newest_moment(self) -> int | None:
        """The latest Unix second that audit or watermarks tell of; None before the first upload."""


class Catalog(Protocol):
    """The catalog of assets, and the blobs that rows name."""

    async def find_asset(self, name: AssetName) -> Asset | None: ...

    async def find_commit(self, blob_key: str) -> Asset | None:
        """The asset that names this blob, if the commit that would have made it happened."""

    async def list_by_context(
        self, cloud: str, resource_type: ResourceType, key: str, value: str | None, *, limit: int, cursor: str | None
    ) -> Page[Asset]:
        """Return the assets whose context has this key, and this value unless it is None, newest first.

        One call reads at most `CONTEXT_WINDOW` assets that have a context. So a page before the last one may have fewer
        assets than `limit`, also none. An unreadable cursor is InvalidParameter.
        """

    async def list_surplus(self, cloud: str, *, files: int, size: int, seconds: int) -> Sequence[Asset]:
        """Return assets that a cloud should lose, oldest first. One call returns some of them: repeat it.

        They are not among its newest `files`, do not fit into `size` bytes, newest first, or are `seconds` old.
        """

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        """By blob key: what the catalog says of every blob whose key begins with `prefix`, at one moment.

        Assets that break Rule.ADDRESSABLE are omitted.
        """

    async def series_blobs(self) -> frozenset[str]:
        """The blob keys of all series."""

    async def unnamed(self, blob_keys: Sequence[str]) -> Sequence[str]:
        """Return the blobs that no asset and no series names at this moment. It takes no lock.

        A later commit may still name them: only `condemn` rules that out.
        """

    async def condemn(self, blob_keys: Sequence[str]) -> Sequence[str]:
        """Those blobs that no asset and no series names: no commit can name them any more, so they may be deleted."""

    async def condemned(self, blob_keys: Sequence[str]) -> Sequence[str]:
        """Those that are condemned already."""


class OpenSeries(Protocol):
    """Series that are not complete yet."""

    async def create_series(self, new: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
        """Begin a series with its first grant; when one of this upload_id exists, that one comes back unchanged.

        TooManySeries when so many are unfinished of its key, or in all; else as `join_series`.
        """

    async def join_series(self, series_id: str, grant: Grant) -> Series:
        """The grant belongs to the series from now on; repeating it changes nothing.

        SignatureUsed, SignatureRevoked, StaleRequest, UnknownApiKey as for `commit`; SignatureInUse when other series
        hold all uses of the grant that are left; SeriesGone. Until the series ends, `purge` spares the grant.
        """

    async def find_series(self, series_id: str) -> Series | None: ...

    async def find_named_series(self, cloud: str, api_key: str, upload_id: str) -> Series | None: ...

    async def find_series_of(self, grant_key: bytes) -> Sequence[Series]:
        """All series that the grant belongs to."""

    async def record_span(
        self, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart] = ()
    ) -> Series:
        """Note that these bytes are durable, and the size of the whole unless it is None; the series after it.

        ChunkConflict when the total or the span contradict what is noted already; SeriesGone. Of a shared series
        `parts` are just those bytes of the span that were not noted before: ChunkInProgress when somebody else has
        noted some of them meanwhile.
        """

    async def series_parts(self, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
        """The noted parts of a shared series that hold bytes of the span, in order: the first ones, at most so many.

        None of them overlap.
        """

    async def commit_series(self, series_id: str, draft: Draft, caller: Caller) -> Committed:
        """As `commit`, for all grants of a series together, which ends by it. SeriesGone when it has ended before.

        When one of them is used up or revoked, that is the refusal, which names it, and none is spent.
        """

    async def end_series(self, series_id: str, *, if_empty: bool = False) -> bool:
        """Give it up: nothing is spent, its grants are free again. False when there was none.

        With `if_empty` also when bytes are noted of it: then it stays.
        """

    async def note_arrival(self, series_id: str, size: int) -> None:
        """Count bytes that have arrived of a series and are not recorded yet. They say how fast it is, nothing else."""


class Upkeep(Protocol):
    """What keeps a database in order."""

    async def purge(self, audit_seconds: int | None) -> int:
        """Forget grants whose time to be kept is over by the database's clock; how many.

        In the same transaction the watermark of their key rises to the newest timestamp dropped. Audit rows go
        when they are older than `audit_seconds`, or stay for None.
        """

    async def fence(self, skew: int) -> int:
        """Refuse from now on every signature that can have been accepted until now; the timestamp up to which.

        In one transaction the watermark of every key rises to the database's time plus `skew` seconds; a higher one
        stays. Also uploads under way are refused when they come to commit, and series end. Pending uploads go on.
        """

    async def freeze(self) -> None:
        """From now on every write fails with DatabaseUnavailable, on every server; reads go on. Repeating it is fine.

        A copy that lives on elsewhere would forget what is used here, and the other way round.
        """

    async def frozen(self) -> bool: ...

    async def thaw(self, skew: int) -> int:
        """Take writes again, and `fence`, in one transaction: another copy may have used signatures since."""

    async def end_old_series(self, older_than: float, empty: float) -> Sequence[str]:
        """End some series that were begun longer ago than so many seconds; their blobs' keys. Repeat it while any.

        After `empty` seconds also those of which no byte has arrived.
        """

    async def end_slowest_series(
        self, api_key: str, *, per_key: int, in_all: int, rate: int, seconds: int
    ) -> Sequence[str]:
        """End the slowest series, where the key has `per_key` of them or there are `in_all`; its blob's key.

        The rate counts over a series' whole life, of at least `seconds`. None ends that keeps `rate` bytes per second,
        or of which as many bytes have arrived as the file has.
        """

    async def integrity(self, *, deep: bool) -> Sequence[str]:
        """What the engine finds wrong with its own files, in its words; `deep` also compares indexes with rows."""

    async def violations(self, rule: Rule, audit_seconds: int) -> Sequence[str]:
        """The rows that break a rule at one moment: the grant's key in hex, or the asset's name.

        Audit rows count as kept for `audit_seconds`.
        """

    async def owner(self) -> str | None:
        """Return the random name that the storage of this database has too, or None before `make_owner`."""

    async def make_owner(self) -> str:
        """Return the owner. The first call makes it, also in a frozen database."""

    async def ping(self) -> None:
        """Return when the database can be read and written."""


class Keys(Protocol):
    """API keys and their secrets."""

    async def find_key(self, api_key: str) -> ApiKey | None:
        """Return the key, also a revoked one, without rotated secrets that have expired."""

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        """Oldest first."""

    async def unreadable_keys(self) -> Mapping[str, str]:
        """The API keys whose secret cannot be decrypted, oldest first, each with the reason and the cure."""

    async def add_key(self, *keys: ApiKey) -> None:
        """Store all keys or none. The first key of a database also makes the secret key.

        A later one may raise SettingRefused.
        """

    async def revoke_key(self, api_key: str) -> ApiKey | None:
        """Revoked from now on; None when there is no such key. Repeating it changes nothing."""

    async def rotate_key(self, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        """A new secret; the present one works for `overlap` more seconds. None if there is no such key.

        With an overlap of 0 the present secret need not be readable.
        """

    async def set_upstream(self, cloud: str, upstream: Upstream | None) -> None:
        """From now on uploads of this cloud are passed on there; None: they are stored here again."""

    async def list_upstreams(self) -> Mapping[str, Upstream]:
        """By cloud."""

    async def lost_upstreams(self) -> Mapping[str, Upstream]:
        """By cloud, those whose secret cannot be decrypted: with an empty one."""

    async def has_cloud(self, cloud: str) -> bool:
        """Return whether the cloud has a key or an upstream, also if no secret of it can be read."""


class Database(Keys, Ledger, Catalog, OpenSeries, Upkeep, Relays, Outbox, Protocol):
    """Ledger, catalog, keys and audit in one transactional database. A caller that needs one part names that part.

    Any method may raise DatabaseUnavailable or StorageFull: then nothing happened. A method that writes
    returns only after the write is durable. `glance` is there when the engine can look without waiting.
    """

    @property
    def glance(self) -> Glance | None: ...
