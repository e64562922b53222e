"""What a start on PostgreSQL makes of a database, and what it refuses, with the cure."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import psycopg
import pytest

from tests.contract.databases import KEY, OTHER, PlainBox, SteppedClock, open_postgres, publish, run
from tests.e2e.commands import uponce
from tests.postgres import Postgres, shared
from uponce.adapters.database.postgres import PostgresDatabase, connection, is_set_up, schema
from uponce.adapters.database.postgres.connection import DatabaseAddress
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.statements import load_migrations
from uponce.config import load as load_settings
from uponce.config.rules import DAY
from uponce.core.errors import DatabaseUnavailable, SettingRefused

pytestmark = pytest.mark.proof


@pytest.fixture
def url() -> str:
    return shared().fresh_schema()


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server that these tests may start as they like."""
    server = Postgres()
    yield server
    server.stop()


def test_postgresql_takes_the_longest_time_of_the_settings(url: str) -> None:
    with pytest.raises(SettingRefused):
        load_settings({"UPONCE_DATABASE_SECONDS": str(DAY + 1)})
    connection.connect(DatabaseAddress(url, DAY)).close()


UNREADABLE = {
    "percent": "postgresql://uponce:SecretOne%etSecretTwo@127.0.0.1:1/db",
    "space": "postgresql://uponce:SecretOne SecretTwo@127.0.0.1:1/db",
    "slash": "postgresql://uponce:SecretOne/SecretTwo@127.0.0.1:1/db",
    "slash behind digits": "postgresql://uponce:12/SecretTwo@127.0.0.1:1/db",
    "question behind slash": "postgresql://uponce:12/SecretOne?SecretTwo@127.0.0.1:1/db",
    "at": "postgresql://uponce:SecretOne@SecretTwo@127.0.0.1:1/db",
    "question": "postgresql://uponce:SecretOne?Se@SecretTwo@127.0.0.1:1/db",
}


@pytest.mark.parametrize("url", UNREADABLE.values(), ids=UNREADABLE)
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(url: str) -> None:
    """Else libpq takes a part of it for the name of a host or a database, and its errors quote that name."""
    done = uponce("doctor", env={"UPONCE_DATABASE": url})
    assert done.code == 1
    assert "special characters of the password percent-encoded" in done.stdout
    assert "Secret" not in done.stdout + done.stderr
    with pytest.raises(SettingRefused, match="percent-encoded"):
        DatabaseAddress(url, 5).shown  # noqa: B018


@pytest.mark.parametrize("password", ["a[b", "a]b", "a#b", "a?b", "a:b", "a%2Fb%40c"])
def test_other_passwords_reach_postgresql(password: str) -> None:
    done = uponce("doctor", env={"UPONCE_DATABASE": f"postgresql://uponce:{password}@127.0.0.1:1/db"})
    assert "The database postgresql://127.0.0.1/db cannot be used: " in done.stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://h1:1,h2:2/my%40db?user=a@b", "postgresql://h1,h2/my@db"),
        ("postgresql://u:p@[::1]:5432/db", "postgresql://::1/db"),
        ("postgresql:///db?host=/run/pg", "postgresql:///run/pg/db"),
    ],
)
def test_an_address_is_shown_without_user_and_password(url: str, shown: str) -> None:
    assert DatabaseAddress(url, 5).shown == shown


def version(url: str) -> int:
    with psycopg.connect(url) as connection:
        return schema.version_of(connection)


def test_an_empty_database_is_set_up_once_however_many_servers_start(url: str) -> None:
    assert not is_set_up(DatabaseAddress(url, 5))
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(open_and_close, url) for _ in range(8)]:
            future.result(timeout=240)
    assert is_set_up(DatabaseAddress(url, 5))
    assert version(url) == len(load_migrations("postgres"))


def open_and_close(url: str) -> None:
    open_postgres(url).close()


