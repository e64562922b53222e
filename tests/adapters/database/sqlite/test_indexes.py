"""Each index is there for a statement. With it, the statement reads a few rows, and without it all of them.

A table has ROWS rows. Each column of the i-th row is i, unless FILLED says another value.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest

from tests.adapters.database.sqlite.test_file import INDEXES
from tests.adapters.database.sqlite.test_rows_read import steps
from tests.contract.databases import open_sqlite
from uponce.adapters.database.sqlite.connection import Connection
from uponce.adapters.database.statements import load
from uponce.core.signature import dated

ROWS = 2000
FEW_STEPS = 1000  # of SQLite's machine. A row that is only looked at takes at least five.
LATE = 10 * ROWS
NO_KEY, BEHIND_ALL = b"none", b"\xff" * 37

OF_TYPE = {"TEXT": "CAST(i AS TEXT)", "INTEGER": "i", "BLOB": "CAST(CAST(i AS TEXT) AS BLOB)"}
# Table, and what its columns are instead. The outbox has two kinds of work: one with many receivers, and one that is
# due before, with one receiver.
FILLED: list[tuple[str, Mapping[str, str]]] = [
    ("api_keys", {}),
    ("grants", {"grant_key": "key_of(i)", "cloud": "'demo'"}),
    ("assets", {"cloud": "'demo'", "resource_type": "'image'", "context": "'[]'"}),
    ("audit", {"grant_key": "x'00'", "event": "'spent'"}),
    ("replies", {}),
    ("series", {}),
    ("series_grants", {}),
    ("relay_grants", {}),
    ("outbox", {"id": "i", "name": "'relay'", "due_at": f"i + {LATE}", "dead": "0"}),
    ("outbox", {"id": f"i + {ROWS}", "name": "'notify'", "receiver": "'-'", "dead": "0"}),
]

PAGE = {"cloud": "demo", "before": BEHIND_ALL}
NEEDED_BY: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "api_keys_cloud": ("find_cloud", {"cloud": "none"}),
    "grants_purge": ("past_grants", {"before": 3, "most": 5}),
    "grants_page": ("grants_of_cloud", PAGE | {"cloud": "none"}),
    "grants_key_page": ("grants_of_key", PAGE | {"api_key": "none"}),
    "grants_unused": ("grants_unused_of_cloud", PAGE),
    "grants_revoked": ("grants_revoked_of_cloud", PAGE),
    "grants_pending": ("grants_pending_of_cloud", PAGE),
    "assets_context": (
        "assets_of_context",
        {"cloud": "demo", "resource_type": "image", "newest": LATE, "behind": 0, "part": ""},
    ),
    "audit_grant": ("history", {"grant_key": NO_KEY, "before": LATE, "most": 5}),
    "audit_age": ("drop_audit", {"before": 3, "most": 5}),
    "audit_refusals": ("count_refusals", {"grant_key": b"\0"}),
    "replies_purge": ("drop_replies", {"before": 3, "most": 5}),
    "series_age": ("end_old_series", {"before": 3, "empty_before": 3, "newest": 3, "most": 5, "rows": 5}),
    "series_grants_key": ("count_holders", {"grant_key": NO_KEY, "complete_before": 0}),
    "relay_grants_key": ("find_pending_repeat", {"grant_key": NO_KEY, "key_hash": b""}),
    "outbox_due": ("hasten_far_effects", {"now": 0, "far": 2 * LATE, "most": 5}),
    "outbox_named": ("find_first_due", {"name": "relay"}),
    "outbox_order": ("hasten_effects", {"subject": "none", "now": 0}),
    "outbox_receivers": ("find_due_receivers", {"name": "notify", "after": "", "until": "~", "now": LATE, "most": 5}),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    path = tmp_path_factory.mktemp("filled") / "uponce.db"
    open_sqlite(path).close()
    with closing(sqlite3.connect(path, isolation_level=None, factory=Connection)) as connection:
        connection.row_factory = sqlite3.Row
        connection.create_function("key_of", 1, lambda i: dated(i, bytes(32)))
        for table, columns in FILLED:
            fill(connection, table, columns)
        yield connection


def fill(connection: Connection, table: str, columns: Mapping[str, str]) -> None:
    needed = {
        row["name"]: OF_TYPE[row["type"]]
        for row in connection.execute(f"PRAGMA table_info({table})")
        if row["notnull"] and row["dflt_value"] is None
    }
    needed |= columns
    connection.execute(
        f"WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {ROWS}) "
        f"INSERT INTO {table} ({', '.join(needed)}) SELECT {', '.join(needed.values())} FROM numbers"
    )


def test_every_index_has_a_statement() -> None:
    assert NEEDED_BY.keys() == INDEXES


@pytest.mark.parametrize("index", sorted(INDEXES))
def test_its_statement_reads_a_few_rows_and_all_without_it(filled: Connection, index: str) -> None:
    name, parameters = NEEDED_BY[index]
    text = load("sqlite")[name].text.replace("{most}", "5")

    def ask() -> None:
        filled.execute(text, parameters).fetchall()

    def ask_without() -> None:
        filled.execute(f"DROP INDEX {index}")
        filled.execute(text.replace(f"INDEXED BY {index}", ""), parameters).fetchall()

    assert steps(filled, ask) <= FEW_STEPS
    assert steps(filled, ask_without) > 2 * ROWS


def test_effects_of_pending_uploads_are_found_by_their_subjects(filled: Connection) -> None:
    """Not among all effects that are due later."""
    statement = load("sqlite")["hasten_relays"]
    plan = filled.execute(f"EXPLAIN QUERY PLAN {statement.text}", dict.fromkeys(statement.names, 0))
    assert "SEARCH outbox USING INDEX outbox_order (subject=? AND dead=?)" in {row["detail"] for row in plan}
