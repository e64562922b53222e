"""What is measured: uploads committed, look-ups, pages of the list, rows forgotten."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from proof.bench.measure import Sample
from proof.bench.scale.stores import Columns, Store
from proof.bench.servers import BenchmarkError
from uponce.adapters.system import RandomIds
from uponce.app.ports import Database, Draft
from uponce.core.signature import dated, keep_until
from uponce.core.values import (
    ApiKey,
    Asset,
    AssetName,
    Caller,
    DeliveryType,
    Digest,
    Grant,
    GrantStatus,
    KeyScope,
    KeyUses,
    MediaFacts,
    ResourceType,
)

SPAN = 1800
# Of signatures that a ledger spans: so long is a row kept.
HALF_HOURS = 5
START = 1_767_225_600
_WINDOW, _SKEW, _KEPT = 3600, 300, HALF_HOURS * SPAN

KEY = ApiKey("111", "demo", ("secret",), KeyUses.ONCE, KeyScope.UPLOAD, _WINDOW, created_at=START)
RARE = replace(KEY, api_key="222", secrets=("other",))
# Of which key, and of which status.
_KINDS: Mapping[str, tuple[str | None, GrantStatus | None]] = {
    "all": (None, None),
    "used": (None, GrantStatus.USED),
    "unused": (None, GrantStatus.UNUSED),
    "revoked": (None, GrantStatus.REVOKED),
    "of a key": (KEY.api_key, None),
    "of a key with few": (RARE.api_key, None),
    "of a key, revoked": (KEY.api_key, GrantStatus.REVOKED),
}
_CALLER = Caller("192.0.2.1", "0" * 32)
_IDS = RandomIds()
_CALLERS = 64
_FEW_CALLERS = 4
_AUDIT_SECONDS = 100_000
_LOOK_UPS = 1000
_PAGES = 100
_PAGE = 50
_FEW = 100
FORGOTTEN = 5000
_A_SECOND = 1000  # as dense as ten million rows are in those hours


@dataclass
class Clock:
    """Moved by hand: what is forgotten is decided here, not by how long the filling took."""

    time: float = START

    def now(self) -> float:
        return self.time


@dataclass(frozen=True, slots=True)
class Side:
    """A database that is measured, and keys of some of its grants."""

    store: Store
    clock: Clock
    known: Sequence[bytes]


async def live(store: Store, clock: Clock) -> None:
    """Some hours with one upload every half-hour, and the sweeper, which makes the ledger's parts on PostgreSQL."""
    for key in (KEY, RARE):
        await store.database.add_key(key)
    for number in range(-HALF_HOURS, 1):
        clock.time = START + number * SPAN
        await store.database.purge(_AUDIT_SECONDS)
        await _commit(store.database, clock)


