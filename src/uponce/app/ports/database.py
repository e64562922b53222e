"""The Database port, and the values that go through it."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from uponce.app.ports.commits import Candidate, Committed, Draft, Refusal, StoredReply
from uponce.app.ports.outbox import Outbox
from uponce.app.ports.relaying import Relays
from uponce.app.ports.series import OpenSeries, SeriesReader
from uponce.app.ports.upkeep import Checks, Deployment, Fence, Upkeep
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


class Records(Protocol):
    """What the steps before a commit may read. All of it is durable. Each call blocks.

    DatabaseUnavailable means that the database fails: then no upload can take its steps.
    """

    def load(self, named: Iterable[tuple[str, str]]) -> None:
        """Read the keys and clouds of these pairs of API key and cloud, all together.

        The other methods would wait for the database each time, and strangers can name what does not exist.
        """

    def find_key(self, api_key: str) -> ApiKey | None:
        """Return what Keys.find_key returns."""

    def has_cloud(self, cloud: str) -> bool:
        """Return what Keys.has_cloud returns."""

    def find_grant(self, key: bytes) -> GrantRecord | None:
        """Return what Ledger.find_grant returns, or None for a grant that was not looked up: the commit decides."""

    def find_reply(self, grant_key: bytes, idempotency_key: str) -> StoredReply | None:
        """Return what Ledger.find_reply returns."""


A = TypeVar("A")  # an upload that has arrived
# Takes uploads through the steps before their commit.
Prepare = Callable[[Sequence[A], Records], Sequence[Candidate | Refusal | Exception]]


class Glance(Protocol):
    """Look-ups that wait for no disk, lock or thread, so the event loop itself may make them.

    DatabaseUnavailable means that such a look-up is not possible now: ask the database.
    """

    def version(self) -> Hashable:
        """Return a value that changes with each commit of any process. While it is equal, later results still hold."""

    def find_asset(self, name: AssetName) -> Asset | None: ...


class Ledger(Protocol):
    """The ledger of grants, and the audit of their uses and refusals."""

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        """Spend the grant and publish the asset, in one transaction: the only arbiter of which attempt wins.

        The transaction writes one use of the grant, the asset row and the audit row. Of any number of concurrent
        commits of one grant, exactly `max_uses` succeed. The others raise SignatureUsed. Raise SignatureRevoked for a
        revoked grant, and BlobCondemned for a blob that the sweeper condemned. Raise UnknownApiKey for a key that was
        revoked before the commit, and StaleRequest for a timestamp at or before the watermark. These errors are certain
        and leave no trace. OutcomeUnknown is not certain: the caller must keep the blob and may ask `confirm_commit`.

        With an Idempotency-Key, the same transaction stores the answer. If this grant and key already have an answer,
        nothing is spent and nothing is published. The same bytes get that answer again; other bytes raise
        IdempotencyKeyReused.
        """

    async def commit_arrival(self, arrival: A, prepare: Prepare[A], most_refusals: int) -> Committed:
        """Take an upload through `prepare` and `commit`, together with all others that wait for the same `prepare`.

        `prepare` blocks and runs outside of the event loop, once for a group, before its transaction. For each upload
        it returns what to commit, or a refusal, or an error that ends this upload. The same transaction writes the
        refusal to the audit, as `record_refusal` does. Errors are those of `prepare` and of `commit`.
        """

    async def delete(self, grant: Grant, name: AssetName, caller: Caller) -> Asset | None:
        """Spend one use of the grant and delete the asset row, in one transaction. Return the deleted asset.

        The transaction writes the use, the asset row and the audit row. It refuses what `commit` refuses, with the same
        errors. Return None if the asset does not exist: then nothing is spent, but a grant that is used up or revoked
        is still refused. No row names the asset's blob any more; the caller deletes it, or else the sweeper. After
        OutcomeUnknown the caller must keep it.

        A later asset of that name is a new asset, whose version begins with the time. Within the same second, it may
        have the version of the deleted asset. To rule that out, the database would need a row for every deleted name.
        """

    async def find_reply(
        self, grant_key: bytes, idempotency_key: str, *, also_revoked: bool = False
    ) -> StoredReply | None:
        """Return the stored answer of a grant, which is forgotten together with the grant.

        Return None if the grant was revoked, unless the caller asks for answers of revoked grants too.
        """

    async def confirm_reply(
        self, grant_key: bytes, idempotency_key: str, *, also_revoked: bool = False
    ) -> StoredReply | None:
        """Return what `find_reply` returns, after it is durable like a commit: also on a synchronous standby."""

    async def find_grant(self, key: bytes, forgotten: bool = False) -> GrantRecord | None:
        """Return the ledger's record of a grant.

        With `forgotten`, return what the audit has of a grant that was used or revoked, and that the ledger has
        forgotten. No use is left then, so `max_uses` is the number of uses, or 1.
        """

    async def confirm_grant(self, key: bytes, forgotten: bool = False) -> GrantRecord | None:
        """Return what `find_grant` returns, after it is durable like a commit: also on a synchronous standby."""

    async def list_grants(
        self, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
    ) -> Page[GrantRecord]:
        """Return a page of grants, newest timestamp first. Raise InvalidParameter for an unreadable cursor."""

    async def revoke_grant(self, grant: Grant, caller: Caller) -> GrantRecord:
        """Refuse the grant from now on. A grant that is used up stays as it is; the returned record shows it.

        A pending upload may still spend its use, since it may have completed upstream. If its use is given back, the
        grant stays revoked.
        """


class Audit(Protocol):
    """What happened to grants, and when."""

    async def history(self, key: bytes, limit: int, before: int = 2**63 - 1) -> Sequence[AuditRecord]:
        """Return the newest `limit` audit rows of a grant whose id is less than `before`, oldest first."""

    async def record_refusal(self, grant: Grant, code: str, caller: Caller, most: int = 20) -> None:
        """Write a refused use of a genuine signature to the audit. The first `most` refusals of a grant get a row each.

        One more row counts all further refusals of the grant. It has the time and caller of the last one.
        """

    async def newest_moment(self) -> int | None:
        """Return the latest Unix second in the audit and the watermarks. Return None before the first upload."""


class Catalog(Protocol):
    """The catalog of assets, and the blobs that its rows name."""

    async def find_asset(self, name: AssetName) -> Asset | None: ...

    async def find_commit(self, blob_key: str) -> Asset | None:
        """Return the asset that names this blob. It exists only if the commit of the blob happened.

        If the commit raised OutcomeUnknown, a failover may still forget the asset.
        """

    async def confirm_commit(self, blob_key: str) -> Asset | None:
        """Return what `find_commit` returns, after it is durable like a commit: also on a synchronous standby."""

    async def list_by_context(
        self, cloud: str, resource_type: ResourceType, key: str, value: str | None, *, limit: int, cursor: str | None
    ) -> Page[Asset]:
        """Return the assets whose context has this key, and this value unless it is None, newest first.

        One call reads at most `CONTEXT_WINDOW` assets that have a context. So a page before the last one may have fewer
        assets than `limit`, or no asset. Raise InvalidParameter for an unreadable cursor.
        """

    async def list_surplus(self, cloud: str, *, files: int, size: int, seconds: int) -> Sequence[Asset]:
        """Return some of the assets that a cloud should lose, oldest first. Repeat the call until it returns no asset.

        An asset should go if it is not among the newest `files`, if it and all newer ones exceed `size` bytes, or if it
        is `seconds` old.
        """

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        """Return, by blob key with this prefix, the digest of each Rule.ADDRESSABLE asset's blob, at one moment."""

    async def series_blobs(self) -> frozenset[str]:
        """Return the blob keys of all series."""

    async def unnamed(self, blob_keys: Sequence[str]) -> Sequence[str]:
        """Return the blobs that no asset or series names now. It takes no lock: only `condemn` stops a later commit."""

    async def condemn(self, blob_keys: Sequence[str], *, after_fence: float = 0) -> Sequence[str]:
        """Condemn the blobs that no asset and no series names. Return them: no commit can name them from now on.

        Condemn none if a fence was made in the last `after_fence` seconds, for example by a restore.
        """

    async def condemned(self, blob_keys: Sequence[str]) -> Sequence[str]:
        """Return those of the blobs that are condemned already."""


