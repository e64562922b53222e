"""What the committing thread remembers of API keys and clouds between two groups, and what it looks up again."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import CALLER, KEY, OTHER, START, PlainBox, draft, grant, open_sqlite, run
from uponce.adapters.database.committer import Records
from uponce.adapters.database.sqlite.connection import connect, unavailable
from uponce.adapters.database.statements import Statement
from uponce.adapters.database.steps import Ask, Rows
from uponce.core.errors import DatabaseUnavailable, SettingRefused
from uponce.core.values import ApiKey

ELSEWHERE = replace(OTHER, api_key="333", cloud="elsewhere")
UNREADABLE = replace(OTHER, api_key="444")


class Asked:
    """A session that notes the names of its statements, and then may fail."""

    def __init__(self, path: Path) -> None:
        self.connection = connect(path)
        self.statements: Mapping[str, Statement] = self.connection.statements
        self.names: list[str] = []
        self.fails = False

    def ask(self, asks: Sequence[Ask]) -> Sequence[Rows]:
        self.names += [name for name, _ in asks]
        if self.fails:
            raise sqlite3.OperationalError("disk I/O error")
        return self.connection.ask(asks)

    def since(self) -> list[str]:
        names, self.names = self.names, []
        return names


class Strict(PlainBox):
    def decrypt(self, cipher: bytes, context: str) -> str:
        if context.endswith("444"):
            raise SettingRefused("another secret key")
        return super().decrypt(cipher, context)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Asked]:
    with closing(open_sqlite(tmp_path / "u.db")) as database:
        run(database.add_key(KEY, OTHER, ELSEWHERE, UNREADABLE))
        run(database.commit(grant("used"), draft(blob="b"), CALLER))
        session = Asked(tmp_path / "u.db")
        yield session
        session.connection.close()


@pytest.fixture
def records(session: Asked) -> Records:
    records = Records(Strict(), unavailable, knows_grants=True)
    records.refresh(session, START, 1)
    return records


def found(records: Records, api_key: str) -> ApiKey | None:
    return records.find_key(api_key)


@pytest.mark.parametrize(
    ("seconds", "version", "asked"),
    [(0, 1, 0), (0.5, 1, 0), (1.0, 1, 1), (-0.5, 1, 1), (0.5, 2, 1)],
    ids=["at once", "soon", "a second later", "the clock steps back", "the database changed"],
)
def test_a_key_is_remembered_for_less_than_a_second_while_nothing_changes(
    session: Asked, records: Records, seconds: float, version: int, asked: int
) -> None:
    """A rotated secret may expire without a change of the database."""
    assert found(records, "111") == KEY
    session.since()
    records.refresh(session, START + seconds, version)
    assert found(records, "111") == KEY
    assert session.since() == ["find_key"] * asked


def test_keys_are_looked_up_once_each_and_together(session: Asked, records: Records) -> None:
    records.load([("111", "demo"), ("222", "demo"), ("111", "demo")])
    assert session.since() == ["find_key"] * 2, "no cloud is looked up for a key that works in it"
    records.refresh(session, START, 1)
    records.load([("333", "elsewhere"), ("222", "demo")])
    assert session.since() == ["find_key"]
    assert [found(records, name) for name in ("111", "222", "333")] == [KEY, OTHER, ELSEWHERE]
    assert session.since() == []


def test_a_key_without_load_is_looked_up_once(session: Asked, records: Records) -> None:
    assert [found(records, "111") for _ in range(2)] == [KEY, KEY]
    assert session.since() == ["find_key"]


def test_an_unknown_key_is_known_to_be_unknown_until_the_next_group(session: Asked, records: Records) -> None:
    records.load([("999", "demo")])
    assert session.since() == ["find_key", "find_cloud"]
    assert (found(records, "999"), records.has_cloud("demo"), session.since()) == (None, True, [])
    records.refresh(session, START, 1)
    assert found(records, "999") is None
    assert session.since() == ["find_key"]


def test_a_key_that_cannot_be_read_raises_its_error_without_a_second_look(session: Asked, records: Records) -> None:
    records.load([("444", "demo"), ("111", "demo")])
    session.since()
    with pytest.raises(SettingRefused, match="another secret key"):
        records.find_key("444")
    assert found(records, "111") == KEY
    assert session.since() == []


def test_clouds_that_exist_are_remembered_and_others_are_not(session: Asked, records: Records) -> None:
    groups = [
        ([("999", "demo")], ["find_key", "find_cloud"]),
        ([("999", "elsewhere")], ["find_key", "find_cloud"]),
        ([("999", "nowhere")], ["find_key", "find_cloud"]),
        ([("999", "demo"), ("999", "elsewhere")], ["find_key"]),
        ([("999", "nowhere")], ["find_key", "find_cloud"]),
    ]
    for named, asked in groups:
        records.refresh(session, START, 1)
        records.load(named)
        assert [records.has_cloud(cloud) for _, cloud in named] == [cloud != "nowhere" for _, cloud in named]
        assert session.since() == asked


def test_a_key_of_another_cloud_asks_whether_the_named_one_exists(session: Asked, records: Records) -> None:
    records.load([("333", "demo"), ("111", "demo")])
    assert session.since() == ["find_key", "find_key", "find_cloud"]
    assert records.has_cloud("demo")
    assert session.since() == []


def test_a_secret_that_ends_is_read_by_the_time_of_the_group(session: Asked, records: Records, tmp_path: Path) -> None:
    with closing(open_sqlite(tmp_path / "u.db")) as database:
        run(database.rotate_key("111", "newer", 60))
    for seconds, secrets in ((0, ("newer", "the-secret")), (61, ("newer",))):
        records.refresh(session, START + seconds, seconds)
        records.load([("111", "demo")])
        key = found(records, "111")
        assert key is not None
        assert key.secrets == secrets


def test_grants_are_looked_up_only_where_a_group_shows_them(session: Asked) -> None:
    """On PostgreSQL each look-up would be a round trip."""
    for knows in (True, False):
        records = Records(Strict(), unavailable, knows_grants=knows)
        records.refresh(session, START, 1)
        assert (records.find_grant(grant("used").key) is not None) is knows
        assert session.since() == ["find_grant"] * knows


@pytest.mark.parametrize("look", [lambda each: each.find_key("111"), lambda each: each.load([("111", "demo")])])
def test_a_database_that_fails_is_named(session: Asked, records: Records, look: Any) -> None:
    session.fails = True
    with pytest.raises(DatabaseUnavailable) as caught:
        look(records)
    assert "OperationalError: disk I/O error" in caught.value.detail
