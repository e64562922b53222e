from hashlib import sha256
from pathlib import Path

import pytest

from uponce.adapters.database import statements

APPLIED = {
    "migrations/0001_initial.sql": "22dde3a0ee085346",
    "sqlite/migrations/0001_initial.sql": "912c3c1f85d36315",
    "postgres/migrations/0001_initial.sql": "863fa9df5f7fe335",
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