class Keys(Protocol):
    """API keys and their secrets."""

    async def find_key(self, api_key: str) -> ApiKey | None:
        """Return the key, also a revoked one, without rotated secrets that have expired."""

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        """Return the keys, oldest first."""

    async def key_clouds(self) -> Sequence[str]:
        """Return the clouds that have keys, also if no secret can be read."""

    async def unreadable_keys(self) -> Mapping[str, str]:
        """Return by API key, oldest first, why its own or its upstream's secret cannot be decrypted, and the cure."""

    async def past_secrets(self) -> Mapping[str, str]:
        """Return by API key the secret before its last rotation, also after its end, unless it cannot be decrypted."""

    async def add_key(self, *keys: ApiKey, new: bool = False) -> None:
        """Store all keys or none. The first one also makes the secret key. A later one may raise SettingRefused.

        After a fence, the keys are fenced too: the database may have forgotten the uses of a key that comes back. `new`
        keys are not fenced: their secrets were made now, so there are no older signatures.
        """

    async def revoke_key(self, api_key: str) -> ApiKey | None:
        """Revoke the key from now on, end its series, and return it. Return None if it does not exist.

        Repeating it changes nothing.
        """

    async def rotate_key(self, api_key: str, secret: str, overlap: int, present: str | None = None) -> ApiKey | None:
        """Store a new secret, and return the key. The present secret works for `overlap` more seconds.

        An older one ends now. With an overlap of 0 the series of the key end too. Return None if the key does not
        exist. If its secret is not the `present` one, return the key, and change nothing. Without `present`, the
        present secret need not be readable.
        """

    async def has_cloud(self, cloud: str) -> bool:
        """Return whether the cloud has a key or an upstream, also if none of its secrets can be read."""


