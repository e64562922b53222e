"""Whatever PostgreSQL believes of a table, an operation changes what it says and nothing else."""

from dataclasses import replace

import psycopg
import pytest

from tests.contract.databases import KEY, START, SteppedClock, grant, open_postgres, run
from tests.contract.test_database_series import begin, series
from tests.postgres import shared
from uponce.adapters.database.statements import load
from uponce.app.ports import Database


async def end_slowest(database: Database) -> list[str]:
    return list(await database.end_slowest_series(KEY.api_key, per_key=1, in_all=99, rate=10**6, seconds=10))


@pytest.mark.parametrize("broken", [False, True])
def test_one_series_ends_if_the_table_had_one_row_before(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """Then PostgreSQL may ask again for each row which series is the slowest, and the one before has ended."""
    if broken:
        right = load("postgres")["end_slowest_series"]
        wrong = replace(right, text=right.text.replace("id = (", "id IN ("))
        assert wrong != right
        monkeypatch.setitem(load("postgres"), "end_slowest_series", wrong)
    clock = SteppedClock()
    database = open_postgres(shared().fresh_schema(), clock)

    try:
        with psycopg.connect(database._address.url, autocommit=True) as connection:
            run(database.add_key(KEY))
            run(begin(database, series("quick", upload_id="quick"), grant("quick")))
            run(database.note_arrival("quick", 9))
            connection.execute("ANALYZE series")
        for size in range(1, 6):
            run(begin(database, series(f"s{size}", upload_id=f"s{size}"), grant(f"s{size}")))
            run(database.note_arrival(f"s{size}", size))
        clock.time = START + 20
        assert (run(end_slowest(database)) == ["blob-s1"]) is not broken
    finally:
        database.close()
