"""Operations on the database, written once for every engine: generators that ask for rows.

An operation yields the statements of one step, each by its name with its parameters, and gets the rows of each. It asks
for what it needs, refuses before its first write, and then writes. It knows no driver and no engine.

**Locks** hold among all servers of a PostgreSQL database until their transaction ends. SQLite writes one transaction
after the other and needs no locks. A transaction takes its locks in one order, so that no two transactions wait for
each other. The order is: the rules; numbers of names and of the beginning of a series; the row of a series; numbers of
grants. The numbers are sorted, and those of grants are the greatest. Two kinds of operations must not overlap.
Operations that use a grant share the rules. Operations that change what every use depends on (keys, watermarks,
condemned blobs, the partitions of the ledger) hold the rules alone.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import msgspec

from uponce.adapters.database.statements import Statement
from uponce.core.errors import UponceError
from uponce.core.values import AssetName

T = TypeVar("T")
P = ParamSpec("P")


class Row(Protocol):
    """A row whose columns have names."""

    def keys(self) -> Iterable[str]: ...

    def __getitem__(self, name: str, /) -> Any: ...


Params: TypeAlias = dict[str, Any]
Ask: TypeAlias = tuple[str, Mapping[str, Any]]
Rows: TypeAlias = Sequence[Row]
Steps: TypeAlias = Generator[Sequence[Ask], Sequence[Rows], T]


class Session(Protocol):
    """A connection that runs named statements."""

    statements: Mapping[str, Statement]

    def ask(self, asks: Sequence[Ask]) -> Sequence[Rows]:
        """Return the rows of each statement, in order. A driver's exception passes through.

        Statements of one name may run together, in the place of the first of them.
        """


class Rules(Enum):
    NONE = auto()
    SHARED = auto()
    OWN = auto()


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """An operation with its arguments. `begin` starts its steps at a moment in Unix seconds.

    `numbers` are those of the locks that it needs. A `grouped` operation shares a transaction with others on every
    engine. A `patient` one has no time limit, except for locks. A `timed` one only reads, and needs the moment. `first`
    is a statement to run before it, if the engine has it. An operation that `writes` gets a transaction with its locks.
    If it `waits`, a server that hangs may hold a lock that all such operations need.
    """

    begin: Callable[[float], Steps[T]]
    numbers: Callable[[], Iterable[int]]
    rules: Rules = Rules.NONE
    grouped: bool = False
    patient: bool = False
    timed: bool = False
    first: str = ""
    writes: bool = False
    waits: bool = False


class Making(Protocol[P, T]):
    """Makes an Operation from its arguments. The `steps` are for other operations, which run them as a part."""

    steps: Callable[Concatenate[float, P], Steps[T]]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Operation[T]: ...


def operation(
    *,
    writes: bool = False,
    rules: Rules = Rules.NONE,
    locks: Callable[..., Iterable[int]] = lambda *_, **__: (),
    grouped: bool = False,
    patient: bool = False,
    timed: bool = False,
    first: str = "",
    waits: bool = False,
) -> Callable[[Callable[Concatenate[float, P], Steps[T]]], Making[P, T]]:
    """Make a function of the arguments that returns the Operation, from a generator function of (moment, arguments).

    An operation that holds rules, or is grouped, writes.
    """
    does_write = writes or grouped or rules is not Rules.NONE

    def decorate(steps: Callable[Concatenate[float, P], Steps[T]]) -> Making[P, T]:
        def made(*args: P.args, **kwargs: P.kwargs) -> Operation[T]:
            begin, numbers = lambda now: steps(now, *args, **kwargs), partial(locks, *args, **kwargs)
            return Operation(begin, numbers, rules, grouped, patient, timed, first, does_write, waits)

        made.__doc__ = steps.__doc__
        made.steps = steps  # type: ignore[attr-defined]
        return cast(Making[P, T], made)

    return decorate


class Runner(ABC):
    """Runs operations. A module of operations has a class with the methods of the Database port that run them."""

    @abstractmethod
    async def read(self, operation: Operation[T]) -> T:
        """Return the result of the operation. Everything that it reads is durable here, if not on a standby."""

    @abstractmethod
    async def write(self, operation: Operation[T]) -> T:
        """Return the result of the operation, or raise its refusal, after it is durable."""

    async def _run(self, operation: Operation[T]) -> T:
        return await (self.write if operation.writes else self.read)(operation)

    async def _confirmed(self, operation: Operation[T]) -> T:
        """Return what `read` returns, as durable as a commit. An engine overrides this if its reads may be less."""
        return await self.read(operation)


Method: TypeAlias = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


def runs(make: Callable[P, Operation[T]], *, confirms: bool = False) -> Method[P, T]:
    """Return the method of a Runner that runs an operation. Its parameters are those of the operation.

    If it `confirms`, the operation only reads, and the result is as durable as a commit.
    """

    async def method(self: Runner, /, *args: P.args, **kwargs: P.kwargs) -> T:
        made = make(*args, **kwargs)
        return await (self._confirmed(made) if confirms else self._run(made))

    return method


class RefusedAfterWrite(Exception):
    """An operation refused after it had written, so its transaction must be rolled back. The cause is the refusal."""


def run(session: Session, steps: Steps[T]) -> T:
    """Return or raise what the operation returns or raises.

    Raise RefusedAfterWrite if it refused after it had written.
    """
    running, rows = _Running(steps), None
    try:
        while True:
            rows = session.ask(running.send(session, rows))
    except StopIteration as end:
        result: T = end.value
    return result


def run_in_step(session: Session, operations: Sequence[Steps[Any]]) -> list[Any]:
    """Return for each operation its result, or the UponceError with which it refused.

    All take their first step together, then their second, and so on. So the session can merge equal statements.
    """
    outcomes: dict[int, Any] = {}
    waiting: list[tuple[int, _Running, Sequence[Rows] | None]] = [
        (number, _Running(steps), None) for number, steps in enumerate(operations)
    ]
    while waiting:
        asked: list[tuple[int, _Running, Sequence[Ask]]] = []
        for number, running, rows in waiting:
            try:
                asked.append((number, running, running.send(session, rows)))
            except StopIteration as end:
                outcomes[number] = end.value
            except UponceError as refusal:
                outcomes[number] = refusal
        found = iter(session.ask([ask for _, _, asks in asked for ask in asks]))
        waiting = [(number, running, [next(found) for _ in asks]) for number, running, asks in asked]
    return [outcomes[number] for number in range(len(operations))]


class _Running:
    """An operation under way. It remembers whether it has written."""

    __slots__ = ("_asks", "_steps", "_wrote")

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps
        self._asks: Sequence[Ask] = ()
        self._wrote = False

    def send(self, session: Session, rows: Sequence[Rows] | None) -> Sequence[Ask]:
        if rows is not None and not self._wrote:
            self._wrote = _have_written(session, self._asks, rows)
        try:
            self._asks = self._steps.send(rows)  # type: ignore[arg-type]
        except UponceError as refusal:
            if self._wrote:
                raise RefusedAfterWrite from refusal
            raise
        return self._asks


def _have_written(session: Session, asks: Sequence[Ask], rows: Sequence[Rows]) -> bool:
    for (name, _), found in zip(asks, rows, strict=True):
        statement = session.statements[name]
        if statement.writes and (statement.silent or found):
            return True
    return False


def waves(operations: Sequence[Operation[Any]]) -> list[int]:
    """Return for each operation the number of its wave. No two of one wave need the same lock.

    Of two operations that need the same lock, the first gets the earlier wave. So with one name, the second finds what
    the first wrote.
    """
    found: list[int] = []
    last: dict[int, int] = {}
    for each in operations:
        numbers = list(each.numbers())
        wave = max((last.get(number, -1) for number in numbers), default=-1) + 1
        last.update(dict.fromkeys(numbers, wave))
        found.append(wave)
    return found


# Numbers of locks. If two things ever share a number, their operations wait without need.
_OF_GRANT = 1 << 62

BEGINNING_A_SERIES = 0  # so that two series neither pass a limit together nor take one name


def of_name(name: AssetName) -> int:
    """Return the lock of operations that write or delete an asset under this name."""
    return _number("\0".join((name.cloud, name.resource_type, name.type, name.public_id)).encode())


def of_grant(grant_key: bytes) -> int:
    """Return the lock of operations that use this grant, revoke it, record its refusal, or add it to a series.

    So two with one Idempotency-Key come one after the other, and the second finds the reply of the first.
    """
    return _OF_GRANT | _number(b"grant" + grant_key)


def _number(subject: bytes) -> int:
    return int.from_bytes(hashlib.sha256(subject).digest()[:8], "big") >> 2


def params_of(value: object, names: str) -> Params:
    """Return the values of these fields, whose columns have the same names. `names` has spaces between them."""
    return {name: getattr(value, name) for name in names.split()}


def json_text(value: object) -> str:
    """Return the value as JSON, for a column or parameter of JSON."""
    return msgspec.json.encode(value).decode()
