"""The one thread of a process that commits: what waits is decided in one transaction (group commit).

An fsync costs the same for one upload as for a hundred. Callers submit operations; the thread runs them, commits, and
only then answers anyone. That holds for refusals too: one of them may have seen a spend of its own group, and its
client must not read it before that spend is durable.
"""

import asyncio
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias, TypeVar

from uponce.adapters.database import grants, keys
from uponce.adapters.database.failures import closed, outcome_unknown
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.steps import Operation, Session, run
from uponce.app.ports import Prepare
from uponce.core.errors import UponceError
from uponce.core.values import ApiKey, GrantRecord

T = TypeVar("T")

log = logging.getLogger("uponce")

More: TypeAlias = "Callable[[], Sequence[Operation[Any]]]"

_REMEMBERED_SECONDS = 1.0  # a secret that was rotated out may run out in between


class Engine(Protocol):
    """What the thread commits to. It owns the connection of the thread; `most` operations make one group."""

    most: int

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        """Run the operations in one transaction and commit it. For each what it returns, or an exception.

        `more` gives further ones, which came while the transaction waited to begin. An UponceError is for all of them.
        """

    def choose(self, operations: Sequence[Operation[Any]]) -> Sequence[bool]:
        """Which of them are to share the next transaction, `most` of them. The others wait for a later one."""

    def look(self) -> tuple[Session, float, Hashable]:
        """A session outside of transactions, the moment, and a value that differs after each commit of any process."""

    def disconnect(self) -> None: ...


@dataclass(slots=True)
class Records:
    """The Records port: what the steps before a commit may read, in the thread that commits.

    API keys and clouds are remembered until the database changes. That only saves a look-up: the commit reads again
    whether the key is revoked. `failed` makes an error of a failure of the database.
    """

    secrets: SecretBox
    failed: Callable[[Exception], UponceError]
    knows_grants: bool
    _session: Session | None = None
    _now: float = 0.0
    _keys: dict[str, ApiKey | None] = field(default_factory=dict)
    _clouds: set[str] = field(default_factory=set)  # only those that exist: anyone can name others without end
    _version: Hashable = None
    _since: float = 0.0

    def forget(self) -> None:
        """This connection has changed a key, which `version` does not show."""
        self._keys.clear()
        self._clouds.clear()

    def refresh(self, session: Session, now: float, version: Hashable) -> None:
        self._session, self._now = session, now
        if version != self._version or not 0 <= now - self._since < _REMEMBERED_SECONDS:
            self.forget()
            self._version, self._since = version, now

    def find_key(self, api_key: str) -> ApiKey | None:
        if api_key not in self._keys:
            self._keys[api_key] = self._run(keys.find(self.secrets, api_key))
        return self._keys[api_key]

    def has_cloud(self, cloud: str) -> bool:
        if cloud not in self._clouds and self._run(keys.has_cloud(cloud)):
            self._clouds.add(cloud)
        return cloud in self._clouds

    def find_grant(self, key: bytes) -> GrantRecord | None:
        return self._run(grants.find(key)) if self.knows_grants else None

    def _run(self, operation: Operation[T]) -> T:
        assert self._session is not None
        try:
            return run(self._session, operation.begin(self._now))
        except Exception as error:
            raise self.failed(error) from error


