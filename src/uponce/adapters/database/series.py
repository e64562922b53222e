"""Operations on unfinished uploads that arrive in several requests.

An operation that changes a series, or needs it unchanged, holds its row. No operation holds two of them and waits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from uponce.adapters.database import commits
from uponce.adapters.database.steps import (
    BEGINNING_A_SERIES,
    Ask,
    Params,
    Row,
    Rows,
    Rules,
    Runner,
    Steps,
    json_text,
    of_grant,
    of_name,
    operation,
    params_of,
    runs,
)
from uponce.adapters.database.upkeep import BATCH
from uponce.app.ports import Committed, Draft
from uponce.core.errors import SeriesGone, SignatureInUse, TooManySeries, TooManySignatures
from uponce.core.refusals import WHY_SIGNATURES_COLLIDE
from uponce.core.series import Chunk, Series, StoredPart, check_parts, grown
from uponce.core.spans import Span
from uponce.core.values import Algorithm, Caller, Grant, GrantRecord, ResourceType

_IN_SERIES_SECONDS = 60
_ENDED_ROWS = 2500  # more than a BATCH: the rows of a series are next to each other, and 12,000 took 65 ms

# Made at import, see commits.py.
_PAIRS = msgspec.json.Decoder(tuple[tuple[str, str], ...])
_SPANS = msgspec.json.Decoder(tuple[tuple[int, int], ...])


@operation(rules=Rules.SHARED, waits=True, locks=lambda new, **_: (BEGINNING_A_SERIES, of_grant(new.grant.key)))
def create(now: float, new: Series, *, per_key: int, in_all: int, complete_before: int = 0) -> Steps[Series]:
    (count,), existing = yield [
        ("count_series", {"api_key": new.api_key}),
        ("find_named_series", params_of(new, "cloud api_key upload_id")),  # without a name, none is found
    ]
    if existing:
        return _series_of(existing[0])
    _check_room(count["of_key"], per_key, "with this API key")
    _check_room(count["in_all"], in_all, "on this server")
    yield from _check_joins(new.grant, complete_before)
    yield [("add_series", _series_params(new)), _joining(new.id, new.grant, now)]
    return new


@operation(rules=Rules.SHARED)
def join(now: float, series_id: str, grant: Grant, *, most: int) -> Steps[Series]:
    series = yield from _hold(series_id)
    (joined,) = yield [("find_series_grant", {"series_id": series_id, "grant_key": grant.key})]
    if joined:
        return series
    _check_signatures(series, most)
    yield [("hold", {"numbers": [of_grant(grant.key)]})]
    yield from _check_joins(grant)
    yield [_joining(series_id, grant, now), ("count_signature", {"series_id": series_id})]
    return (yield from _get(series_id))


def _check_joins(grant: Grant, complete_before: int = 0) -> Steps[None]:
    keys, (count,), records = yield [
        commits.ask_watermark(grant),
        ("count_holders", {"grant_key": grant.key, "complete_before": complete_before}),
        commits.ask_grant(grant.key),
    ]
    commits.check_key(grant, keys)
    _check_use_left(grant, commits.first_grant(records), count["holders"], count["idle"])


def _joining(series_id: str, grant: Grant, now: float) -> Ask:
    return "add_series_grant", commits.grant_params(grant, now) | {"series_id": series_id}


@operation(writes=True)
def record(_: float, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart] = ()) -> Steps[Series]:
    before = yield from _hold(series_id)
    check_parts(before, span, parts)
    series = replace(grown(before, Chunk(span, total)), parts=before.parts + len(parts))
    sizes = params_of(series, "total arrived parts") | {"spans": _spans_text(series.spans)}
    yield [  # the series first: `freeze` locks the tables in this order
        ("grow_series", sizes | {"series_id": series_id}),
        *(("add_part", _part_params(series_id, part)) for part in parts),
    ]
    return series


@operation(rules=Rules.SHARED, locks=lambda series_id, draft, caller: (of_name(draft.asset.name),))
def commit(now: float, series_id: str, draft: Draft, caller: Caller) -> Steps[Committed]:
    grants = yield from hold_to_spend(series_id)  # a final refusal first: its client must not upload again
    condemned, old = yield [("find_condemned", {"blob_key": draft.asset.blob_key}), commits.ask_asset(draft.asset.name)]
    if condemned:
        raise commits.refuse_condemned()
    kept = [commits.kept_until(grant, now) for grant in grants]
    taken = yield [("spend_grant", commits.grant_params(grant, now)) for grant in kept]
    if not all(taken):  # impossible while they are locked; if it happened, the runner would roll all of it back
        raise _series_gone()
    committed = commits.publication(draft, commits.asset_of(old[0]) if old else None, now)
    yield [*commits.publishing(kept, committed, draft, caller, now), ("end_series", {"series_id": series_id})]
    return committed


def hold_to_spend(series_id: str) -> Steps[Sequence[Grant]]:
    """Return the grants whose spend ends the series. Until the transaction ends, no other one changes or uses them.

    Raise the refusal of one that cannot be spent. Watermarks are not checked: they were when each grant joined, and
    since then its row could not be purged.
    """
    yield from _hold(series_id)
    (rows,) = yield [("find_series_grants", {"series_id": series_id})]
    grants = _grants_of(rows)
    yield [("hold", {"numbers": sorted(of_grant(grant.key) for grant in grants)})]
    found = yield [ask for grant in grants for ask in (commits.ask_watermark(grant), commits.ask_grant(grant.key))]
    for grant, keys in zip(grants, found[::2], strict=True):
        commits.check_key(grant, keys, watermark=False)
    commits.check_all_usable(grants, found[1::2])
    return grants


@operation()
def find(_: float, series_id: str) -> Steps[Series | None]:
    (rows,) = yield [("find_series", {"series_id": series_id})]
    return _series_of(rows[0]) if rows else None


@operation()
def find_named(_: float, cloud: str, api_key: str, upload_id: str) -> Steps[Series | None]:
    (rows,) = yield [("find_named_series", {"cloud": cloud, "api_key": api_key, "upload_id": upload_id})]
    return _series_of(rows[0]) if rows else None


@operation()
def find_of(_: float, grant_key: bytes) -> Steps[Sequence[Series]]:
    (rows,) = yield [("find_series_of_grant", {"grant_key": grant_key})]
    return [_series_of(row) for row in rows]


@operation()
def has_joined(_: float, series_id: str, grant_key: bytes) -> Steps[bool]:
    (rows,) = yield [("find_series_grant", {"series_id": series_id, "grant_key": grant_key})]
    return bool(rows)


@operation()
def grants(_: float, series_id: str) -> Steps[Sequence[Grant]]:
    (rows,) = yield [("find_series_grants", {"series_id": series_id})]
    return _grants_of(rows)


@operation()
def parts(_: float, series_id: str, span: Span, limit: int) -> Steps[Sequence[StoredPart]]:
    values = {"series_id": series_id, "start": span.start, "stop": span.end, "most": limit}
    (rows,) = yield [("list_parts", values)]
    return [_part_of(row) for row in rows]


@operation(writes=True)
def end(_: float, series_id: str, *, if_empty: bool = False) -> Steps[bool]:
    (ended,) = yield [("end_empty_series" if if_empty else "end_series", {"series_id": series_id})]
    return bool(ended)


@operation(writes=True)
def note_arrival(_: float, series_id: str, size: int) -> Steps[None]:
    yield [("note_arrival", {"series_id": series_id, "size": size})]


@operation(writes=True)
def end_slowest(
    now: float, api_key: str, *, per_key: int, in_all: int, rate: int, seconds: int
) -> Steps[Sequence[str]]:
    is_full, of_key = yield from _where_full(api_key, per_key, in_all)
    if not is_full:
        return ()
    pace = {"rate": rate, "seconds": seconds, "now": int(now)}
    (ended,) = yield [("end_slowest_series", pace | {"api_key": of_key})]
    return _blob_keys(ended)


@operation(timed=True)
def slowest_complete(
    now: float, api_key: str, *, per_key: int, in_all: int, older_than: int, shared_older_than: int, most: int
) -> Steps[Sequence[Series]]:
    is_full, of_key = yield from _where_full(api_key, per_key, in_all)
    if not is_full:
        return ()
    begun = {"before": int(now) - older_than, "shared_before": int(now) - shared_older_than}
    (rows,) = yield [("list_slowest_complete", begun | {"of_key": of_key, "now": int(now), "most": most})]
    return [_series_of(row) for row in rows]


def _where_full(api_key: str, per_key: int, in_all: int) -> Steps[tuple[bool, str | None]]:
    """Return whether there are too many series, and the key that has too many, else None."""
    ((count,),) = yield [("count_series", {"api_key": api_key})]
    of_key = count["of_key"] >= per_key
    return of_key or count["in_all"] >= in_all, api_key if of_key else None


@operation(writes=True)
def end_old(now: float, older_than: float, empty: float) -> Steps[Sequence[str]]:
    before, empty_before = int(now - older_than), int(now - empty)
    moments = {"before": before, "empty_before": empty_before, "newest": max(before, empty_before)}
    (ended,) = yield [("end_old_series", moments | {"most": BATCH, "rows": _ENDED_ROWS})]
    return _blob_keys(ended)


@operation()
def blobs(_: float) -> Steps[frozenset[str]]:
    (rows,) = yield [("list_series_blobs", {})]
    return frozenset(_blob_keys(rows))


def _blob_keys(rows: Rows) -> list[str]:
    return [row["blob_key"] for row in rows]


def _hold(series_id: str) -> Steps[Series]:
    """Return the series. No other transaction changes it until this one ends. Raise SeriesGone."""
    yield [("hold_series", {"series_id": series_id})]
    # A separate statement: the one above may have waited for a transaction whose writes its own snapshot does not show.
    return (yield from _get(series_id))


def _get(series_id: str) -> Steps[Series]:
    (rows,) = yield [("find_series", {"series_id": series_id})]
    if not rows:
        raise _series_gone()
    return _series_of(rows[0])


def _check_room(count: int, limit: int, where: str) -> None:
    """Raise TooManySeries if so many are unfinished already."""
    if count >= limit:
        raise TooManySeries(
            f"{limit} uploads {where} are unfinished, and {limit} are allowed. Finish one, send the file in one "
            "request, or try again later."
        )


def _check_signatures(series: Series, most: int) -> None:
    """Raise TooManySignatures if the series takes no further one."""
    if series.signatures >= most:
        raise TooManySignatures(
            f"This upload has {series.signatures} signatures, and {most} are allowed. Send the other chunks with one "
            "of these signatures, or begin again with larger chunks."
        )


def _check_use_left(grant: Grant, record: GrantRecord | None, holders: int, idle: int) -> None:
    """Raise SignatureUsed or SignatureRevoked if the grant's row says so.

    Raise SignatureInUse if `holders`, the number of series with the grant, will need all remaining uses. As many `idle`
    ones as there are uses do not count: their completion may have failed. With more, one signature could fill a server.
    """
    commits.check_usable(record, grant)
    left = grant.max_uses - (record.uses if record else 0)
    if holders - min(idle, left) >= left:
        raise SignatureInUse(
            "This signature belongs to another upload, which is not complete yet. Resume that upload, or ask for a "
            f"new signature. {WHY_SIGNATURES_COLLIDE}",
            retry_after=_IN_SERIES_SECONDS,
        )


def _series_gone() -> SeriesGone:
    return SeriesGone(
        "This upload is complete or was ended, so it takes no more bytes. To send another file, begin with a new "
        "signature."
    )


def _series_params(series: Series) -> Params:
    same = "id cloud api_key upload_id requested algorithm filename blob_key created_at total arrived signatures parts"
    return params_of(series, same) | {
        "parameters": json_text(series.parameters),
        "shared": int(series.shared),
        "spans": _spans_text(series.spans),
    }


def _spans_text(spans: Iterable[Span]) -> str:
    return json_text([(span.start, span.end) for span in spans])


def _series_of(row: Row) -> Series:
    """Return the series of a row. Its columns have the names of the fields, except those of the grant."""
    values = dict(row)
    key, *times = (values.pop(name) for name in ("grant_key", "timestamp", "max_uses", "keep_until"))
    read = {
        "grant": Grant(key, row["cloud"], row["api_key"], *times),
        "requested": None if row["requested"] is None else ResourceType(row["requested"]),
        "parameters": _PAIRS.decode(row["parameters"]),
        "algorithm": Algorithm(row["algorithm"]),
        "shared": bool(row["shared"]),
        "spans": tuple(Span(start, stop) for start, stop in _SPANS.decode(row["spans"])),
    }
    return Series(**values | read)


def _grants_of(rows: Rows) -> Sequence[Grant]:
    return [commits.grant_in(row) for row in rows]


def _part_params(series_id: str, part: StoredPart) -> Params:
    span = part.span
    return {"series_id": series_id, "start": span.start, "stop": span.end, "name": part.name, "sha256": part.sha256}


def _part_of(row: Row) -> StoredPart:
    return StoredPart(Span(row["start"], row["stop"]), row["name"], row["sha256"])


class SeriesMethods(Runner):
    create_series = runs(create)
    join_series = runs(join)
    record_span = runs(record)
    commit_series = runs(commit)
    end_series = runs(end)
    note_arrival = runs(note_arrival)
    end_old_series = runs(end_old)
    end_slowest_series = runs(end_slowest)
    slowest_complete_series = runs(slowest_complete)

    find_series = runs(find)
    find_named_series = runs(find_named)
    find_series_of = runs(find_of)
    has_joined_series = runs(has_joined)
    series_grants = runs(grants)
    series_parts = runs(parts)
    series_blobs = runs(blobs)
