"""Operations on the outbox: work that a transaction left for later, each row run at least once."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from uponce.adapters.database import upkeep
from uponce.adapters.database.steps import Ask, Operation, Row, Rows, Runner, Steps, operation, runs
from uponce.adapters.database.upkeep import in_batches
from uponce.app.ports import Effect, NewEffect, Waiting

_ERROR_LENGTH = 500
_RECEIVER_LENGTH = 255  # an index of PostgreSQL holds 2,704 bytes of a row
_LAST_TEXT = chr(0x10FFFF)
_LAST = 2**63 - 1  # the greatest number of an effect

# An effect that waits for another one of its subject is due when the other one is done or dead, or after this time.
_WAIT_SECONDS = 6 * 3600
_FAR_SECONDS = 86_400  # no effect waits so long, unless a clock was ahead when it was written


def adding(effect: NewEffect, subject: str, now: float, seconds: int = 0) -> Ask:
    """Return the write of an effect that is due in so many seconds."""
    written = asdict(effect) | {"receiver": effect.receiver[:_RECEIVER_LENGTH]}
    return "add_effect", written | {"subject": subject, "due_at": int(now) + seconds, "now": int(now)}


@operation(timed=True)
def list_receivers(now: float, name: str, after: str, most: int) -> Steps[Sequence[str]]:
    """Read few rows for each receiver that has effects, however many they are. If none is due, read one row."""
    ((first,),) = yield [("find_first_due", {"name": name})]
    if first["due_at"] is None or first["due_at"] > now:
        return []
    look = {"name": name, "now": int(now), "most": most}
    (later,) = yield [("find_due_receivers", look | {"after": after, "until": _LAST_TEXT})]
    found = [row["receiver"] for row in later]
    if after and len(found) < most:
        (others,) = yield [("find_due_receivers", look | {"after": "", "until": after})]
        found += [row["receiver"] for row in others if row["receiver"] <= after]
    return found[:most]


@operation(writes=True)
def claim(now: float, name: str, shares: Mapping[str, int], lease: int) -> Steps[Sequence[Effect]]:
    """Servers that claim at once skip each other's rows. If no effect is due, nothing is written."""
    found = yield [
        ("find_due_effects", {"name": name, "receiver": receiver, "now": int(now), "most": most})
        for receiver, most in shares.items()
    ]
    claimed = [_claimed(_effect_of(row), int(now), lease) for rows in found for row in rows]
    yield [("claim_effect", {"id": each.id, "due_at": each.due_at}) for each in claimed]
    return claimed


def _claimed(effect: Effect, now: int, lease: int) -> Effect:
    return replace(effect, due_at=now + lease, tries=effect.tries + 1, now=now, waited=now - effect.due_at)


@operation(writes=True)
def delay_waiting(now: float, name: str, shares: Mapping[str, int], most: int) -> Steps[Mapping[str, int]]:
    """Delay those of the first `most` due effects of each receiver that wait for another one of their subject.

    Return the shares of the receivers whose other effects may be too few. So a look reads each effect that waits once,
    however many wait. The other one is held: a server that ends it finds what this transaction has delayed. If a
    server is just ending it, the effect that waits stays due.
    """
    found = yield [
        ("find_first_effects", {"name": name, "receiver": receiver, "now": int(now), "most": most})
        for receiver in shares
    ]
    waiting = [
        (receiver, row)
        for receiver, rows in zip(shares, found, strict=True)
        for row in rows
        if row["before"] is not None
    ]
    held = yield [("hold_effect", {"id": row["before"]}) for _, row in waiting]
    delayed = [(receiver, row) for (receiver, row), rows in zip(waiting, held, strict=True) if rows]
    yield [("delay_effect", {"id": row["id"], "due_at": int(now) + _WAIT_SECONDS}) for _, row in delayed]
    counts = Counter(receiver for receiver, _ in delayed)
    return {each: shares[each] for each, count in counts.items() if count > max(most - shares[each], 0)}


@operation(writes=True)
def finish(now: float, effect_id: int) -> Steps[None]:
    (rows,) = yield [("finish_effect", {"id": effect_id})]
    yield _hastening_next(now, effect_id, rows)


@operation(writes=True)
def postpone(now: float, effect: Effect, seconds: int, error: str = "", *, dead: bool = False) -> Steps[None]:
    later = {"due_at": int(now) + seconds, "error": error[:_ERROR_LENGTH], "dead": int(dead)}
    (rows,) = yield [("postpone_effect", later | {"id": effect.id, "claimed": effect.due_at})]
    if dead:
        yield _hastening_next(now, effect.id, rows)


