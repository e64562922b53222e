"""Every order of events of two attempts on one grant, over the rules that the relay itself uses.

Time passes in seconds. A sender may stop anywhere and wake late, or die. A request to the upstream arrives at any
later time, or never. The upstream stores, refuses or fails, may store and answer 500, and an answer may be lost. The
relay may look a pending upload up at any time. The search visits all states that can come of it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

from uponce.adapters.database import relays
from uponce.adapters.database.statements import Statement, load
from uponce.adapters.database.steps import Ask, Operation, Rows, run
from uponce.core.errors import UponceError
from uponce.core.policy import Limits
from uponce.core.relaying import (
    Forwarded,
    Found,
    GrantVerdict,
    Judgement,
    Missing,
    Outcome,
    Relay,
    bound,
    is_answer,
    judge_look_up,
    outcome_of,
    trailer_timestamp,
)
from uponce.core.upstream import Target
from uponce.core.values import Caller, Digest, Grant

LIMITS = Limits(relay_fence=1, skew=1, relay_processing=1)
WINDOW = 100  # of the upstream; longer than the search
LAST_START = bound(LIMITS) + 1  # so that the second attempt may start after the first one was released
END = LAST_START + bound(LIMITS) + 1
OLD_VERSION = -50
OLD = -1  # the owner of an asset that was there before
OTHER = -2  # the owner of an asset that replaced one of the attempts
GRANT = Grant(b"K", "media", "key", 0, 1, 1000)
ANSWERS: Mapping[str, tuple[int, Mapping[str, object] | None]] = {
    "stored": (200, {"public_id": "a"}),
    "existing": (200, {"public_id": "a", "existing": True}),
    "refused": (400, {"error": {"message": "Stale request"}}),
    "failed": (500, {"error": {"message": "General Error"}}),
    "torn": (200, None),
}

DOUBLE = "two assets of one grant"
REPLAYABLE = "an asset, and the grant is free"
BURNED = "a spent grant without an asset"
OTHER_BYTES = "other bytes acknowledged"
STUCK = "pending for ever"


class Ledger(NamedTuple):
    """What the database holds of the grant. `rows` are the pending attempts with `pending_at` and `misses` of each."""

    uses: int = 0
    pending: int = 0
    rows: tuple[tuple[int, int, int], ...] = ()


class Sender(NamedTuple):
    """An attempt in the relay and its request upstream.

    `phase`: idle, pending (no signature has left), sent, gone. `request`: none, under way, accepted, over.
    """

    phase: str = "idle"
    stamp: int = 0
    request: str = "none"
    accepted_at: int = 0
    answer: str = ""


class State(NamedTuple):
    """`store` has the owner and the version of each asset. `stored` counts what the attempts stored.

    `stale_reads` is how many look-ups may still miss an asset that is there. `told_existing`: a client knows that its
    upload made no new asset. `lied`: a client got an answer for bytes that it did not send.
    """

    now: int
    senders: tuple[Sender, Sender]
    ledger: Ledger
    store: tuple[tuple[int, int], ...]
    stored: int = 0
    stale_reads: int = 1
    told_existing: bool = False
    lied: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """How the upstream names and changes uploads, and by how many seconds its clock is ahead.

    `latency` is how many seconds a look-up begins before its answer.
    """

    # Keeps or replaces the asset of that name, or is marked: each upload makes an asset. In "marked, replaces", the
    # upload of another grant may replace the asset, and with it the marker.
    naming: str
    changes_bytes: bool
    has_old: bool
    ahead: int
    latency: int = 0

    def etag(self, owner: int) -> str:
        return f"changed {owner}" if self.changes_bytes else f"md5 {owner}"


def stamp_of(pending_at: int, sent_at: int) -> int:
    """The signature is made in the transaction, also when its sender sleeps before it sends."""
    return trailer_timestamp(pending_at, WINDOW, LIMITS.relay_fence)


def take_grant(relay: Relay) -> Operation[Any]:
    return relays.begin(relay, 1)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the relay decides by. Each default is the product's own rule."""

    stamp: Callable[[int, int], int] = stamp_of
    judge: Callable[[Relay, Found | Missing, float, Limits], Judgement] = judge_look_up
    is_answer: Callable[[Relay, Found], bool] = is_answer
    outcome: Callable[[int, Mapping[str, object] | None], Outcome] = outcome_of
    begin: Callable[[Relay], Operation[Any]] = take_grant
    end: Callable[[Relay, Forwarded | None, str], Operation[bool]] = relays.end


