"""A connection to PostgreSQL that keeps what it acknowledges, and gives texts back as they went in."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format

from uponce.core.errors import SettingRefused

Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
Cursor: TypeAlias = psycopg.AsyncCursor[tuple[Any, ...]]

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
        try:
            given = conninfo_to_dict(self.url)
        except psycopg.ProgrammingError as error:
            raise SettingRefused(
                f"UPONCE_DATABASE cannot be read: {str(error).strip()}. Use postgresql://user:password@host/database."
            ) from None
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
        given = conninfo_to_dict(self.url)
        place = given.get("host") or given.get("hostaddr") or given.get("service") or "localhost"
        return f"postgresql://{place}/{given.get('dbname') or ''}"


@contextmanager
def connected(address: Address) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A checked connection for start-up, which blocks. Whatever is wrong is SettingRefused, with the cure."""
    try:
        with psycopg.Connection.connect(**address.parameters, autocommit=True) as connection:
            _adapt(connection)
            _check_durable(connection.execute(_FACTS).fetchall())
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


async def connect(address: Address) -> Connection:
    """A checked connection; transactions are begun and ended by hand. psycopg.Error, or SettingRefused."""
    connection = await psycopg.AsyncConnection.connect(**address.parameters, autocommit=True)
    try:
        _adapt(connection)
        _check_durable(await (await connection.execute(_FACTS)).fetchall())
        if _ends_transactions(connection):  # not by `options`: an older server refuses a name that it does not know
            await connection.execute(f"SET transaction_timeout = '{address.transaction_seconds}s'")
    except BaseException:
        connection.pgconn.finish()
        raise
    return connection


async def lift_timeouts(connection: Connection) -> None:
    """For the rest of the transaction the server waits as long as it takes."""
    names = ["statement_timeout", *(["transaction_timeout"] if _ends_transactions(connection) else [])]
    for name in names:
        await connection.execute(f"SET LOCAL {name} = 0")


def _ends_transactions(connection: Connection) -> bool:
    """Whether the server ends one whatever it waits for; `idle_in_transaction_session_timeout` spares a pipeline."""
    return connection.info.server_version >= _WITH_TRANSACTION_TIMEOUT


_FACTS = (
    "SELECT name, setting FROM pg_settings WHERE name IN "
    "('fsync', 'full_page_writes', 'synchronous_commit', 'server_encoding', 'server_version_num')"
)


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


class _TextLoader(Loader):
    def load(self, data: Buffer) -> str:
        text = str(data, "utf-8")
        return text.replace(f"{_MARK}0", "\0").replace(f"{_MARK}1", _MARK) if _MARK in text else text


def _adapt(context: AdaptContext) -> None:
    adapters = context.adapters
    assert adapters is not None
    adapters.register_dumper(str, _TextDumper)
    adapters.register_loader("text", _TextLoader)
    adapters.register_loader("json", _TextLoader)  # rows.py reads it
