"""A connection to PostgreSQL that keeps what it acknowledges, and returns texts unchanged."""

import re
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import psycopg
from psycopg.abc import AdaptContext, Buffer, PQGen
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format

from uponce.adapters.database import failures
from uponce.adapters.database.statements import load
from uponce.core.errors import SettingRefused, UponceError

T = TypeVar("T")

_STATEMENTS = load("postgres")

# setting → the values that lose an acknowledged commit, or a page of the database, when the power fails
_REFUSED = {"fsync": ("off",), "full_page_writes": ("off",), "synchronous_commit": ("off",)}
_OLDEST = 14_00_00
_WITH_TRANSACTION_TIMEOUT = 17_00_00

# PostgreSQL's text holds every character except NUL, which a text may contain. NUL is written as a noncharacter
# (Unicode reserves U+FDD0 for such uses) and a digit. So texts stay readable, and equal texts stay equal.
_MARK = "\ufdd0"
_ESCAPED = str.maketrans({"\0": f"{_MARK}0", _MARK: f"{_MARK}1"})


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the database is, and how long it may take to answer. `url` has a password: show only `shown`."""

    url: str
    seconds: int

    @property
    def transaction_seconds(self) -> int:
        """Return after how many seconds the server ends a transaction of a silent client, with all its locks.

        A client gives up earlier, see `Pool.connection`.
        """
        return 4 * self.seconds

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters for libpq. Raise SettingRefused for a URL that libpq cannot read.

        A read without a time limit ends some minutes after the machine of PostgreSQL has lost its power.
        """
        defaults = {"connect_timeout": self.seconds, "application_name": "uponce", "target_session_attrs": "read-write"}
        defaults |= {"keepalives_idle": 60, "keepalives_interval": 10}
        return defaults | self._given | {"client_encoding": "UTF8"}

    @property
    def shown(self) -> str:
        """Return host and database for people, without a password."""
        given = self._given
        place = given.get("host") or given.get("hostaddr") or given.get("service") or "localhost"
        return f"postgresql://{place}/{given.get('dbname') or ''}"

    @property
    def _given(self) -> dict[str, Any]:
        """Return the parts of the URL.

        Raise SettingRefused, without quoting a part, if libpq reads them in another way.

        libpq ends a password at its first `/` or `@`, and takes the rest for a host, a port or a database.
        """
        try:
            given = conninfo_to_dict(self.url)
        except psycopg.ProgrammingError as error:  # it quotes the password at the end
            reason = re.match(r"[\w -]*", str(error))
            raise _unreadable(reason[0].strip() if reason else "") from None
        database = self.url.partition("://")[2].partition("?")[0].partition("/")[2]
        host, port = (str(given.get(name) or "") for name in ("host", "port"))
        if "@" in database or "@" in host[1:] or re.search("[^0-9,]", port):
            raise _unreadable("its host, port or database has the end of a password")
        return given


