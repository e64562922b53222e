"""Named statements on a connection to PostgreSQL. Equal statements of one step become one statement.

Statements about grants of different partitions stay apart: one statement for all would lock every partition.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from time import monotonic
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from uponce.adapters.database.postgres.connection import Connection, JsonText, ends_transactions, escaped
from uponce.adapters.database.postgres.schema import bounds_of, part_of
from uponce.adapters.database.statements import Statement, load, merged, positional
from uponce.adapters.database.steps import Ask, Rows, Rules, json_text
from uponce.app.ports import Clock

Answer = Callable[[], Sequence[Rows]]  # waits, and returns the rows of each operation that asked, in order

# Every upload shares the rules, and queues up behind work that waits to own them. So this work may not wait long for a
# server that hangs in a commit.
OWN_MILLISECONDS = 1000
# Some 40 million transactions before PostgreSQL must be vacuumed, these begin to warn with each number that they give.
_OF_NUMBERS = ("GetNewTransactionId", "GetNewMultiXactId")
_RULES = {Rules.SHARED: "share_rules", Rules.OWN: "own_rules"}


class Session:
    """Runs statements inside of a pipeline of its connection: it waits for the server only where rows are read."""

    def __init__(self, connection: Connection, clock: Clock | None) -> None:
        """`clock` replaces the database's, for tests."""
        self.connection = connection
        self.history: str | None = None  # see history.py
        self.statements: Mapping[str, Statement] = load("postgres")
        self._clock = clock
        self._cursor = partial(psycopg.RawCursor[DictRow], connection, row_factory=dict_row)

    def ask(self, asks: Sequence[Ask]) -> Sequence[Rows]:
        alike: dict[tuple[str, int | None], list[int]] = {}
        for number, (name, params) in enumerate(asks):
            part = part_of(params["grant_key"]) if self.statements[name].of_grant else None
            alike.setdefault((name, part), []).append(number)
        sent = [
            (numbers, self._send(self.statements[name], [asks[number][1] for number in numbers], part))
            for (name, part), numbers in alike.items()
        ]
        found: list[Rows] = [()] * len(asks)
        for numbers, answer in sent:
            for number, rows in zip(numbers, answer(), strict=True):
                found[number] = rows
        return found

    def begin(
        self, rules: Rules, numbers: Sequence[int], *, milliseconds: int | None = None, patient: bool = False
    ) -> float:
        """Begin a transaction that holds these locks. Return the time after that.

        If given, each further lock may take so many milliseconds. A `patient` transaction has no other time limit.
        """
        self.run("begin")
        if patient:
            self._be_patient()
        if rules is Rules.OWN:
            self.run("wait_briefly", {"milliseconds": OWN_MILLISECONDS})
        if rules in _RULES:
            self.run(_RULES[rules])
        if rules is Rules.OWN:
            self.run("wait_briefly", {"milliseconds": int(self.connection.wait_seconds * 500)})  # as before
        if milliseconds is not None:
            self.run("wait_briefly", {"milliseconds": milliseconds})
        if numbers:
            self.run("hold", {"numbers": sorted(numbers)})
        return self.moment()

    def begin_trying(self, numbers: Sequence[int]) -> tuple[float, AbstractSet[int]]:
        """Begin a transaction that shares the rules and holds those of these locks that are free.

        Return the time after that, and the locks that are taken.
        """
        self.run("begin")
        self.run(_RULES[Rules.SHARED])
        taken, (row,) = self.ask([("try_hold", {"numbers": sorted(numbers)}), self._moment])
        return row["now"], {each["number"] for each in taken}

    def begin_reading(self, first: str, *, patient: bool) -> None:
        self.run("begin_read")
        if first:
            self.run(first)
        if patient:
            self._be_patient()

    def _be_patient(self) -> None:
        """Let the statements of this transaction take as long as they need."""
        self.limit(patient=True)
        self.run("wait_long")
        if ends_transactions(self.connection):
            self.run("wait_longer")

    def moment(self) -> float:
        ((row,),) = self.ask([self._moment])
        now: float = row["now"]
        return now

    @property
    def _moment(self) -> Ask:
        return "moment", {"now": self._clock and self._clock.now()}

    def commit(self) -> None:
        """Return when the transaction is durable. After any error, it may be durable or not.

        If the wait for a synchronous standby is cancelled, COMMIT ends with success and a warning: that counts as an
        error here. So does any other warning, except those of `_OF_NUMBERS`.
        """
        told: list[str | None] = []

        def note(warning: psycopg.errors.Diagnostic) -> None:  # its texts are gone once the answer is read
            if warning.source_function not in _OF_NUMBERS:
                told.append(warning.message_primary)

        self.connection.add_notice_handler(note)
        with self.connection.pipeline():  # its end waits for the answers
            # The wait for a synchronous standby is part of COMMIT. `transaction_timeout` does not count that wait, and
            # stays, except for patient work: a server that hangs before COMMIT is sent must not keep its locks.
            self.run("wait_long")
            done = self.connection.execute(self.statements["commit"].text)
        self.connection.remove_notice_handler(note)
        if told or done.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"COMMIT was answered with {done.statusmessage} and {told}")

    def run(self, name: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a statement whose rows are not needed."""
        self._send(self.statements[name], [params or {}])

    def limit(self, *, patient: bool = False) -> None:
        """Let a wait for a silent server end with an error from now on. A `patient` wait never ends."""
        self.connection.deadline = None if patient else monotonic() + self.connection.wait_seconds

    def _send(self, statement: Statement, params: Sequence[Mapping[str, Any]], part: int | None = None) -> Answer:
        if len(params) == 1 or statement.has_braces:
            cursors = [self._execute(statement, each) for each in params]
            return lambda: [() if cursor is None else cursor.fetchall() for cursor in cursors]
        numbers: dict[Any, int] = {}
        if statement.writes:
            places = list(range(len(params)))
            rows = [{"n": n, **each} for n, each in enumerate(params)]
        else:  # equal queries are sent once
            places = [numbers.setdefault(tuple(each.values()), len(numbers)) for each in params]
            rows = [{"n": n, **dict(zip(params[0], values, strict=True))} for values, n in numbers.items()]
        cursor = self._cursor()
        text = merged(statement) if part is None else merged(statement, bounds_of(part))
        cursor.execute(text.encode(), [_encoded(rows)])
        if statement.silent:
            return lambda: [()] * len(params)
        if statement.writes:
            return partial(_returned, cursor, params)
        return partial(_numbered, cursor, places)

    def _execute(self, statement: Statement, params: Mapping[str, Any]) -> "psycopg.RawCursor[DictRow] | None":
        cursor = self._cursor()
        text = positional(statement, statement.filled(params) if statement.has_braces else statement.text)
        cursor.execute(text.encode(), [params[name] for name in statement.names])
        return None if statement.silent else cursor


def _numbered(cursor: "psycopg.RawCursor[DictRow]", places: Sequence[int]) -> Sequence[Rows]:
    """Return the rows of a SELECT. Each row begins with the number of its query."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in cursor.fetchall():
        found.setdefault(row.pop("n"), []).append(row)
    return [found.get(place, ()) for place in places]


def _returned(cursor: "psycopg.RawCursor[DictRow]", params: Sequence[Mapping[str, Any]]) -> Sequence[Rows]:
    """Return the rows of a write. It returns columns that have the names of its parameters."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    names: Sequence[str] = ()
    for row in cursor.fetchall():
        names = names or tuple(row)
        found.setdefault(tuple(row.values()), []).append(row)
    return [found.get(tuple(each[name] for name in names), ()) for each in params] if found else [()] * len(params)


def _encoded(rows: Sequence[Mapping[str, Any]]) -> JsonText:
    """Return the rows as JSON. Bytes are hex; texts are escaped, since jsonb accepts no NUL."""
    return JsonText(json_text([{name: _plain(value) for name, value in row.items()} for row in rows]))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    return value.hex() if isinstance(value, bytes) else value