def relay_of(number: int, pending_at: int, misses: int) -> Relay:
    digest = Digest(1, f"md5 {number}", f"sha256 {number}")
    return Relay(str(number), "media", (GRANT,), TARGET, digest, Caller("", ""), pending_at=pending_at, misses=misses)


TARGET = Target("image", "upload", {}, (("image", "a"),))


class Database:
    """Runs the statements of the relay's own operations on a Ledger."""

    statements: Mapping[str, Statement] = load("sqlite")

    def __init__(self, ledger: Ledger) -> None:
        self.uses, self.pending = ledger.uses, ledger.pending
        self.rows = {number: rest for number, *rest in ledger.rows}

    @property
    def ledger(self) -> Ledger:
        rows = ((number, pending_at, misses) for number, (pending_at, misses) in sorted(self.rows.items()))
        return Ledger(self.uses, self.pending, tuple(rows))

    def ask(self, asks: Sequence[Ask]) -> Sequence[Rows]:
        return [self._run(name, params) for name, params in asks]

    def _run(self, name: str, params: Mapping[str, Any]) -> Rows:
        found: Rows = []
        match name:
            case "find_watermark":
                found = [{"watermark": None}]
            case "find_grant" if self.uses:
                row = {"grant_key": b"K", "cloud": "media", "api_key": "key", "timestamp": 0, "max_uses": 1}
                spent_at = 1 if self.uses > self.pending else None
                also = {"uses": self.uses, "pending": self.pending, "spent_at": spent_at, "revoked_at": None}
                found = [{**row, **also, "keep_until": 1000}]
            case "take_grant" if self.uses < params["max_uses"]:
                self.uses, self.pending, found = self.uses + 1, self.pending + 1, [{}]
            case "spend_taken_grant":
                self.pending -= 1
            case "free_grant":
                self.uses, self.pending = self.uses - 1, self.pending - 1
            case "add_relay":
                self.rows[int(params["relay_id"])] = [params["pending_at"], params["misses"]]
            case "end_relay" if self.rows.pop(int(params["relay_id"]), None):
                found = [{}]
        return found