def _unreadable(reason: str) -> SettingRefused:
    return SettingRefused(
        f"UPONCE_DATABASE cannot be read: {reason}. Use postgresql://user:password@host/database, with special "
        "characters of the password percent-encoded: %2F for /, %40 for @."
    )


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that gives up a silent server: no wait lasts beyond `deadline`, by the monotonic clock."""

    wait_seconds: float = 0.0  # the longest time of a transaction
    deadline: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        if self.deadline is not None and timeout is None:
            timeout = max(self.deadline - monotonic(), 0.001)
        try:
            return super().wait(gen, interval, timeout)
        except BaseException:
            with suppress(Exception):  # else it goes on when it is garbage, and the log shows its failure
                gen.close()
            raise


@contextmanager
def connected(address: DatabaseAddress) -> Iterator[Connection]:
    """Yield a checked connection for start-up. Every fault raises SettingRefused, with the cure."""
    try:
        with Connection.connect(**address.parameters, autocommit=True) as connection:
            _set_up(connection, address)
            if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
                raise _read_only(address)
            connection.deadline = None  # a migration may take long
            yield connection
    except psycopg.Error as error:
        if "read-only" in str(error):
            raise _read_only(address) from None
        raise SettingRefused(
            f"The database {address.shown} cannot be used: {str(error).strip()}. Check UPONCE_DATABASE, that "
            "PostgreSQL runs, and that the role may create tables in this database."
        ) from None


def _read_only(address: DatabaseAddress) -> SettingRefused:
    return SettingRefused(
        f"The database {address.shown} is read-only: it is a standby, or default_transaction_read_only is on. Point "
        "UPONCE_DATABASE to the primary server, or set default_transaction_read_only = off for the server, the "
        "database and the role."
    )


def connect(address: DatabaseAddress) -> Connection:
    """Return a checked connection. The caller begins and ends transactions. Raise psycopg.Error, or SettingRefused."""
    connection = Connection.connect(**address.parameters, autocommit=True)
    try:
        _set_up(connection, address)
        if ends_transactions(connection):  # an older server refuses a name that it does not know
            connection.execute(_STATEMENTS["end_transactions"].filled({"seconds": address.transaction_seconds}))
    except BaseException:
        connection.pgconn.finish()
        raise
    return connection


def _set_up(connection: Connection, address: DatabaseAddress) -> None:
    """Limit the waits of a new connection, also for a server that is silent from now on, and check it.

    The limits are no `options`: PgBouncer refuses or ignores these.
    """
    adapt(connection)
    connection.wait_seconds = 2 * address.seconds
    connection.deadline = monotonic() + connection.wait_seconds
    limits = {"seconds": address.seconds, "silent_seconds": address.transaction_seconds}
    connection.execute(_STATEMENTS["limit"].filled(limits))
    _check_durable(connection.execute(_STATEMENTS["durability"].text).fetchall())


def most_connections(connection: Connection) -> int | None:
    """Return how many connections the server gives to ordinary roles, or None if it does not say."""
    row = connection.execute(_STATEMENTS["most_connections"].text).fetchone()
    return None if row is None else row[0]


def ends_transactions(connection: Connection) -> bool:
    """Return whether the server ends every transaction that takes too long.

    `idle_in_transaction_session_timeout` does not end one in a pipeline.
    """
    return connection.info.server_version >= _WITH_TRANSACTION_TIMEOUT


def cut(connection: Connection) -> None:
    """End a connection while a thread waits for it. The wait fails at once, even if the server is silent."""
    with suppress(Exception):
        line = socket.socket(fileno=connection.fileno())
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()


def is_dead(connection: Connection) -> bool:
    """Return whether the server has closed an idle connection. Only then has it something to read."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _check_durable(rows: list[tuple[Any, ...]]) -> None:
    """Raise SettingRefused unless a commit on this connection survives a power cut."""
    facts: Mapping[str, str] = dict(rows)
    for name, values in _REFUSED.items():
        if facts[name] in values:
            raise SettingRefused(
                f"PostgreSQL runs with {name}={facts[name]}: a crash could revive spent signatures. Set {name} = on "
                "for the server, the database and the role (ALTER SYSTEM, ALTER DATABASE, ALTER ROLE), and reload."
            )
    if facts["server_encoding"] != "UTF8":
        raise SettingRefused(
            f"The database has the encoding {facts['server_encoding']} and cannot hold every name. Create another "
            "one: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )
    if int(facts["server_version_num"]) < _OLDEST:
        raise SettingRefused(f"PostgreSQL {facts['server_version_num']} is too old. Use PostgreSQL 14 or newer.")


class _TextDumper(Dumper):
    """Sends a text without a type, as psycopg itself does, so that the server uses the type of the column."""

    format = Format.TEXT

    def dump(self, obj: str) -> Buffer:
        return obj.translate(_ESCAPED).encode()


class _NumberDumper(Dumper):
    """Sends every int as int8: one prepared statement, whatever the values."""

    oid = 20

    def dump(self, obj: int) -> Buffer:
        return str(int(obj)).encode()


class JsonText(str):
    """JSON whose texts are escaped already: the dumper of texts would escape them twice."""


class _JsonTextDumper(Dumper):
    def dump(self, obj: JsonText) -> Buffer:
        return obj.encode()


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        text = str(data, "utf-8")
        return text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK) if _MARK in text else text


def adapt(context: AdaptContext) -> None:
    adapters = context.adapters
    assert adapters is not None
    adapters.register_dumper(str, _TextDumper)
    adapters.register_dumper(int, _NumberDumper)
    adapters.register_dumper(JsonText, _JsonTextDumper)
    adapters.register_loader("text", _TextLoader)


def escaped(text: str) -> str:
    """Return the text as it is stored, see `_MARK`."""
    return text.translate(_ESCAPED) if "\0" in text or _MARK in text else text


def unavailable(error: Exception) -> UponceError:
    """Return the error for work that certainly did not happen."""
    if isinstance(error, UponceError):
        return error
    if isinstance(error, UnicodeError):
        return failures.no_text()
    detail = failures.detail_of(error)
    return failures.no_space(detail) if isinstance(error, psycopg.errors.DiskFull) else failures.no_answer(detail)


def is_of_data(error: BaseException | None) -> bool:
    """Return whether a group failed because of the values of one operation, and not because of the server."""
    of_data = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    return of_data or not isinstance(error, psycopg.Error)


def is_in_the_way(error: UponceError) -> bool:
    """Return whether the work failed because of another transaction's lock."""
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