def test_an_older_schema_is_brought_up_to_date(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_postgres(url).close()
    steps = [*load_migrations("postgres"), "ALTER TABLE assets ADD COLUMN colour text"]
    monkeypatch.setattr(schema, "load_migrations", lambda _: steps)
    open_postgres(url).close()
    assert version(url) == len(steps)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT colour FROM assets").fetchall() == []


def test_a_frozen_database_of_an_earlier_release_opens_and_stays_frozen(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that writes must not be refused: the move that froze it could neither go on nor be undone."""
    database = open_postgres(url)
    run(database.add_key(KEY))
    run(database.freeze())
    database.close()
    steps = [*load_migrations("postgres"), "UPDATE api_keys SET name = 'from a step'"]
    monkeypatch.setattr(schema, "load_migrations", lambda _: steps)
    database = open_postgres(url)
    assert [key.name for key in run(database.list_keys())] == ["from a step"]
    assert run(database.frozen())
    with pytest.raises(DatabaseUnavailable):
        run(database.add_key(OTHER))
    database.close()


def test_a_migration_may_take_longer_than_a_statement(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a second server waits for it."""
    open_postgres(url).close()
    steps = [*load_migrations("postgres"), "SELECT pg_sleep(12)"]
    monkeypatch.setattr(schema, "load_migrations", lambda _: steps)
    both = [PostgresDatabase(url, secrets=PlainBox(), seconds=10) for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(PostgresDatabase.open, both))
    for database in both:
        database.close()
    assert version(url) == len(steps)


def test_a_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [*load_migrations("postgres")]
    monkeypatch.setattr(schema, "load_migrations", lambda _: [*before, "CREATE TABLE half (x int); SELECT 1/0"])
    with pytest.raises(SettingRefused, match="division by zero"):
        open_postgres(url)
    assert version(url) == 0


@pytest.mark.parametrize(("ahead", "accepted"), [(1, True), (2, False)])
def test_one_release_ahead_is_accepted_two_are_not(url: str, ahead: int, accepted: bool) -> None:
    """Servers are upgraded one after the other; an old one may restart in between."""
    open_postgres(url).close()
    newer = len(load_migrations("postgres")) + ahead
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE schema_version SET version = %s", (newer,))
    if accepted:
        database = open_postgres(url)
        run(database.add_key(KEY))
        run(publish(database, "a"))
        database.close()
    else:
        with pytest.raises(SettingRefused, match=rf"schema version {newer}.*Start a newer release"):
            open_postgres(url)
    assert version(url) == newer


def test_an_older_schema_is_upgraded_only_by_who_means_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = PostgresDatabase(url, clock=SteppedClock(), secrets=PlainBox())
    database.open(upgrade=False)  # a new database has no older schema
    database.close()
    steps = [*load_migrations("postgres"), "CREATE TABLE later (x int)"]
    monkeypatch.setattr(schema, "load_migrations", lambda _: steps)
    with pytest.raises(SettingRefused, match=f"schema version {len(steps) - 1}, and this release needs {len(steps)}"):
        PostgresDatabase(url, clock=SteppedClock(), secrets=PlainBox()).open(upgrade=False)
    assert version(url) == len(steps) - 1


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_forgets_in_a_crash_is_refused(own: Postgres, setting: str) -> None:
    own.start(**{setting: "off"})
    try:
        with pytest.raises(SettingRefused, match=rf"{setting}=off: a crash could revive.*Set {setting} = on"):
            open_postgres(own.url())
    finally:
        own.halt()


def test_a_session_that_does_not_wait_for_the_disk_is_refused(url: str) -> None:
    """However it came to be so: by the server, the database, the role or the URL."""
    with pytest.raises(SettingRefused, match=r"synchronous_commit=off.*ALTER ROLE"):
        open_postgres(f"{url}%20-c%20synchronous_commit%3Doff")


def test_what_becomes_unsafe_while_a_server_runs_is_refused_too(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = open_postgres(url)
    run(database.add_key(KEY))
    monkeypatch.setitem(connection._REFUSED, "fsync", ("on",))
    run(publish(database, "a"))  # on the connection that was checked
    database._pool._idle.clear()
    database._committer._engine.disconnect()
    with pytest.raises(DatabaseUnavailable) as caught:
        run(publish(database, "b"))
    assert "fsync" in caught.value.detail
    database.close()


def test_another_encoding_is_refused(own: Postgres) -> None:
    own.start()
    try:
        with psycopg.connect(own.url(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        with pytest.raises(SettingRefused, match=r"encoding LATIN1.*ENCODING 'UTF8'"):
            open_postgres(own.url().replace("/postgres?", "/narrow?"))
    finally:
        own.halt()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://user:hunter2@127.0.0.1:1/db", r"postgresql://127\.0\.0\.1/db cannot be used.*refused"),
        ("postgresql://user:hunter2@/db?host=/nowhere", "cannot be used.*No such file"),
        ("postgresql://user:hunter2@host/db?colour=red", "invalid URI query parameter"),
    ],
)
def test_what_cannot_be_reached_is_told_without_the_password(url: str, said: str) -> None:
    with pytest.raises(SettingRefused, match=f"(?s){said}") as caught:
        PostgresDatabase(url, secrets=PlainBox()).open()
    assert "hunter2" not in caught.value.message


def test_the_description_has_no_password() -> None:
    url = shared().fresh_schema().replace("uponce@", "uponce:hunter2@")
    database = open_postgres(url)
    assert f"schema version {len(load_migrations('postgres'))}" in database.describe()
    assert "hunter2" not in database.describe()
    database.close()


def test_a_database_of_serializable_sessions_is_used_at_read_committed(url: str) -> None:
    database = open_postgres(f"{url}%20-c%20default_transaction_isolation%3Dserializable")

    def isolation(session: Session) -> object:
        return session.connection.execute("SHOW transaction_isolation").fetchone()

    assert run(database._pool.run(isolation)) == ("read committed",)
    database.close()


def test_a_read_only_database_is_refused_with_the_cure(url: str) -> None:
    open_postgres(url).close()
    options = "%20-cdefault_transaction_read_only%3Don"
    for read_only in (url + options, url + options + "&target_session_attrs=any"):
        with pytest.raises(
            SettingRefused, match=r"is read-only: it is a standby.*Point UPONCE_DATABASE to the primary"
        ):
            open_postgres(read_only)
