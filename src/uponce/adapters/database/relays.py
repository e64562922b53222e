"""Operations on uploads that are passed on to an upstream: take the grants, record the upload, write its outcome.

A relay's row and the pending uses of its grants come and go together, in one transaction.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from uponce.adapters.database import commits, outbox
from uponce.adapters.database.series import hold_to_spend
from uponce.adapters.database.steps import (
    Ask,
    Params,
    Row,
    Rows,
    Rules,
    Runner,
    Steps,
    json_text,
    of_grant,
    operation,
    runs,
)
from uponce.app.ports import NewEffect
from uponce.core.refusals import still_pending
from uponce.core.relaying import Forwarded, Relay
from uponce.core.upstream import Target
from uponce.core.values import AuditEvent, AuditRecord, Caller, Digest, Grant

EFFECT = "relay"  # the effect that looks a relay up

# Made at import, see commits.py.
_TARGET = msgspec.json.Decoder(Target)


def _locks(relay: Relay, *_: object) -> Sequence[int]:
    return [of_grant(grant.key) for grant in relay.grants]


@operation(rules=Rules.SHARED, grouped=True, locks=_locks)
def begin(now: float, relay: Relay, seconds: int) -> Steps[Relay | Forwarded]:
    found = yield [ask for grant in relay.grants for ask in _asks_of_begin(grant, relay)]
    for grant, keys in zip(relay.grants, found[::4], strict=True):
        commits.check_key(grant, keys)
    for replies in found[1::4]:
        answer = commits.reply_of(replies[0]).repeat(relay.digest.sha256) if replies else None
        if isinstance(answer, Forwarded):  # not the answer of an upload that was stored here
            return answer
    commits.check_all_usable(relay.grants, found[3::4])
    if any(found[2::4]):
        raise still_pending()
    return (yield from _begin(now, relay, seconds, []))


def _asks_of_begin(grant: Grant, relay: Relay) -> tuple[Ask, Ask, Ask, Ask]:
    repeat = {"grant_key": grant.key, "key_hash": relay.key_hash}  # no key, no reply
    return (
        commits.ask_watermark(grant),
        ("find_reply", repeat),
        ("find_pending_repeat", repeat),
        commits.ask_grant(grant.key),
    )


@operation(rules=Rules.SHARED)
def begin_of_series(now: float, relay: Relay, series_id: str, seconds: int) -> Steps[Relay | Forwarded]:
    grants = yield from hold_to_spend(series_id)
    whole = replace(relay, grants=tuple(grants))
    return (yield from _begin(now, whole, seconds, [("end_series", {"series_id": series_id})]))


def _begin(now: float, relay: Relay, seconds: int, further: Sequence[Ask]) -> Steps[Relay]:
    """Take one use of each grant, and record the upload as pending."""
    pending = replace(relay, pending_at=int(now), misses=0)
    taken = yield [("take_grant", commits.grant_params(grant, now)) for grant in relay.grants]
    if not all(taken):  # impossible while they are locked; if it happened, the runner would roll all of it back
        lost = next(grant for grant, rows in zip(relay.grants, taken, strict=True) if not rows)
        (records,) = yield [commits.ask_grant(lost.key)]
        commits.check_usable(commits.first_grant(records), lost)
        raise AssertionError("a use is left")
    yield [
        ("add_relay", _relay_params(pending)),
        *(("add_relay_grant", commits.grant_params(grant, now) | {"relay_id": relay.id}) for grant in relay.grants),
        outbox.adding(NewEffect(EFFECT, relay.target.account or relay.cloud), relay.id, now, seconds),
        *further,
    ]
    return pending


# Apart from groups: it may wait for the row of its effect, which a frozen server may hold.
@operation(rules=Rules.SHARED, locks=_locks)
def end(now: float, relay: Relay, answer: Forwarded | None, code: str = "") -> Steps[bool]:
    (ended,) = yield [("end_relay", {"relay_id": relay.id})]
    if not ended:
        return False
    yield ending(now, relay, answer, code)
    return True


def ending(now: float, relay: Relay, answer: Forwarded | None, code: str) -> list[Ask]:
    """Return the writes of an outcome. The ledger remembers the grants for a while, as those of a series."""
    kept = [commits.kept_until(grant, now) for grant in relay.grants]
    writes: list[Ask] = [("finish_effects", {"subject": relay.id})]
    if answer is None:
        writes += [("free_grant", commits.grant_params(grant, now)) for grant in kept]
        return writes + [("drop_unused_grant", {"grant_key": grant.key}) for grant in kept]
    writes += [("spend_taken_grant", commits.grant_params(grant, now)) for grant in kept]
    note = AuditRecord(int(now), AuditEvent.SPENT, relay.caller, code, answer.asset_id, answer.public_id)
    writes += [("write_audit", commits.audit_params(grant, note)) for grant in kept]
    if relay.key_hash is not None:
        writes += [("keep_reply", commits.reply_params(grant, relay.key_hash, relay.digest, answer)) for grant in kept]
    return writes


@operation()
def find(_: float, relay_id: str) -> Steps[Relay | None]:
    rows, grants = yield [("find_relay", {"relay_id": relay_id}), ("find_relay_grants", {"relay_id": relay_id})]
    return _relay_of(rows[0], grants) if rows and grants else None  # it may end between the two statements


@operation(timed=True)
def moment(now: float) -> Steps[float]:
    yield []
    return now


@operation(writes=True)
def hasten(now: float, cloud: str, names: Sequence[str], seconds: int) -> Steps[None]:
    due_at = int(now) + seconds
    # The column `target` has this text if an upload has this name or marker in the upstream. A relay with the text
    # elsewhere is only looked up early.
    yield [("hasten_relays", {"cloud": cloud, "part": json_text(name), "due_at": due_at}) for name in names]


@operation(writes=True)
def note_misses(_: float, relay_id: str, misses: int) -> Steps[None]:
    yield [("note_misses", {"relay_id": relay_id, "misses": misses})]


def _relay_params(relay: Relay) -> Params:
    return {
        "relay_id": relay.id,
        "cloud": relay.cloud,
        "target": json_text(relay.target),
        "bytes": relay.digest.size,
        "md5": relay.digest.md5,
        "sha256": relay.digest.sha256,
        "address": relay.caller.address[: commits.ADDRESS_LENGTH],
        "request_id": relay.caller.request_id,
        "key_hash": relay.key_hash,
        "pending_at": relay.pending_at,
        "misses": relay.misses,
        "bound": relay.bound,
    }


def _relay_of(row: Row, grants: Rows) -> Relay:
    return Relay(
        id=row["relay_id"],
        cloud=row["cloud"],
        grants=tuple(map(commits.grant_in, grants)),
        target=_TARGET.decode(row["target"]),
        digest=Digest(row["bytes"], row["md5"], row["sha256"]),
        caller=Caller(row["address"], row["request_id"]),
        key_hash=row["key_hash"],
        pending_at=row["pending_at"],
        misses=row["misses"],
        bound=row["bound"],
    )


class RelayMethods(Runner):
    end_relay = runs(end)
    find_relay = runs(find)
    moment = runs(moment)
    note_misses = runs(note_misses)
    hasten_relays = runs(hasten)

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        if relay.series_id is None:
            return await self.write(begin(relay, seconds))
        return await self.write(begin_of_series(relay, relay.series_id, seconds))
