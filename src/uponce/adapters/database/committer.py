"""The one thread of a process that commits: waiting operations share one transaction (group commit).

An fsync costs the same for one upload as for a hundred. Callers submit operations. The thread runs them, commits, and
only then answers. That holds for refusals too: a refusal may depend on a spend in its own group. Its client must not
receive the refusal before that spend is durable.
"""

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Protocol, TypeAlias, TypeVar

from uponce.adapters.database import commits, keys, ledger
from uponce.adapters.database.failures import closed, in_the_way, no_answer, outcome_unknown
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.steps import Operation, Session, run, run_in_step
from uponce.app.ports import Prepare, StoredReply
from uponce.core.errors import StorageFull, StorageUnavailable, Unavailable, UponceError
from uponce.core.signature import works_in
from uponce.core.values import ApiKey, GrantRecord

T = TypeVar("T")

log = logging.getLogger("uponce")

TAKEN: Any = object()
"""The outcome of an operation that did not begin, because another transaction holds one of its locks."""

More: TypeAlias = "Callable[[], Sequence[Operation[Any]]]"

_REMEMBERED_SECONDS = 1.0  # a rotated secret may expire without a change of the database
# So long an operation is young. If its lock is taken, others pass, and it is tried again in each group, or after 10 ms.
# Else one signature that all servers need would keep everything else waiting. With eight servers, others took 29 ms
# instead of 5 at the median. With 0.1 they take 18. With 1.0 the operations of that signature take longer.
_YOUNG_SECONDS = 0.3
_PAUSE_SECONDS = 0.01


class Engine(Protocol):
    """Runs the transactions of the thread that commits, and owns its connection. `most` operations make one group."""

    most: int

    @property
    def seconds(self) -> float:
        """Return how long an operation may wait while transactions fail."""

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        """Run the operations in one transaction and commit it. Return for each its result or an exception.

        `more` returns further operations, which arrived while the transaction waited to begin. If an UponceError is
        raised, it counts for all of them. An operation whose lock is taken keeps no other waiting: it is TAKEN.
        """

    def wait(self, operations: Sequence[Operation[Any]], others_wait: Callable[[], bool]) -> Sequence[Any]:
        """Return for each operation that was TAKEN its result or an exception.

        Wait for the locks, but only for a moment if others wait.
        """

    def choose(self, operations: Sequence[Operation[Any]]) -> Sequence[bool]:
        """Return for each operation whether it belongs to the next transaction. At most `most` do. The others wait."""

    def look(self) -> tuple[Session, float, Hashable]:
        """Return a session outside of transactions, the time, and a value that each commit of any process changes."""

    def disconnect(self) -> None: ...


@dataclass(slots=True)
class Records:
    """The Records port: what the steps before a commit may read, in the thread that commits.

    API keys and clouds are remembered until the database changes, but only those that exist: anyone can name others
    without end. That only saves a look-up: the commit checks again whether the key is revoked. `failed` turns a failure
    of the database into an error.
    """

    secrets: SecretBox
    failed: Callable[[Exception], UponceError]
    knows_grants: bool
    _session: Session | None = None
    _now: float = 0.0
    _keys: dict[str, ApiKey] = field(default_factory=dict)
    _clouds: set[str] = field(default_factory=set)
    # What `load` found, also that something does not exist, or the error of a look-up. Only until the next group.
    _loaded_keys: dict[str, ApiKey | UponceError | None] = field(default_factory=dict)
    _loaded_clouds: dict[str, bool] = field(default_factory=dict)
    _version: Hashable = None
    _since: float = 0.0

    def forget(self) -> None:
        """Forget all keys. Call it after this connection has changed a key, which `version` does not show."""
        self._keys.clear()
        self._clouds.clear()

    def refresh(self, session: Session, now: float, version: Hashable) -> None:
        self._session, self._now = session, now
        self._loaded_keys, self._loaded_clouds = {}, {}
        if version != self._version or not 0 <= now - self._since < _REMEMBERED_SECONDS:
            self.forget()
            self._version, self._since = version, now

    def load(self, named: Iterable[tuple[str, str]]) -> None:
        unknown = {(api_key, cloud) for api_key, cloud in named if api_key not in self._keys}
        if not unknown:
            return
        names = sorted({api_key for api_key, _ in unknown})
        found = self._run_all(keys.find(self.secrets, name) for name in names)
        self._loaded_keys = dict(zip(names, found, strict=True))
        self._keys |= {name: key for name, key in self._loaded_keys.items() if isinstance(key, ApiKey)}
        # A refusal says whether the cloud exists.
        refused = {cloud for name, cloud in unknown if not works_in(self._keys.get(name), cloud)}
        clouds = sorted(refused - self._clouds)
        self._loaded_clouds = dict(zip(clouds, self._run_all(map(keys.has_cloud, clouds)), strict=True))
        self._clouds |= {cloud for cloud, exists in self._loaded_clouds.items() if exists}

    def find_key(self, api_key: str) -> ApiKey | None:
        if api_key in self._keys:
            return self._keys[api_key]
        if api_key in self._loaded_keys:
            found = self._loaded_keys[api_key]
        else:
            found = self._run(keys.find(self.secrets, api_key))
        if isinstance(found, UponceError):
            raise found
        if found is not None:
            self._keys[api_key] = found
        return found

    def has_cloud(self, cloud: str) -> bool:
        if cloud in self._loaded_clouds:
            return self._loaded_clouds[cloud]
        if cloud not in self._clouds and self._run(keys.has_cloud(cloud)):
            self._clouds.add(cloud)
        return cloud in self._clouds

    def find_grant(self, key: bytes) -> GrantRecord | None:
        return self._run(ledger.find(key)) if self.knows_grants else None

    def find_reply(self, grant_key: bytes, idempotency_key: str) -> StoredReply | None:
        return self._run(ledger.find_reply(grant_key, idempotency_key))

    def _run_all(self, operations: Iterable[Operation[Any]]) -> list[Any]:
        """Return for each operation its result, or the error with which it refused."""
        assert self._session is not None
        steps = [operation.begin(self._now) for operation in operations]
        try:
            return run_in_step(self._session, steps) if steps else []
        except Exception as error:
            raise self.failed(error) from error

    def _run(self, operation: Operation[T]) -> T:
        assert self._session is not None
        try:
            return run(self._session, operation.begin(self._now))
        except Exception as error:
            raise self.failed(error) from error


