"""Group commit of uploads that take their steps first: no savepoints, and the same truth when something fails."""

import sqlite3
from collections.abc import Callable

import pytest

from tests.adapters.database.sqlite.test_writer import Script, database, fail_after, fail_instead, in_one_batch, script
from tests.contract.databases import attempt, draft, grant, run
from tests.contract.grouped import Grouped
from uponce.adapters.database.sqlite import SqliteDatabase

__all__ = ["database", "script"]  # fixtures


def test_an_upload_that_fails_after_a_write_undoes_its_own_work_only(database: SqliteDatabase, script: Script) -> None:
    """Operations have no savepoints: all of the group is rolled back, and done again with one for each."""
    grouped = Grouped(database)
    good, failed, late = run(
        in_one_batch(
            script,
            attempt(grouped, grant("a"), draft(blob="a")),
            attempt(grouped, grant("c"), draft("c", blob="a")),  # a blob has one asset
            attempt(grouped, grant("b"), draft("b", blob="b")),
        )
    )
    assert (good, failed, late) == ("ok", "database_unavailable", "ok")
    assert run(database.find_grant(grant("c").key)) is None


def test_operations_need_no_savepoints(database: SqliteDatabase, script: Script) -> None:
    grouped = Grouped(database)
    script.said.clear()
    run(in_one_batch(script, *(attempt(grouped, grant(f"n{n}"), draft(f"p{n}", blob=f"b{n}")) for n in range(9))))
    assert "SAVEPOINT operation" not in script.said


@pytest.mark.parametrize(("fault", "happened"), [(fail_instead, False), (fail_after, True)])
def test_a_lost_answer_to_commit_is_an_unknown_outcome_for_a_whole_group(
    database: SqliteDatabase, script: Script, fault: Callable[..., sqlite3.Cursor], happened: bool
) -> None:
    async def story() -> None:
        script.faults["COMMIT"] = fault
        contested, grouped = grant("contested"), Grouped(database)
        answers = await in_one_batch(script, *(attempt(grouped, contested, draft(blob=f"racer-{n}")) for n in range(4)))
        assert answers == ["outcome_unknown"] * 4
        script.faults.clear()
        assert (await database.find_grant(contested.key) is not None) is happened

    run(story())
