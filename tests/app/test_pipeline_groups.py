"""Uploads that take their steps together: a refusal or a defect of one is its own, and the others are stored."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.app.test_pipeline import CASES, seen, upload
from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.world import PNG, QuickWorld, World
from uponce.adapters.database import committer, keys
from uponce.adapters.database.failures import no_answer
from uponce.adapters.database.sqlite.connection import Engine
from uponce.app.authorise import Admitted
from uponce.app.ports import Body
from uponce.app.uploading import pipeline
from uponce.app.uploading.pipeline import Pipeline


class Beside:
    """Lets a good upload of another client take the steps with each that comes, in one group."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.whole_bodies = True
        self.answers: list[Answer] = []
        self.groups: list[int] = []
        self._world = world
        self._is_good = False
        self._both_wait = threading.Event()
        self._both_wait.set()
        thread: Any = world.database._committer
        self._transact, self._commit, steps = thread._transact, world.database.commit_arrival, Pipeline.steps
        monkeypatch.setattr(thread, "_transact", self._transact_both)
        monkeypatch.setattr(world.database, "commit_arrival", self._commit_both)

        def counted(used: Pipeline, arrivals: Sequence[Any], records: Any) -> Any:
            self.groups.append(len(arrivals))
            return steps(used, arrivals, records)

        monkeypatch.setattr(Pipeline, "steps", counted)

    def _transact_both(self, group: list[Any]) -> None:
        assert self._both_wait.wait(60)
        self._transact(group)

    async def _commit_both(self, *args: Any) -> Any:
        if not self._is_good:
            self._both_wait.clear()
        committing = asyncio.create_task(self._commit(*args))
        await asyncio.sleep(0)  # now it waits for the thread
        if self._is_good:
            self._both_wait.set()
            return await committing
        self._is_good = True
        self.answers.append(await self._good())
        self._is_good = False
        return await committing

    async def _good(self) -> Answer:
        world = self._world
        body = [parts_of(world.sign({"public_id": f"good{len(self.answers)}"})), part("file", PNG, "good.png"), END]
        return await call(world.app, "POST", world.route(), headers=FORM, chunks=body, whole=True)


TOO_LONG = {
    "a folder that leaves no room for an extension": upload(b"MZ", "raw", folder="f" * 234),
    "a folder that leaves no room for a random name": upload(folder="f" * 246, filename="??", use_filename="true"),
}


JOINS_NONE = {"not a video"}  # it is refused before it waits for others


@pytest.mark.parametrize("name", sorted(CASES | TOO_LONG))
def test_an_upload_is_answered_as_alone_and_the_other_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    answers, uploads = [], list[str]()
    for way in ("alone", "beside"):
        (tmp_path / way).mkdir()
        world = QuickWorld(tmp_path / way)
        beside = Beside(world, monkeypatch) if way == "beside" else None
        monkeypatch.setattr(world, "request", partial(_counted, uploads, way, world.request))
        answers.append(seen(world, (CASES | TOO_LONG)[name](world))[:3])
        world.close()
    assert answers[1] == answers[0]
    assert beside is not None
    joined = 0 if name in JOINS_NONE else uploads.count("beside")
    assert [answer.status for answer in beside.answers] == [200] * joined
    assert beside.groups == [2] * joined


def _counted(uploads: list[str], way: str, request: Callable[..., Answer], *args: Any, **more: Any) -> Answer:
    uploads.append(way)
    return request(*args, **more)


@pytest.fixture
def world(quick_path: Path) -> Any:
    world = QuickWorld(quick_path)
    yield world
    world.close()


def test_the_store_is_asked_once_for_a_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    put_group = world.services.put_group
    assert put_group is not None

    def counted(bodies: Sequence[Body]) -> Sequence[str]:
        asked.append(len(bodies))
        return put_group(bodies)

    world.use(replace(world.services, put_group=counted))
    beside = Beside(world, monkeypatch)
    assert [upload()(world).status, *(answer.status for answer in beside.answers)] == [200, 200]
    assert asked == [2]