@dataclass(slots=True, eq=False)
class Queued:
    """A caller that waits, and its operation, which `prepare` makes of an `arrival`.

    At most `most` refusals get an audit row.
    """

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    operation: Operation[Any] | None = None
    arrival: Any = None
    prepare: Prepare[Any] | None = None
    most: int = 0
    since: float = field(default_factory=monotonic)


class Committer:
    """Takes operations from all event loops. While one group is in its transaction, the next one gathers."""

    def __init__(self, engine: Engine, records: Records) -> None:
        self._engine = engine
        self._records = records
        self._queue: SimpleQueue[Queued | None] = SimpleQueue()
        self._later: deque[Queued] = deque()  # taken from the queue, for the next group
        self._put_off = 0  # so many of them were in a group before
        self._gate = threading.Lock()
        self._open = False
        self._thread = threading.Thread(target=self._serve, name="uponce-committer", daemon=True)

    def start(self) -> None:
        self._open = True
        self._thread.start()

    def close(self) -> None:
        """Finish every submitted operation, then end the thread. After a failure, those that wait do not begin."""
        with self._gate:
            was_open, self._open = self._open, False
            if was_open:
                self._queue.put(None)
        if was_open:
            self._thread.join()

    async def run(self, operation: Operation[T]) -> T:
        """Return the operation's result after it is durable. Raise its refusal after what it depends on is durable.

        DatabaseUnavailable or StorageFull: nothing happened. OutcomeUnknown: COMMIT did not answer. If the caller is
        cancelled, its operation still runs with its group.
        """
        loop = asyncio.get_running_loop()
        result: T = await self._answer_to(Queued(loop, loop.create_future(), operation))
        return result

    async def run_arrival(self, arrival: Any, prepare: Prepare[Any], most_refusals: int) -> Any:
        """Run the operation that `prepare` makes for this arrival, with all others that wait. Return as `run` does."""
        loop = asyncio.get_running_loop()
        return await self._answer_to(Queued(loop, loop.create_future(), None, arrival, prepare, most_refusals))

    async def _answer_to(self, waiting: Queued) -> Any:
        with self._gate:
            if not self._open:
                raise closed()
            self._queue.put(waiting)
        return await waiting.future

    def _serve(self) -> None:
        while (first := self._later.popleft() if self._later else self._queue.get()) is not None:
            group = [first]
            try:
                self._transact(group)
            except Exception as error:  # if the thread ended, every later caller would wait for ever
                log.exception("the committing thread failed")
                self._answer(group, [outcome_unknown(error)] * len(group))
        self._engine.disconnect()

    def _transact(self, group: list[Queued]) -> None:
        self._fill(group)
        self._take_steps(group)
        self._put_back(group)
        if not group:
            return

        def more() -> Sequence[Operation[Any]]:
            had = len(group)
            self._fill(group, prepared=True)
            return [_operation(each) for each in group[had:]]

        try:
            outcomes = self._engine.transact([_operation(each) for each in group], more)
        except (StorageFull, StorageUnavailable) as error:
            outcomes = self._without_arrivals(group, error)
        except UponceError as error:
            outcomes = [error] * len(group)
            if isinstance(error, Unavailable):
                self._give_up(error)
        taken = [each for each, outcome in zip(group, outcomes, strict=True) if outcome is TAKEN]
        self._answer(group, outcomes)
        group[:] = self._without_young(taken)
        if group:
            outcomes = self._engine.wait([_operation(each) for each in group], self._others_wait)
            self._answer(group, [in_the_way() if outcome is TAKEN else outcome for outcome in outcomes])

    def _without_arrivals(self, group: list[Queued], error: UponceError) -> Sequence[Any]:
        """Return the outcomes of the group after its bytes failed to become durable: only arrivals need bytes."""
        others = [each for each in group if each.prepare is None]
        try:
            done = self._engine.transact([_operation(each) for each in others], lambda: ()) if others else ()
        except UponceError as failure:
            done = [failure] * len(others)
        self._give_up(error)
        outcomes = iter(done)
        return [next(outcomes) if each.prepare is None else error for each in group]

    def _without_young(self, taken: Sequence[Queued]) -> list[Queued]:
        """Leave young operations to the next group. Return those whose locks must be waited for now."""
        before = monotonic() - _YOUNG_SECONDS
        young = [each for each in taken if each.since > before]
        if young and len(young) == len(taken):
            self._pause({number for each in young for number in _operation(each).numbers()})
        self._later.extend(young)  # behind those that found no place beside them
        self._put_off += len(young)
        return [each for each in taken if each.since <= before]

    def _pause(self, numbers: AbstractSet[int]) -> None:
        """Wait for an operation that needs none of these locks, and not longer than a pause."""
        if any(each.operation is None or numbers.isdisjoint(_operation(each).numbers()) for each in self._later):
            return
        with suppress(Empty):
            waiting = self._queue.get(timeout=_PAUSE_SECONDS)
            if waiting is None:
                self._queue.put(None)
            else:
                self._later.append(waiting)

    def _others_wait(self) -> bool:
        return bool(self._later) or not self._queue.empty()

    def _take_steps(self, group: list[Queued]) -> None:
        """Make the operations of arrivals. An arrival that already fails gets its answer, and leaves the group."""
        alike: dict[Hashable, list[Queued]] = {}
        for each in group:
            if each.operation is None:
                alike.setdefault((each.prepare, each.most), []).append(each)
        failed: list[tuple[Queued, Exception]] = []
        for arrived in alike.values():
            for each, made in zip(arrived, self._made(arrived), strict=True):
                if isinstance(made, Exception):
                    failed.append((each, made))
                else:
                    each.operation = commits.commit_or_refuse(made, each.most)
        if failed:
            group[:] = [each for each in group if each.operation is not None]
            self._answer([each for each, _ in failed], [error for _, error in failed])

    def _made(self, arrived: Sequence[Queued]) -> Sequence[Any]:
        try:
            self._records.refresh(*self._engine.look())
            assert arrived[0].prepare is not None
            return arrived[0].prepare([each.arrival for each in arrived], self._records)
        except Exception as error:
            self._engine.disconnect()
            if not isinstance(error, UponceError):
                log.exception("the steps of a group of uploads failed")
            failure = self._records.failed(error)
            if isinstance(failure, Unavailable):
                self._give_up(failure)
            return [failure] * len(arrived)

    def _give_up(self, failure: UponceError) -> None:
        """Answer operations that have waited too long for a database that fails; all of them if this closes.

        They did not begin. A silent database fails slowly, so each group would wait longer than the one before.
        """
        with suppress(Empty):
            while (waiting := self._queue.get_nowait()) is not None:
                self._later.append(waiting)
            self._queue.put(None)
        before = monotonic() - self._engine.seconds if self._open else inf
        late = [each for each in self._later if each.since <= before]
        self._later = deque(each for each in self._later if each.since > before)
        self._put_off = min(self._put_off, len(self._later))
        error = no_answer(f"it waited for operations that failed: {failure.for_operator}")
        self._answer(late, [error] * len(late))

    def _put_back(self, group: list[Queued]) -> None:
        """Leave operations that the next transaction does not take to a later one, in their order."""
        chosen = self._engine.choose([_operation(each) for each in group]) if len(group) > 1 else [True] * len(group)
        left = [each for each, taken in zip(group, chosen, strict=True) if not taken]
        self._put_off = len(left)
        self._later.extendleft(reversed(left))
        group[:] = [each for each, taken in zip(group, chosen, strict=True) if taken]

    def _fill(self, group: list[Queued], *, prepared: bool = False) -> None:
        """Add waiting operations. If the group is `prepared`, add only those that need no steps.

        The number of new operations is always the same. Many uses of one grant, which were put off, so keep no others
        waiting.
        """
        most = self._engine.most + (0 if prepared else self._put_off)
        while self._later and not prepared and len(group) < most:
            group.append(self._later.popleft())
        with suppress(Empty):
            while len(group) < most:
                waiting = self._queue.get_nowait()
                if waiting is None:  # closing: earlier operations are in the group, and no later one comes
                    self._queue.put(None)
                    return
                (self._later if prepared and waiting.operation is None else group).append(waiting)

    def _answer(self, group: Sequence[Queued], outcomes: Sequence[Any]) -> None:
        answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
        for waiting, outcome in zip(group, outcomes, strict=True):
            if outcome is not TAKEN:
                answers[waiting.loop].append((waiting.future, outcome))
        for loop, pairs in answers.items():
            with suppress(RuntimeError):  # the loop is closed, so no caller waits
                loop.call_soon_threadsafe(_resolve, pairs)


def _operation(waiting: Queued) -> Operation[Any]:
    assert waiting.operation is not None
    return waiting.operation


def _resolve(answers: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in answers:
        if future.done():  # the caller was cancelled
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