def _hastening_next(now: float, effect_id: int, ended: Rows) -> list[Ask]:
    """Return the write that makes the next effect of its subject due, after an effect that was done or died."""
    return [("hasten_next_effect", {"id": effect_id, "subject": row["subject"], "now": int(now)}) for row in ended]


@operation(writes=True)
def hasten(now: float, subject: str) -> Steps[None]:
    yield [("hasten_effects", {"subject": subject, "now": int(now)})]


@operation()
def find(_: float, effect_id: int) -> Steps[Effect | None]:
    (rows,) = yield [("find_effect", {"id": effect_id})]
    return _effect_of(rows[0]) if rows else None


@operation()
def list_all(_: float, limit: int) -> Steps[Sequence[Effect]]:
    (rows,) = yield [("list_effects", {"most": limit})]
    return [_effect_of(row) for row in rows]


@operation()
def count(_: float) -> Steps[Waiting]:
    ((row,),) = yield [("count_waiting", {})]
    return Waiting(row["pending"], row["live"], row["dead"])


@operation(writes=True)
def retry(now: float, effect_id: int) -> Steps[int]:
    (rows,) = yield [("retry_effect", {"now": int(now), "id": effect_id})]
    return len(rows)


@operation(writes=True)
def retry_dead(now: float, after: int, most: int) -> Steps[Sequence[int]]:
    """Make the first dead effects after the number `after` due now and alive, at most `most`. Return their numbers."""
    (rows,) = yield [("retry_dead_effects", {"now": int(now), "after": after, "most": most})]
    return sorted(row["id"] for row in rows)


@operation(writes=True)
def drop_dead(_: float, name: str, after: int, last: int, most: int) -> Steps[Sequence[int]]:
    """Delete the first dead effects of this name after the number `after`, up to `last`. Return their numbers."""
    (rows,) = yield [("drop_dead_effects", {"name": name, "after": after, "last": last, "most": most})]
    return sorted(row["id"] for row in rows)


@operation(writes=True)
def hasten_far(now: float, most: int) -> Steps[int]:
    """Make at most so many effects due that a clock far ahead has written or delayed. Return their number."""
    (rows,) = yield [("hasten_far_effects", {"now": int(now), "far": int(now) + _FAR_SECONDS, "most": most})]
    return len(rows)


@operation(writes=True)
def drop_old(now: float, seconds: int, until: int, most: int) -> Steps[int]:
    """Delete at most so many effects that died longer ago, and before `until`. Return their number.

    Look-ups of a relay stay.
    """
    (rows,) = yield [("drop_old_effects", {"before": min(int(now) - seconds, until), "most": most})]
    return len(rows)


def _effect_of(row: Row) -> Effect:
    """Return the effect of a row. Its columns have the names of the fields."""
    return Effect(**dict(row) | {"dead": bool(row["dead"])})


class OutboxMethods(Runner):
    list_receivers = runs(list_receivers)
    finish_effect = runs(finish)
    postpone_effect = runs(postpone)
    hasten_effect = runs(hasten)
    find_effect = runs(find)
    list_effects = runs(list_all)
    count_waiting = runs(count)

    async def claim_effects(self, name: str, shares: Mapping[str, int], lease: int) -> Sequence[Effect]:
        left = shares
        while left:  # until those that may run are among the first
            left = await self.write(delay_waiting(name, left, upkeep.BATCH))
        return await self.write(claim(name, shares, lease))

    async def retry_effects(self, effect_id: int | None = None) -> int:
        if effect_id is not None:
            return await self.write(retry(effect_id))
        return await self._once_each(retry_dead)

    async def drop_dead_effects(self, name: str, effect_id: int | None = None) -> int:
        if effect_id is not None:
            dropped: Sequence[int] = await self.write(drop_dead(name, effect_id - 1, effect_id, 1))
            return len(dropped)
        return await self._once_each(lambda after, most: drop_dead(name, after, _LAST, most))

    async def _once_each(self, make: Callable[[int, int], Operation[Sequence[int]]]) -> int:
        """Run an operation on all effects in batches, except those that die again in between. Return their number."""
        after = 0

        async def some() -> int:
            nonlocal after
            done = await self.write(make(after, upkeep.BATCH))
            after = max(done, default=after)
            return len(done)

        return await in_batches(some)