@pytest.mark.parametrize("name", sorted(TOO_LONG))
def test_a_name_that_is_refused_stores_no_bytes(world: World, name: str) -> None:
    world.whole_bodies = True
    with world.untouched():
        assert TOO_LONG[name](world).code == "invalid_parameter"


def test_a_defect_that_one_upload_meets_ends_that_upload(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    draft_of = pipeline.draft_of

    def broken(services: Any, admitted: Admitted, *rest: Any) -> Any:
        if admitted.filename == "bad.png":
            raise RuntimeError("a defect")
        return draft_of(services, admitted, *rest)

    monkeypatch.setattr(pipeline, "draft_of", broken)
    beside = Beside(world, monkeypatch)
    answer = upload(filename="bad.png")(world)
    assert (answer.status, answer.code, beside.groups) == (500, "internal_error", [2])
    assert [answer.status for answer in beside.answers] == [200]


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ([("api_key[]", "999")], "unknown_api_key"),
        ([("api_key[]", "1"), ("api_key[]", "2")], "unknown_api_key"),
        ([("api_key[]", ""), ("api_key[]", "1")], "unknown_api_key"),
        ([("api_key", "1"), ("api_key[]", "2")], "duplicate_parameter"),
        ([("api_key", str(number)) for number in range(100)], "duplicate_parameter"),
        ([("api_key[]", str(number)) for number in range(100)], "unknown_api_key"),
    ],
    ids=["one", "two", "an empty one", "as a name and as a list", "a hundred times", "a list of a hundred"],
)
def test_an_upload_costs_its_group_one_look_up_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch, named: Sequence[tuple[str, str]], code: str
) -> None:
    """A stranger can name API keys in several ways. Each look-up on PostgreSQL keeps the group waiting."""

    def alone(*args: Any) -> None:
        raise AssertionError(args)

    asked: list[str] = []

    def find(secrets: Any, api_key: str) -> Any:
        asked.append(api_key)
        return keys.find(secrets, api_key)

    monkeypatch.setattr(committer, "run", alone)
    monkeypatch.setattr(committer, "keys", SimpleNamespace(find=find, has_cloud=keys.has_cloud))
    beside = Beside(world, monkeypatch)
    fields = [*named, ("signature", "0" * 40), ("timestamp", str(int(world.clock.time)))]
    answer = world.post(b"".join(part(*each) for each in fields), part("file", PNG, "a.png"), END)
    assert (answer.code, [each.code for each in beside.answers]) == (code, ["ok"])
    assert beside.groups == [2]
    assert len(asked) <= len({*asked}) <= 2


def test_a_database_that_fails_ends_the_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look-up is made for each upload of a group: each may wait as long as the database may take to answer."""
    looked: list[Any] = []

    def broken(*args: Any) -> None:
        looked.append(args)
        raise sqlite3.OperationalError("disk I/O error")

    for way in ("run", "run_in_step"):
        monkeypatch.setattr(committer, way, broken)
    beside = Beside(world, monkeypatch)
    answer = upload()(world)
    assert (answer.code, [each.code for each in beside.answers]) == ("database_unavailable", ["database_unavailable"])
    assert (beside.groups, len(looked)) == ([2], 1)


def test_an_upload_that_its_group_left_behind_leaves_no_bytes_if_the_database_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes were stored with those of the others, for a later transaction. It waited too long for that one."""
    begun: list[int] = []

    def failing(operations: Sequence[Any], more: Any) -> Sequence[Any]:
        begun.append(len(operations))
        raise no_answer("silent")

    engine: Any = world.database._committer._engine
    monkeypatch.setattr(engine, "choose", lambda operations: [number == 0 for number in range(len(operations))])
    monkeypatch.setattr(engine, "transact", failing)
    monkeypatch.setattr(Engine, "seconds", 0)
    beside = Beside(world, monkeypatch)
    with world.untouched():
        answer = upload()(world)
    assert (answer.code, [each.code for each in beside.answers]) == ("database_unavailable", ["database_unavailable"])
    assert (beside.groups, begun) == ([2], [1])