@dataclass(slots=True, eq=False)
class Waiting:
    """A caller and its operation. That of an arrival is made by `prepare`; `most` rows of refusals are kept."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    operation: Operation[Any] | None = None
    arrival: Any = None
    prepare: Prepare[Any] | None = None
    most: int = 0


class Committer:
    """Takes operations of all event loops. While one group is under way, the next one gathers."""

    def __init__(self, engine: Engine, records: Records) -> None:
        self._engine = engine
        self._records = records
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._later: deque[Waiting] = deque()  # taken from the queue, for the next group
        self._put_off = 0  # so many of these, the first ones, were in a group before
        self._gate = threading.Lock()
        self._open = False
        self._thread = threading.Thread(target=self._serve, name="uponce-committer", daemon=True)

    def start(self) -> None:
        self._open = True
        self._thread.start()

    def close(self) -> None:
        """Finish all that was submitted, then end the thread."""
        with self._gate:
            was_open, self._open = self._open, False
            if was_open:
                self._queue.put(None)
        if was_open:
            self._thread.join()

    async def run(self, operation: Operation[T]) -> T:
        """The operation's result, after it is durable; or its refusal, after what it saw is durable.

        DatabaseUnavailable or StorageFull: nothing happened. OutcomeUnknown: COMMIT did not answer. A cancelled caller
        changes nothing: its operation runs with its group.
        """
        loop = asyncio.get_running_loop()
        result: T = await self._answer_to(Waiting(loop, loop.create_future(), operation))
        return result

    async def run_arrival(self, arrival: Any, prepare: Prepare[Any], most_refusals: int) -> Any:
        """As `run`, of the operation that `prepare` makes of this arrival, together with all others that wait."""
        loop = asyncio.get_running_loop()
        return await self._answer_to(Waiting(loop, loop.create_future(), None, arrival, prepare, most_refusals))

    async def _answer_to(self, waiting: Waiting) -> Any:
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
            except Exception as error:  # a thread that ends would leave every later caller waiting for ever
                log.exception("the committing thread failed")
                self._answer(group, [outcome_unknown(error)] * len(group))
        self._engine.disconnect()

    def _transact(self, group: list[Waiting]) -> None:
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
        except UponceError as error:
            outcomes = [error] * len(group)
        self._answer(group, outcomes)

    def _take_steps(self, group: list[Waiting]) -> None:
        """Make the operations of arrivals. Those that fail already are answered, and leave the group."""
        alike: dict[Hashable, list[Waiting]] = {}
        for each in group:
            if each.operation is None:
                alike.setdefault((each.prepare, each.most), []).append(each)
        failed: list[tuple[Waiting, Exception]] = []
        for arrived in alike.values():
            for each, made in zip(arrived, self._made(arrived), strict=True):
                if isinstance(made, Exception):
                    failed.append((each, made))
                else:
                    each.operation = grants.commit_or_refuse(made, each.most)
        if failed:
            group[:] = [each for each in group if each.operation is not None]
            self._answer([each for each, _ in failed], [error for _, error in failed])

    def _made(self, arrived: Sequence[Waiting]) -> Sequence[Any]:
        try:
            self._records.refresh(*self._engine.look())
            assert arrived[0].prepare is not None
            return arrived[0].prepare([each.arrival for each in arrived], self._records)
        except Exception as error:
            self._engine.disconnect()
            if not isinstance(error, UponceError):
                log.exception("the steps of a group of uploads failed")
            return [self._records.failed(error)] * len(arrived)

    def _put_back(self, group: list[Waiting]) -> None:
        """Leave what the next transaction does not take to a later one, in its order."""
        chosen = self._engine.choose([_operation(each) for each in group]) if len(group) > 1 else [True] * len(group)
        left = [each for each, taken in zip(group, chosen, strict=True) if not taken]
        self._put_off = len(left)
        self._later.extendleft(reversed(left))
        group[:] = [each for each, taken in zip(group, chosen, strict=True) if taken]

    def _fill(self, group: list[Waiting], *, prepared: bool = False) -> None:
        """Add what waits; when the group is `prepared` already, only what needs no steps.

        As many new ones as ever: many uses of one grant, which were put off, do not keep others waiting.
        """
        most = self._engine.most + (0 if prepared else self._put_off)
        while self._later and not prepared and len(group) < most:
            group.append(self._later.popleft())
        with suppress(Empty):
            while len(group) < most:
                waiting = self._queue.get_nowait()
                if waiting is None:  # closing: what precedes it is in the group, nothing follows
                    self._queue.put(None)
                    return
                (self._later if prepared and waiting.operation is None else group).append(waiting)

    def _answer(self, group: Sequence[Waiting], outcomes: Sequence[Any]) -> None:
        answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = defaultdict(list)
        for waiting, outcome in zip(group, outcomes, strict=True):
            answers[waiting.loop].append((waiting.future, outcome))
        for loop, pairs in answers.items():
            with suppress(RuntimeError):  # the loop is closed, so no caller waits
                loop.call_soon_threadsafe(_resolve, pairs)


def _operation(waiting: Waiting) -> Operation[Any]:
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
