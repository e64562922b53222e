"""Group commit: what each caller receives, when, and what holds when BEGIN, a job or COMMIT fails."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.contract.databases import CALLER, KEY, PlainBox, SteppedClock, attempt, draft, grant, run
from tests.contract.guarantees import answers_of, check_answers_are_true
from uponce.adapters.database.committer import Committer
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite import connection as opened
from uponce.adapters.database.sqlite.connection import MAX_GROUP, Connection, connect
from uponce.adapters.database.steps import Steps, operation
from uponce.core.errors import DatabaseUnavailable, NotFound, OutcomeUnknown, UponceError
from uponce.core.values import GrantStatus

T = TypeVar("T")
FULL_PAGES = 40


class Script:
    """What the connections of one test do to a statement; `said` is what they executed."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.faults: dict[str, Callable[[Callable[[], sqlite3.Cursor]], sqlite3.Cursor]] = {}
        self.pragma = ""
        self.gate = threading.Event()
        self.gate.set()

    def connect(self, path: Path) -> Connection:
        script = self

        class Scripted(Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                script.said.append(sql)
                if sql == "BEGIN IMMEDIATE":
                    script.gate.wait(60)
                real = super().execute
                fault = script.faults.get(sql)
                return fault(lambda: real(sql, parameters)) if fault else real(sql, parameters)

        connection = connect(path, factory=Scripted)
        connection.execute(self.pragma)
        return connection


def fail_instead(_real: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
    raise sqlite3.OperationalError("disk I/O error")


def fail_after(real: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
    real()
    raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def database(tmp_path: Path, script: Script) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "u.db", clock=SteppedClock(), secrets=PlainBox(), connect=script.connect)
    database.open()
    run(database.add_key(KEY))
    yield database
    script.gate.set()
    database.close()


async def in_one_batch(script: Script, *work: Coroutine[Any, Any, T]) -> list[T | BaseException]:
    """Submit all before the writer may begin. Return each one's answer."""
    script.gate.clear()
    tasks = [asyncio.ensure_future(one) for one in work]
    await asyncio.sleep(0)
    script.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def commits(script: Script) -> int:
    return script.said.count("COMMIT")


def test_all_that_waits_is_committed_together(database: SqliteDatabase, script: Script) -> None:
    before = commits(script)
    work = [attempt(database, grant(f"n{n}"), draft(f"p{n}", blob=f"b{n}")) for n in range(50)]
    assert run(in_one_batch(script, *work)) == ["ok"] * 50
    assert commits(script) - before == 1


def test_batches_are_bounded(database: SqliteDatabase, script: Script) -> None:
    before = commits(script)
    work = [database.record_refusal(grant("a"), "code", CALLER) for _ in range(MAX_GROUP + 1)]
    run(in_one_batch(script, *work))
    assert commits(script) - before == 2


@operation()
def broken(_: float) -> Steps[Any]:
    yield [("condemn", {"blob_key": "half", "at": 1})]
    yield [("condemn", {"blob_key": None, "at": 1})]


@operation()
def buggy(_: float) -> Steps[Any]:
    yield [("condemn", {"blob_key": "bug", "at": 1})]
    raise ZeroDivisionError


@operation()
def torn(_: float) -> Steps[Any]:
    """Against the rule of all operations, it refuses after it has written."""
    yield [("condemn", {"blob_key": "torn", "at": 1})]
    raise NotFound("too late")


@operation()
def count_condemned(_: float) -> Steps[int]:
    ((row,),) = yield [("count_rows", {"table": "condemned"})]
    count: int = row["rows"]
    return count


def test_an_operation_that_fails_undoes_its_own_work_only(database: SqliteDatabase, script: Script) -> None:
    good, driver, bug, refused, late = run(
        in_one_batch(
            script,
            attempt(database, grant("a"), draft(blob="a")),
            database.write(broken()),
            database.write(buggy()),
            database.write(torn()),
            attempt(database, grant("b"), draft("b", blob="b")),
        )
    )
    assert (good, late) == ("ok", "ok")
    assert isinstance(driver, DatabaseUnavailable)
    assert "SQLITE_CONSTRAINT" in driver.detail
    assert isinstance(bug, ZeroDivisionError)
    assert isinstance(refused, NotFound)
    assert run(database.read(count_condemned())) == 0


@pytest.mark.parametrize(("fault", "happened"), [(fail_instead, False), (fail_after, True)])
def test_a_lost_answer_to_commit_is_an_unknown_outcome_for_all(
    database: SqliteDatabase, script: Script, fault: Callable[..., sqlite3.Cursor], happened: bool
) -> None:
    """For the refused ones too: they may have seen a spend that is gone. Reading back shows the truth."""

    async def story() -> None:
        script.faults["COMMIT"] = fault
        contested = grant("contested")
        work = [database.commit(contested, draft(blob=f"racer-{n}"), CALLER) for n in range(4)]
        answers = await in_one_batch(script, *work)
        assert [type(answer) for answer in answers] == [OutcomeUnknown] * 4
        assert all(isinstance(a, OutcomeUnknown) and a.retry_after and "disk I/O" in a.detail for a in answers)
        script.faults.clear()
        found = [await database.find_commit(f"racer-{n}") is not None for n in range(4)]
        assert found == [happened, False, False, False]
        record = await database.find_grant(contested.key)
        assert (record.status if record else None) is (GrantStatus.USED if happened else None)
        again = await attempt(database, contested, draft(blob="again"))
        assert again == ("signature_used" if happened else "ok")

    run(story())


def test_after_a_failed_commit_the_connection_is_thrown_away(database: SqliteDatabase, script: Script) -> None:
    first = database._engine._held.connection
    script.faults["COMMIT"] = fail_instead
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "outcome_unknown"
    script.faults.clear()
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"
    assert database._engine._held.connection is not first


@pytest.mark.parametrize(
    "statement", ["BEGIN IMMEDIATE", "ROLLBACK", "SAVEPOINT operation", "ROLLBACK TO operation", "RELEASE operation"]
)
def test_a_failure_before_commit_means_that_nothing_happened(
    database: SqliteDatabase, script: Script, statement: str
) -> None:
    """Whichever statement fails, every caller in the batch gets that error, the refused ones included."""

    async def story() -> None:
        script.faults[statement] = fail_instead
        contested = grant("contested")
        work = [database.commit(contested, draft(blob=f"racer-{n}"), CALLER) for n in range(3)]
        answers = await in_one_batch(script, *work, database.write(broken()))
        assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 4
        script.faults.clear()
        assert await database.find_grant(contested.key) is None
        assert await attempt(database, contested, draft(blob="racer-0")) == "ok"

    run(story())


def test_a_transaction_that_sqlite_rolled_back_is_lost_for_all(database: SqliteDatabase, script: Script) -> None:
    """A full disk or an I/O error inside one job can undo the whole batch: no caller in it gets a success."""

    @operation()
    def collapse(_: float) -> Steps[Any]:
        assert database._engine._held.connection is not None
        database._engine._held.connection.rollback()
        yield []
        raise sqlite3.OperationalError("disk I/O error")

    async def story() -> None:
        first, refused, second, third = await in_one_batch(
            script,
            attempt(database, grant("a"), draft(blob="a")),
            attempt(database, grant("a"), draft(blob="a2")),
            database.write(collapse()),
            attempt(database, grant("b"), draft("b", blob="b")),
        )
        assert (first, refused, third) == ("database_unavailable",) * 3
        assert isinstance(second, DatabaseUnavailable)
        assert await database.find_commit("a") is None
        assert await attempt(database, grant("a"), draft(blob="a")) == "ok"

    run(story())


def test_another_process_that_holds_the_lock_makes_it_unavailable(
    tmp_path: Path, database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "BUSY_SECONDS", 0.05)
    blocker = connect(tmp_path / "u.db")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable) as caught:
        run(database.commit(grant("a"), draft(blob="a"), CALLER))
    assert "SQLITE_BUSY" in caught.value.detail
    assert caught.value.retry_after
    assert run(database.find_key("111")) == KEY, "reads go on"
    with pytest.raises(DatabaseUnavailable):
        run(database.ping())
    blocker.close()
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"


def test_a_full_disk_spends_nothing_and_heals(database: SqliteDatabase, script: Script) -> None:
    """SQLite's own page limit acts as the end of the disk."""
    database._engine.disconnect()
    script.pragma = f"PRAGMA max_page_count = {FULL_PAGES}"

    async def story() -> None:
        told, number = "ok", 0
        while told == "ok":
            number += 1
            told = await attempt(database, grant(f"n{number}"), draft(f"{'p' * 200}{number}", blob=f"b{number}"))
            assert number < 1000
        assert told == "storage_full"
        assert await database.find_grant(grant(f"n{number}").key) is None
        assert await database.find_commit(f"b{number}") is None
        script.pragma = "PRAGMA max_page_count = 100000"
        database._engine.disconnect()
        assert await attempt(database, grant(f"n{number}"), draft(blob="after")) == "ok"

    run(story())


def test_ping_finds_a_full_disk(database: SqliteDatabase, script: Script) -> None:
    """Nothing less than a write that reaches the log does."""

    def no_space(_real: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        raise sqlite3.OperationalError("database or disk is full")

    script.said.clear()
    script.faults["COMMIT"] = no_space
    with pytest.raises(OutcomeUnknown):
        run(database.ping())
    assert any("user_version =" in sql for sql in script.said)


def test_a_full_batch_is_answered_as_one(database: SqliteDatabase, script: Script) -> None:
    """When the space ends in the middle of a batch, no caller gets an untrue answer."""
    database._engine.disconnect()
    script.pragma = f"PRAGMA max_page_count = {FULL_PAGES}"

    async def story() -> None:
        work = [attempt(database, grant(f"n{n}"), draft(f"{'p' * 200}{n}", blob=f"b{n}")) for n in range(200)]
        answers = await in_one_batch(script, *work)
        assert "storage_full" in answers
        for number, told in enumerate(answers):
            assert (await database.find_commit(f"b{number}") is not None) == (told == "ok")

    run(story())


def test_a_cancelled_caller_does_not_disturb_its_batch(database: SqliteDatabase, script: Script) -> None:
    async def story() -> None:
        script.gate.clear()
        leaver = asyncio.ensure_future(attempt(database, grant("a"), draft("a", blob="a")))
        stayer = asyncio.ensure_future(attempt(database, grant("b"), draft("b", blob="b")))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.sleep(0)
        script.gate.set()
        assert await stayer == "ok"
        assert leaver.cancelled()
        assert await database.find_commit("a") is not None

    run(story())


def test_a_loop_that_is_gone_does_not_disturb_the_others(database: SqliteDatabase, script: Script) -> None:
    async def leave() -> None:
        script.gate.clear()
        leaver = asyncio.ensure_future(attempt(database, grant("a"), draft("a", blob="a")))
        await asyncio.sleep(0)
        leaver.cancel()

    async def stay() -> str:
        stayer = asyncio.ensure_future(attempt(database, grant("b"), draft("b", blob="b")))
        await asyncio.sleep(0)
        script.gate.set()
        return await stayer

    run(leave())
    assert run(stay()) == "ok"


def test_two_loops_share_a_batch(database: SqliteDatabase, script: Script) -> None:
    told: list[list[str]] = []

    def server(label: str) -> None:
        async def many() -> list[str]:
            work = (attempt(database, grant(f"n{n}"), draft(f"p{n}", blob=f"{label}{n}")) for n in range(100))
            return await asyncio.gather(*work)

        told.append(run(many()))

    threads = [threading.Thread(target=server, args=(label,)) for label in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sorted(pair) == ["ok", "signature_used"] for pair in zip(*told, strict=True))


def test_close_finishes_what_was_submitted(tmp_path: Path, database: SqliteDatabase, script: Script) -> None:
    async def story() -> list[str]:
        script.gate.clear()
        tasks = [
            asyncio.ensure_future(attempt(database, grant(f"n{n}"), draft(f"p{n}", blob=f"b{n}"))) for n in range(300)
        ]
        await asyncio.sleep(0)
        script.gate.set()
        database.close()
        return await asyncio.gather(*tasks)

    assert run(story()) == ["ok"] * 300
    database.close()
    with pytest.raises(UponceError):
        run(database.ping())
    assert not (tmp_path / "u.db-wal").exists(), "the last server folds its log into the file"


def test_racers_around_a_failing_commit_never_hear_an_untruth(database: SqliteDatabase, script: Script) -> None:
    """COMMITs fail in turn before and after they happened, while racers keep coming."""
    turns = iter([fail_instead, fail_after, None] * 20)

    def sometimes(real: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        fault = next(turns, None)
        return fault(real) if fault else real()

    async def story() -> None:
        script.faults["COMMIT"] = sometimes
        answers: list[Any] = []
        for _ in range(6):
            answers += await answers_of(database, grant("contested"), 3)
        script.faults.clear()
        await check_answers_are_true(database, answers)
        made = [n for n in range(3) if await database.find_commit(f"racer-{n}")]
        assert len(made) == 1

    run(story())


def test_a_writer_that_fails_in_its_own_code_answers_its_batch_and_goes_on(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that ended would leave every later upload without an answer, and say nothing."""

    def broken(*_: Any) -> None:
        raise RuntimeError

    async def live() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Committer, "_transact", broken)
            with pytest.raises(OutcomeUnknown):
                await asyncio.wait_for(database.ping(), 60)
        await asyncio.wait_for(database.ping(), 60)

    run(live())