class Upstreams(Protocol):
    """The accounts to which uploads of a cloud are forwarded."""

    async def set_upstream(self, cloud: str, upstream: Upstream | None) -> None:
        """Forward uploads of this cloud to the upstream from now on. None: store them here again."""

    async def list_upstreams(self, cloud: str | None = None) -> Mapping[str, Upstream]:
        """Return the upstreams by cloud. With `cloud`, read and decrypt that of this cloud alone, as requests must."""

    async def lost_upstreams(self) -> Mapping[str, Upstream]:
        """Return by cloud the upstreams whose secret cannot be decrypted, each with an empty secret."""


# Texts, numbers and bytes by column, alike on every engine.
MovedRow: TypeAlias = Mapping[str, Any]


class Table(StrEnum):
    """The tables of a store, in the order in which they move.

    A store without keys accepts no upload. Keys move last, and open the database, so a half moved store accepts none.
    Of unfinished uploads, only those that were passed on move, since they may complete.
    """

    ASSETS = "assets"
    CONDEMNED = "condemned"
    AUDIT = "audit"
    GRANTS = "grants"
    REPLIES = "replies"
    RELAYS = "relays"
    RELAY_GRANTS = "relay_grants"
    OUTBOX = "outbox"
    UPSTREAMS = "upstreams"
    FENCES = "fences"
    KEYS = "api_keys"


class Moving(Protocol):
    """Rows as they are in the tables, in the order of their keys."""

    async def count_rows(self, table: Table) -> int: ...

    async def rows(self, table: Table, after: MovedRow | None, limit: int) -> Sequence[MovedRow]:
        """Return the next rows after that row; the first rows for None."""

    async def last_row(self, table: Table) -> MovedRow | None:
        """Return the row with the greatest key."""

    async def add_rows(self, table: Table, rows: Sequence[MovedRow], *, opens: bool = False) -> None:
        """Add all rows or none, also to a frozen database. They are in the order of their keys, after those there.

        With `opens`, the database accepts writes from then on, without a fence: it has the whole ledger.
        """


class Database(
    Keys,
    Upstreams,
    Ledger,
    Audit,
    Catalog,
    OpenSeries,
    SeriesReader,
    Relays,
    Outbox,
    Upkeep,
    Fence,
    Checks,
    Deployment,
    Moving,
    Protocol,
):
    """Ledger, catalog, keys and audit in one transactional database.

    Any method may raise DatabaseUnavailable or StorageFull: then it has changed nothing. A method that writes returns
    only after the write is durable. `glance` exists if the engine can look without waiting.
    """

    @property
    def glance(self) -> Glance | None: ...