class Search:
    """All states that can be reached in one world under these rules. `violations` has the way to the first of each."""

    def __init__(self, world: World, rules: Rules) -> None:
        self._world = world
        self._rules = rules
        self.came_from: dict[State, tuple[State | None, str]] = {}
        self.violations: dict[str, list[str]] = {}
        self._begin, self._end, self._judged = cache(self._begun), cache(self._ended), cache(self._judgement)

    def run(self, *, until_red: bool = False) -> "Search":
        """Visit all states, or those before the first violation."""
        old = ((OLD, OLD_VERSION),) if self._world.has_old else ()
        start = State(0, (Sender(), Sender()), Ledger(), old)
        self.came_from[start] = None, ""
        waiting = deque([start])
        while waiting and not (until_red and self.violations):
            state = waiting.popleft()
            is_last = True
            for what, following in self._moves(state):
                is_last = is_last and following == state
                if following not in self.came_from:
                    self.came_from[following] = state, what
                    waiting.append(following)
            for violation in self._violations(state, is_last):
                self.violations.setdefault(violation, self._way_to(state))
        return self

    def _violations(self, state: State, is_last: bool) -> Iterator[str]:
        ledger = state.ledger
        if state.stored > 1:
            yield DOUBLE
        if state.stored and ledger.uses < GRANT.max_uses:
            yield REPLAYABLE
        if ledger.uses > ledger.pending and not state.stored and not state.told_existing:
            yield BURNED
        if state.lied:
            yield OTHER_BYTES
        if is_last and (ledger.pending or ledger.rows):
            yield STUCK

    def _way_to(self, state: State | None) -> list[str]:
        way = []
        while state is not None and self.came_from[state][0] is not None:
            way.append(f"{state.now}: {self.came_from[state][1]}")
            state = self.came_from[state][0]
        return way[::-1]

    def _moves(self, state: State) -> Iterator[tuple[str, State]]:
        late = any(
            each.request == "accepted" and state.now >= each.accepted_at + LIMITS.relay_processing
            for each in state.senders
        )
        if state.now < END + self._world.latency and not late:
            yield "a second passes", state._replace(now=state.now + 1)
        for number, sender in enumerate(state.senders):
            for what, following in self._moves_of(state, number, sender):
                yield f"{number}: {what}", following
        if self._world.naming == "marked, replaces" and state.store and state.store[-1][0] != OTHER:
            replaced = ((OTHER, state.now + self._world.ahead),)
            yield "another upload replaces the asset", state._replace(store=replaced)
        for row in state.ledger.rows:
            for what, following in self._look_ups(state, *row):
                yield f"{row[0]}: {what}", following

    def _moves_of(self, state: State, number: int, sender: Sender) -> Iterator[tuple[str, State]]:
        put = partial(_with, state, number)
        now = state.now
        if sender.phase == "idle" and (begun := self._start(state, number)) is not None:
            yield "is pending", put(sender._replace(phase="pending", stamp=now), ledger=begun)
        if sender.phase == "pending":
            stamp = self._rules.stamp(sender.stamp, now)
            yield "sends its signature", put(sender._replace(phase="sent", stamp=stamp, request="under way"))
        if sender.phase in ("pending", "sent"):
            yield "dies, or waits no longer", put(sender._replace(phase="gone"))
        if sender.request == "under way":
            yield "its request is lost", put(sender._replace(request="over"))
            if now + self._world.ahead - sender.stamp > WINDOW:
                yield "the upstream refuses it as stale", put(sender._replace(request="over", answer="refused"))
            else:
                yield "the upstream accepts it", put(sender._replace(request="accepted", accepted_at=now))
        if sender.request == "accepted":
            over = sender._replace(request="over")
            yield "the upstream refuses it", put(over._replace(answer="refused"))
            yield "the upstream fails", put(over._replace(answer="failed"))
            yield from self._store(state, number, over)
        if sender.phase == "sent" and sender.answer:
            yield self._hear(state, number, sender)

    def _start(self, state: State, number: int) -> Ledger | None:
        """The ledger after the pending transaction, None if that refuses. The first attempt starts at 0: it is only a
        name for the one that does."""
        first = state.senders[0]
        if (number == 0 and state.now > 0) or (number == 1 and (first.phase == "idle" or state.now > LAST_START)):
            return None
        return self._begin(state.ledger, number, state.now)

    def _store(self, state: State, number: int, over: Sender) -> Iterator[tuple[str, State]]:
        put = partial(_with, state, number)
        if state.store and self._world.naming == "keeps":
            for answer in ("existing", "failed"):
                yield f"the asset exists, answered {answer}", put(over._replace(answer=answer))
            return
        kept = () if self._world.naming.endswith("replaces") else state.store
        store = (*kept, (number, state.now + self._world.ahead))
        for answer in ("stored", "failed", "torn"):
            following = put(over._replace(answer=answer), store=store)
            yield f"the upstream stores, answered {answer}", following._replace(stored=state.stored + 1)

    def _hear(self, state: State, number: int, sender: Sender) -> tuple[str, State]:
        """The answer arrives, as Relaying concludes it."""
        outcome = self._rules.outcome(*ANSWERS[sender.answer])
        ledger, told = state.ledger, state.told_existing
        if outcome is not Outcome.UNKNOWN:
            ledger = self._end(ledger, number, outcome is Outcome.STORED)
            told = told or sender.answer == "existing"
        following = _with(state, number, sender._replace(phase="gone"), ledger=ledger)
        return f"hears {sender.answer}", following._replace(told_existing=told)

    def _look_ups(self, state: State, *row: int) -> Iterator[tuple[str, State]]:
        yield "a look-up fails", self._judge(state, row, Missing.UNREADABLE)
        if state.store:
            yield "a look-up finds an asset", self._judge(state, row, state.store[-1])
        if not state.store or state.stale_reads:
            after = state._replace(stale_reads=state.stale_reads - 1) if state.store else state
            yield "a look-up finds nothing", self._judge(after, row, Missing.NOTHING)

    def _judge(self, state: State, row: Sequence[int], seen: tuple[int, int] | Missing) -> State:
        number, _, misses = row
        judgement, is_told = self._judged(*row, seen, state.now)
        if judgement.verdict is GrantVerdict.WAIT:
            if judgement.misses == misses:
                return state
            rows = tuple((*each[:2], judgement.misses) if each[0] == number else each for each in state.ledger.rows)
            return state._replace(ledger=state.ledger._replace(rows=rows))
        ledger = self._end(state.ledger, number, judgement.verdict is GrantVerdict.SPENT)
        is_lie = is_told and not isinstance(seen, Missing) and seen[0] != number
        return state._replace(ledger=ledger, lied=state.lied or is_lie)

    def _judgement(
        self, number: int, pending_at: int, misses: int, seen: tuple[int, int] | Missing, now: int
    ) -> tuple[Judgement, bool]:
        """The judgement of a look-up that sees this owner and version, and whether a client gets the asset as answer.

        One by the marker shows no etag, so that of the upload stands for it. If the marker is gone, the signed name
        leads to the asset.
        """
        relay, began = relay_of(number, pending_at, misses), now - self._world.latency
        if isinstance(seen, Missing):
            return self._rules.judge(relay, seen, began, LIMITS), False
        owner, version = seen
        has_marker = self._world.naming.startswith("marked") and owner != OTHER
        etag = f"md5 {number}" if has_marker else self._world.etag(owner)
        is_foreign = self._world.naming.startswith("marked") and not has_marker
        found = Found(etag, version, now + self._world.ahead, now, Forwarded(200, "{}"), is_foreign)
        judgement = self._rules.judge(relay, found, began, LIMITS)
        return judgement, judgement.verdict is GrantVerdict.SPENT and self._rules.is_answer(relay, found)

    def _begun(self, ledger: Ledger, number: int, now: int) -> Ledger | None:
        database = Database(ledger)
        try:
            run(database, self._rules.begin(relay_of(number, 0, 0)).begin(now))
        except UponceError:
            return None
        return database.ledger

    def _ended(self, ledger: Ledger, number: int, is_stored: bool) -> Ledger:
        database, answer = Database(ledger), Forwarded(200, "{}") if is_stored else None
        run(database, self._rules.end(relay_of(number, 0, 0), answer, "").begin(0))
        return database.ledger


def _with(state: State, number: int, sender: Sender, **changes: Any) -> State:
    senders = (sender, state.senders[1]) if number == 0 else (state.senders[0], sender)
    return state._replace(senders=senders, **changes)


BEHIND, AHEAD = -LIMITS.skew, LIMITS.skew
MARKED = World("marked", changes_bytes=True, has_old=False, ahead=BEHIND)
CHANGED = World("replaces", changes_bytes=True, has_old=True, ahead=BEHIND)
REPLACED = replace(MARKED, naming="marked, replaces")
_WORLDS = (MARKED, REPLACED, CHANGED, World("keeps", False, False, BEHIND), World("keeps", True, True, BEHIND))
SLOW = replace(CHANGED, latency=4)
WORLDS = [*(replace(world, ahead=ahead) for world in _WORLDS for ahead in (BEHIND, AHEAD)), SLOW]
