"""A connection to PostgreSQL that keeps what it acknowledges, and gives texts back as they went in."""

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

# setting → the values that lose an acknowledged commit when the power fails, or a page of the database
_REFUSED = {"fsync": ("off",), "full_page_writes": ("off",), "synchronous_commit": ("off",)}
_OLDEST = 14_00_00
_WITH_TRANSACTION_TIMEOUT = 17_00_00

# PostgreSQL's text holds every character but NUL, which a public_id may contain. It is written as a noncharacter
# (Unicode sets U+FDD0 apart for such uses) and a digit; so texts stay readable, and equal ones stay equal.
_MARK = "\ufdd0"
_ESCAPED = str.maketrans({"\0": f"{_MARK}0", _MARK: f"{_MARK}1"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where the database is, and how long it may take to answer. `url` holds a password: show `shown` only."""

    url: str
    seconds: int

    @property
    def transaction_seconds(self) -> int:
        """After which the server ends a transaction of a client that has gone silent, with all its locks.

        Longer than a client waits before it gives up by itself, see `Pool.connection`.
        """
        return 4 * self.seconds

    @property
    def parameters(self) -> dict[str, Any]:
        """What libpq connects with; SettingRefused for a URL that it cannot read."""
        given = self._given
        limits = {
            "statement_timeout": self.seconds * 1000,
            "lock_timeout": self.seconds * 1000,
            "idle_in_transaction_session_timeout": self.transaction_seconds * 1000,
            "default_transaction_isolation": r"read\ committed",
        }
        options = " ".join(f"-c {name}={value}" for name, value in limits.items())
        defaults = {"connect_timeout": self.seconds, "application_name": "uponce", "target_session_attrs": "read-write"}
        return defaults | given | {"client_encoding": "UTF8", "options": f"{given.get('options') or ''} {options}"}

    @property
    def shown(self) -> str:
        """For people: user, host and database, no password."""
        given = self._given
        place = given.get("host") or given.get("hostaddr") or given.get("service") or "localhost"
        return f"postgresql://{place}/{given.get('dbname') or ''}"

    @property
    def _given(self) -> dict[str, Any]:
        """The parts of the URL. SettingRefused, which quotes none, unless libpq reads them as their author meant.

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

    wait_seconds: float = 0.0  # that a transaction may take
    deadline: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        if self.deadline is not None and timeout is None:
            timeout = max(self.deadline - monotonic(), 0.001)
        return super().wait(gen, interval, timeout)


@contextmanager
def connected(address: Address) -> Iterator[Connection]:
    """A checked connection for start-up. Whatever is wrong is SettingRefused, with the cure."""
    try:
        with Connection.connect(**address.parameters, autocommit=True) as connection:
            adapt(connection)
            _check_durable(connection.execute(_STATEMENTS["durability"].text).fetchall())
            if connection.execute("SHOW transaction_read_only").fetchone() == ("on",):
                raise _read_only(address)
            yield connection
    except psycopg.Error as error:
        if "read-only" in str(error):
            raise _read_only(address) from None
        raise SettingRefused(
            f"The database {address.shown} cannot be used: {str(error).strip()}. Check UPONCE_DATABASE, that "
            "PostgreSQL runs, and that the role may create tables in this database."
        ) from None


def _read_only(address: Address) -> SettingRefused:
    return SettingRefused(
        f"The database {address.shown} is read-only: it is a standby, or default_transaction_read_only is on. Point "
        "UPONCE_DATABASE to the primary server, or set default_transaction_read_only = off for the server, the "
        "database and the role."
    )


def connect(address: Address) -> Connection:
    """A checked connection; transactions are begun and ended by hand. psycopg.Error, or SettingRefused."""
    connection = Connection.connect(**address.parameters, autocommit=True)
    try:
        adapt(connection)
        connection.wait_seconds = 2 * address.seconds
        _check_durable(connection.execute(_STATEMENTS["durability"].text).fetchall())
        if ends_transactions(connection):  # not by `options`: an older server refuses a name that it does not know
            connection.execute(_STATEMENTS["end_transactions"].filled({"seconds": address.transaction_seconds}))
    except BaseException:
        connection.pgconn.finish()
        raise
    return connection


def ends_transactions(connection: Connection) -> bool:
    """Whether the server ends one whatever it waits for; `idle_in_transaction_session_timeout` spares a pipeline."""
    return connection.info.server_version >= _WITH_TRANSACTION_TIMEOUT


def cut(connection: Connection) -> None:
    """End a connection under the thread that waits for it: the wait fails at once, also of a server that is silent."""
    with suppress(Exception):
        line = socket.socket(fileno=connection.fileno())
        try:
            line.shutdown(socket.SHUT_RDWR)
        finally:
            line.detach()


def is_dead(connection: Connection) -> bool:
    """An idle connection has nothing to read, unless the server has closed it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _check_durable(rows: list[tuple[Any, ...]]) -> None:
    """SettingRefused unless a commit on this connection survives a power cut."""
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
    """As psycopg's own: of no type, so that the server takes it for what the column is."""

    format = Format.TEXT

    def dump(self, obj: str) -> Buffer:
        return obj.translate(_ESCAPED).encode()


class _NumberDumper(Dumper):
    """Every int as int8: one prepared statement, whatever the values."""

    oid = 20

    def dump(self, obj: int) -> Buffer:
        return str(int(obj)).encode()


class JsonText(str):
    """JSON whose texts are escaped already: the dumper of texts would do it twice."""


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
    """The text as it is written, see `_MARK`."""
    return text.translate(_ESCAPED) if "\0" in text or _MARK in text else text


def unavailable(error: Exception) -> UponceError:
    """For work that certainly did not happen."""
    if isinstance(error, UponceError):
        return error
    if isinstance(error, UnicodeError):
        return failures.no_text()
    detail = failures.detail_of(error)
    return failures.no_space(detail) if isinstance(error, psycopg.errors.DiskFull) else failures.no_answer(detail)


def is_of_data(error: BaseException | None) -> bool:
    """Whether the values of one operation are what its group failed for, and not the server."""
    of_data = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    return of_data or not isinstance(error, psycopg.Error)


def is_in_the_way(error: UponceError) -> bool:
    """Whether a lock of another transaction is what the work failed for."""
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
