import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from uponce.adapters.database import statements

APPLIED = {
    "migrations/0001_initial.sql": "4e3c043d96f81cf4",
    "migrations/0002_series_parts.sql": "9c9a297e350126ad",
    "migrations/0003_audit_refusals.sql": "eeab112bbd9ac9ce",
    "migrations/0004_relay_bound.sql": "93a41bde58e3dac4",
    "migrations/0006_outbox_receivers.sql": "cb35671b0a963b18",
    "sqlite/migrations/0001_initial.sql": "c0ab89e24680688c",
    "postgres/migrations/0001_initial.sql": "127bec96407499f3",
    "postgres/migrations/0005_primary_keys.sql": "ce630a208c53082f",
}


def test_no_migration_changes_after_a_database_may_have_applied_it() -> None:
    """It would not apply the migration again. Add a new one instead, with the beginning of its SHA-256 here."""
    folder = Path(statements.__file__).parent
    files = sorted(folder.glob("**/migrations/*.sql"))
    assert {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()[:16] for path in files} == APPLIED


def test_migrations_of_an_engine_and_of_both_are_one_row_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "migrations/0001_initial.sql": "first, @here,",
        "sqlite/migrations/0001_initial.sql": " and its end @here",
        "migrations/0002_colour.sql": "second, of both engines",
        "sqlite/migrations/0003_index.sql": "third",
        "postgres/migrations/0003_index.sql": "of the other engine",
        "migrations/README.md": "no migration",
        "sql/both.sql": "",
        "sql/sqlite.sql": "-- fragment: here\nof @engine\n\n-- fragment: engine\nSQLite\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert statements.load_migrations("sqlite") == [
        "first, of SQLite, and its end of SQLite",
        "second, of both engines",
        "third",
    ]


def test_the_parts_of_unfinished_uploads_are_counted_by_the_migration() -> None:
    """Of a database that has applied the first one."""
    first, second, *_ = statements.load_migrations("sqlite")
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(first)
        for name in ("one", "none"):
            database.execute(
                "INSERT INTO series (id, cloud, api_key, parameters, algorithm, blob_key, created_at, shared, arrived, "
                "spans, signatures) VALUES (?, 'demo', '1', '[]', 'sha1', ?, 0, 1, 0, '[]', 1)",
                (name, name),
            )
        database.executemany("INSERT INTO series_parts VALUES ('one', ?, ?, 'a', '')", [(0, 5), (5, 9)])
        database.executescript(second)
        assert dict(database.execute("SELECT id, parts FROM series")) == {"one": 2, "none": 0}