def changes(rows: int) -> Mapping[str, Columns]:
    """Return how the rows of a full database differ from each other.

    They are spread over the hours. A few of each kind are what lists ask for.
    """
    each = max(1, rows // _FEW)
    stamp = f"{START - _KEPT} + i * {_KEPT} / {rows + 1}"
    grants = {
        "grant_key": f"key_of({stamp}, i)",
        "timestamp": stamp,
        "keep_until": f"{stamp} + {_KEPT}",
        "api_key": f"CASE i % {each} WHEN 3 THEN '{RARE.api_key}' ELSE api_key END",
        "max_uses": f"CASE i % {each} WHEN 2 THEN 2 ELSE max_uses END",
        "uses": f"CASE i % {each} WHEN 1 THEN 0 ELSE uses END",
        "spent_at": f"CASE i % {each} WHEN 1 THEN NULL ELSE spent_at END",
        "revoked_at": f"CASE i % {each} WHEN 1 THEN spent_at ELSE NULL END",
    }
    named = dict.fromkeys(("public_id", "asset_id", "version_id", "blob_key"), "hex_of(i)")
    audit = {"grant_key": f"key_of({stamp}, i)", "at": stamp, "public_id": "hex_of(i)", "asset_id": "hex_of(i)"}
    # SQLite counts rows itself only where they are added in its order.
    return {"grants": grants, "assets": named | {"id": "i + 1000"}, "audit": audit | {"id": "i + 1000"}}


async def measure(side: Side, *, seconds: float) -> Sample:
    store = side.store
    commits = await _commits(store.database, side.clock, seconds)
    look_ups = await _look_ups(store.database, random.Random(1).choices(side.known, k=_LOOK_UPS))
    return {**commits, **look_ups, **await _pages(store.database), **await _forget(store, side.clock)}


async def measure_sweep(side: Side) -> Sample:
    """Measure commits while the sweeper deletes what is old by then."""
    side.clock.time += side.store.sweep
    database, took = side.store.database, list[float]()
    purge = asyncio.create_task(database.purge(_AUDIT_SECONDS))
    begun = time.perf_counter()
    callers = [asyncio.create_task(_call(database, side.clock, took, purge.done)) for _ in range(_FEW_CALLERS)]
    gone = await purge
    seconds = time.perf_counter() - begun
    await asyncio.gather(*callers)
    return {"slowest commit ms": 1000 * max(took), "rows forgotten": float(gone), "seconds": seconds}


async def _commits(database: Database, clock: Clock, seconds: float) -> Sample:
    took: list[float] = []
    begun = time.perf_counter()
    end = begun + seconds
    await asyncio.gather(*(_call(database, clock, took, lambda: time.perf_counter() > end) for _ in range(_CALLERS)))
    return {"commits/s": len(took) / (time.perf_counter() - begun), "commit p99 ms": 1000 * _p99(took)}


async def _call(database: Database, clock: Clock, took: list[float], enough: Callable[[], bool]) -> None:
    """Commit one upload after the other, at least one."""
    while not took or not enough():
        begun = time.perf_counter()
        await _commit(database, clock)
        took.append(time.perf_counter() - begun)


async def _look_ups(database: Database, keys: Sequence[bytes]) -> Sample:
    took = []
    for key in keys:
        begun = time.perf_counter()
        if await database.find_grant(key) is None:
            raise BenchmarkError("A grant that was to be in the ledger is not there.")
        took.append(time.perf_counter() - begun)
    return {"look-up p50 ms": 1000 * statistics.median(took), "look-up p99 ms": 1000 * _p99(took)}


async def _commit(database: Database, clock: Clock) -> None:
    """Commit one upload with a signature of now."""
    at = int(clock.now())
    until = keep_until(at, window=_WINDOW, skew=_SKEW, max_upload_seconds=_KEPT - _WINDOW - _SKEW)
    asset = Asset(
        name=AssetName(KEY.cloud, ResourceType.IMAGE, DeliveryType.UPLOAD, _IDS.base36(20)),
        asset_id=_IDS.dated_hex(),
        version=0,
        version_id=_IDS.hex(32),
        created_at=0,
        blob_key=_IDS.hex(32),
        digest=Digest(100_000, _IDS.hex(32), _IDS.hex(64)),
        facts=MediaFacts(ResourceType.IMAGE, "jpg", 640, 480, 1),
        original_filename="picture",
    )
    key = dated(at, bytes.fromhex(_IDS.hex(64)))
    await database.commit(Grant(key, KEY.cloud, KEY.api_key, at, 1, until), Draft(asset, overwrite=True), _CALLER)


async def _pages(database: Database) -> Sample:
    return {f"page, {name} ms": 1000 * await _page(database, *kind) for name, kind in _KINDS.items()}


async def _page(database: Database, api_key: str | None, status: GrantStatus | None) -> float:
    """Median seconds of a page, of many that follow one another; the list begins again at its end."""
    cursor: str | None = None
    took: list[float] = []
    until = time.perf_counter() + 1
    while len(took) < _PAGES and (not took or time.perf_counter() < until):
        begun = time.perf_counter()
        page = await database.list_grants(KEY.cloud, api_key=api_key, status=status, limit=_PAGE, cursor=cursor)
        took.append(time.perf_counter() - begun)
        cursor = page.next_cursor
    return statistics.median(took)


async def _forget(store: Store, clock: Clock) -> Sample:
    """Rows whose time has long been over, among those that stay."""
    signed = f"{START - SPAN // 2} + i / {_A_SECOND}"
    grants = {
        "grant_key": f"key_of({signed}, i)",
        "timestamp": signed,
        "keep_until": f"{int(clock.now()) - 3600} + i / {_A_SECOND}",
    }
    at = f"{int(clock.now()) - 2 * _AUDIT_SECONDS} + i / {_A_SECOND}"
    audit = {"grant_key": f"key_of({at}, i)", "id": "NULL", "at": at}
    return {
        "forgetting 1,000 ms": 1000 * await _forget_some(store, "grants", grants),
        "forgetting 1,000 of the audit ms": 1000 * await _forget_some(store, "audit", audit),
    }


async def _forget_some(store: Store, table: str, over: Columns) -> float:
    """Seconds for a thousand of them."""
    store.add(table, FORGOTTEN, over)
    begun = time.perf_counter()
    await store.database.purge(_AUDIT_SECONDS)
    return (time.perf_counter() - begun) * 1000 / FORGOTTEN


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]
