"""A client that lost its reply asks again under the same Idempotency-Key."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proof.faults.mortal import Attempt, Process
from tests.app.failing import Failing, Held
from tests.app.uploads import CALLER, attempt, form, live_attempts, outcome, send, stream
from tests.world import OTHER_PNG, PNG, MovableClock, World
from uponce.app.backup import fence
from uponce.app.manage_keys import revoke_key, set_up
from uponce.app.manage_signatures import revoke_signature
from uponce.app.services import Metrics
from uponce.app.sign import mint
from uponce.app.sweep import sweep
from uponce.core.errors import DatabaseUnavailable, InvalidMedia, OutcomeUnknown
from uponce.core.policy import Limits

KEY = "5e9c2f0a"
UNKNOWN = OutcomeUnknown("unknown")


@pytest.mark.parametrize("file_first", [False, True], ids=["fields first", "file first"])
def test_the_same_file_gets_the_same_answer_and_leaves_nothing(world: World, file_first: bool) -> None:
    fields = world.sign()
    first = asyncio.run(send(world, form(fields), KEY))
    world.clock.time += 7
    with world.untouched():
        again = asyncio.run(send(world, form(fields, file_first=file_first), KEY))
    assert again.committed == replace(first.committed, replayed=True)
    assert live_attempts(world) == 0


def test_a_repeat_is_neither_inspected_nor_stored(world: World) -> None:
    """It costs what receiving it costs."""
    fields = world.sign()
    assert attempt(world, fields, key=KEY) == "ok"
    never = DatabaseUnavailable("A repeat must not come here.")
    world.swap(
        inspector=Failing(world.services.inspector, before={"inspect": never}),
        database=Failing(world.database, before={"commit": never}),
    )
    assert attempt(world, fields, key=KEY) == "replayed"


def test_a_repeat_gets_no_answer_that_a_failover_could_forget(world: World) -> None:
    fields = world.sign()
    assert attempt(world, fields, key=KEY) == "ok"
    world.swap(database=Failing(world.database, before={"confirm_reply": OutcomeUnknown("the standby is away")}))
    with world.untouched():
        assert attempt(world, fields, key=KEY) == "outcome_unknown"


@pytest.mark.parametrize("key", [None, "another key"])
def test_without_its_key_a_repeat_is_refused_before_the_file_is_read(world: World, key: str | None) -> None:
    fields = world.sign()
    assert attempt(world, fields, key=KEY) == "ok"
    world.swap(blobs=Failing(world.blobs, before={"receive": DatabaseUnavailable("It was spooled.")}))
    assert attempt(world, fields, key=key) == "signature_used"


def test_a_key_that_comes_only_with_the_repeat_is_of_no_use(world: World) -> None:
    fields = world.sign()
    assert attempt(world, fields) == "ok"
    assert attempt(world, fields, key=KEY) == "signature_used"


@pytest.mark.parametrize("signer", ["browser", "server"])
def test_other_bytes_are_refused_and_the_refusal_is_noted(world: World, signer: str) -> None:
    fields = world.sign(key=getattr(world, signer))
    assert attempt(world, fields, key=KEY) == "ok"
    before = world.traces()
    assert attempt(world, fields, OTHER_PNG, KEY) == "idempotency_key_reused"
    assert world.traces() == replace(before, audit=before.audit + 1)
    assert world.sql("SELECT count(*) FROM audit WHERE code = 'idempotency_key_reused'") == 1


def test_with_an_unlimited_key_only_another_idempotency_key_is_another_upload(world: World) -> None:
    fields = world.sign(key=world.server)
    assert [attempt(world, fields, key=key) for key in (KEY, KEY, "other", None)] == ["ok", "replayed", "ok", "ok"]
    assert world.traces().assets == 3


def test_the_limits_hold_for_a_repeat_too(world: World) -> None:
    fields = world.sign({"max_bytes": len(PNG)})
    assert attempt(world, fields, key=KEY) == "ok"
    with world.untouched():
        assert attempt(world, fields, PNG + b"!", KEY) == "file_too_large"
        assert attempt(world, fields, b"", KEY) == "empty_file"


def test_so_many_repeats_run_at_a_time_as_attempts_may(world: World) -> None:
    """From one address all but one; the slowest of them ends, which is the oldest of equals."""
    fields = world.sign()
    assert attempt(world, fields, key=KEY) == "ok"

    async def play() -> list[str]:
        hold = asyncio.Event()
        reached = [asyncio.Event() for _ in range(3)]
        running = [
            asyncio.create_task(outcome(world, stream(form(fields), hold=hold, reached=there), KEY))
            for there in reached
        ]
        await asyncio.gather(*(there.wait() for there in reached))
        fourth = await outcome(world, form(fields), KEY)
        hold.set()
        return [fourth, *await asyncio.gather(*running)]

    assert asyncio.run(play()) == ["replayed", "signature_in_use", "replayed", "replayed"]


class Meanwhile:
    """A database in which something happens right after it was asked for `name` for the first time."""

    def __init__(self, real: Any, name: str, happen: Callable[[], Awaitable[object]]) -> None:
        self._real = real
        self._pending = {name: happen}

    def __getattr__(self, name: str) -> Any:
        real, happen = getattr(self._real, name), self._pending.pop(name, None)
        if happen is None:
            return real

        async def ask(*args: Any) -> Any:
            answer = await real(*args)
            await happen()
            return answer

        return ask


@pytest.mark.parametrize("name", ["find_key", "find_grant", "confirm_reply"])
def test_a_repeat_that_is_checked_while_the_first_one_commits_gets_its_answer(world: World, name: str) -> None:
    """Between any two looks into the database, on another server or on this one."""
    fields = world.sign()

    async def first() -> None:
        assert await outcome(world, form(fields), KEY) == "ok"

    world.swap(database=Meanwhile(world.database, name, first))
    assert attempt(world, fields, key=KEY) == "replayed"
    assert world.traces().assets == 1


@pytest.mark.parametrize(("late", "expected"), [(0, "ok"), (7200, "stale_request")])
def test_an_answer_that_is_purged_meanwhile_admits_no_stale_signature(world: World, late: int, expected: str) -> None:
    """Its repeat was admitted without a look at the time. A use is left, and a slow body may take an hour."""
    fields = world.sign({"max_uses": 3})
    assert attempt(world, fields, key=KEY) == "ok"
    world.clock.time += late

    async def purge() -> None:
        world.sql("DELETE FROM replies")

    world.swap(database=Meanwhile(world.database, "find_reply", purge))
    assert attempt(world, fields, key=KEY) == expected
    assert world.traces().assets == (2 if expected == "ok" else 1)


def race(world: World, *files: bytes) -> list[str]:
    """So many uploads under one signature and key, all past every check before the first one commits."""
    fields = world.sign()

    async def play() -> list[str]:
        held = Held(world.database, "commit")
        world.swap(database=held, limits=Limits(attempts_per_grant=len(files) + 1))
        racers = [asyncio.create_task(outcome(world, form(fields, file), KEY)) for file in files]
        while held.waiting < len(files):
            await asyncio.sleep(0)
        held.release.set()
        return await asyncio.gather(*racers)

    answers = sorted(asyncio.run(play()))
    traces = world.traces()
    assert (traces.assets, traces.grants, len(traces.blobs), traces.spooled) == (1, 1, 1, frozenset())
    assert live_attempts(world) == 0
    return answers


def test_who_loses_a_race_against_the_same_upload_is_told_of_the_winner(world: World) -> None:
    assert race(world, PNG, PNG, PNG) == ["ok", "replayed", "replayed"]


def test_who_loses_a_race_with_other_bytes_is_refused(world: World) -> None:
    assert race(world, PNG, OTHER_PNG) == ["idempotency_key_reused", "ok"]
    assert world.sql("SELECT count(*) FROM audit WHERE code = 'idempotency_key_reused'") == 1


@pytest.mark.parametrize("statement", ["DELETE FROM assets", "UPDATE assets SET version = version + 1, tags = '[1]'"])
def test_the_answer_is_a_record_of_the_past(world: World, statement: str) -> None:
    fields = world.sign()
    first = asyncio.run(send(world, form(fields), KEY))
    world.sql(statement)
    assert asyncio.run(send(world, form(fields), KEY)).committed == replace(first.committed, replayed=True)


class TestFreshness:
    """A repeat makes nothing: it may come as long as its grant is remembered."""

    def test_a_repeat_may_come_after_the_window(self, world: World) -> None:
        """The upload itself may have taken all of it. A first use may not."""
        answered, unused = world.sign(), world.sign({"valid_for": 60})
        assert attempt(world, answered, key=KEY) == "ok"
        world.clock.time += world.browser.window + 60
        assert attempt(world, unused, key=KEY) == "stale_request"
        assert attempt(world, answered, key="another key") == "stale_request"
        assert attempt(world, answered, key=KEY) == "replayed"

    def test_not_once_it_is_forgotten(self, world: World) -> None:
        fields, limits = world.sign(), world.services.limits
        assert attempt(world, fields, key=KEY) == "ok"
        world.clock.time += world.browser.window + limits.skew + limits.max_upload_seconds + 1
        assert asyncio.run(sweep(world.services, grace_seconds=10**9, audit_seconds=10**9)).grants == 1
        assert world.sql("SELECT count(*) FROM replies") == 0
        assert attempt(world, fields, key=KEY) == "stale_request"

    def test_forgotten_while_the_repeat_runs_it_makes_nothing_either(self, world: World) -> None:
        fields, limits = world.sign(), world.services.limits
        assert attempt(world, fields, key=KEY) == "ok"
        blobs = world.traces().blobs

        async def play() -> str:
            hold, reached = asyncio.Event(), asyncio.Event()
            repeat = asyncio.create_task(outcome(world, stream(form(fields), hold=hold, reached=reached), KEY))
            await reached.wait()
            world.clock.time += world.browser.window + limits.skew + limits.max_upload_seconds + 1
            assert await world.database.purge(10**9) == 1
            hold.set()
            return await repeat

        assert asyncio.run(play()) == "stale_request"
        assert world.traces().blobs == blobs

    def test_not_behind_a_fence(self, world: World) -> None:
        fields = world.sign()
        assert attempt(world, fields, key=KEY) == "ok"
        asyncio.run(fence(world.services))
        assert attempt(world, fields, key=KEY) == "stale_request"


def test_a_revoked_signature_or_key_is_told_nothing(world: World) -> None:
    fields = world.sign({"max_uses": 2})
    assert attempt(world, fields, key=KEY) == "ok"
    asyncio.run(revoke_signature(world.services, world.browser, fields, CALLER))
    assert attempt(world, fields, key=KEY) == "signature_revoked"
    asyncio.run(revoke_key(world.services, world.browser.api_key))
    assert attempt(world, fields, key=KEY) == "unknown_api_key"


def test_an_upload_that_failed_may_be_repeated_under_its_key(world: World) -> None:
    """Only what was stored is remembered; a refusal is not an answer to keep."""
    fields, healthy = world.sign(), world.services
    world.swap(inspector=Failing(world.services.inspector, before={"inspect": InvalidMedia("crashed")}))
    assert attempt(world, fields, key=KEY) == "invalid_media"
    world.use(healthy)
    assert [attempt(world, fields, OTHER_PNG, KEY) for _ in range(2)] == ["ok", "replayed"]


class Stored(Metrics):
    """Counts the uploads that were committed."""

    count = 0

    def stored(self) -> None:
        self.count += 1


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_commit_that_was_read_back_is_told_like_any_other(world: World, overwrite: bool) -> None:
    """Also that it overwrote something, or kept what there was. The asset alone does not tell that."""
    assert attempt(world, world.sign({"public_id": "a"})) == "ok"
    fields = world.sign({"public_id": "a", "overwrite": str(overwrite).lower()})
    healthy, metrics = world.services, Stored()
    world.swap(database=Failing(world.database, after={"commit": UNKNOWN}), metrics=metrics)
    first = asyncio.run(send(world, form(fields, OTHER_PNG), KEY)).committed
    assert (first.overwritten, first.existing, first.replayed, metrics.count) == (overwrite, not overwrite, False, 1)
    assert world.traces().blobs == {first.asset.blob_key}
    world.use(healthy)
    again = asyncio.run(send(world, form(fields, OTHER_PNG), KEY)).committed
    assert again == replace(first, replayed=True)


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_unknown_commit_after_that_of_another_request_is_a_replay(world: World, overwrite: bool) -> None:
    """Nothing came of it. Its blob is the sweeper's, as after any unknown outcome."""
    assert attempt(world, world.sign({"public_id": "a"})) == "ok"
    fields = world.sign({"public_id": "a", "overwrite": str(overwrite).lower()})
    healthy, metrics = world.services, Stored()

    async def win() -> None:
        world.use(healthy)
        assert await outcome(world, form(fields, OTHER_PNG), KEY) == "ok"

    held = Meanwhile(Failing(world.database, before={"commit": UNKNOWN}), "confirm_reply", win)
    world.swap(database=held, metrics=metrics)
    repeated = asyncio.run(send(world, form(fields, OTHER_PNG), KEY)).committed
    assert (repeated.replayed, repeated.unneeded_blob) == (True, None)
    assert (metrics.count, len(world.traces().blobs)) == (0, 2)


@pytest.mark.parametrize("wins", [True, False], ids=["other bytes won", "nothing did"])
def test_an_unknown_commit_gets_no_answer_of_other_bytes(world: World, wins: bool) -> None:
    fields, healthy = world.sign({"max_uses": 3}), world.services

    async def win() -> None:
        world.use(healthy)
        assert not wins or await outcome(world, form(fields, OTHER_PNG), KEY) == "ok"

    world.swap(database=Meanwhile(Failing(world.database, before={"commit": UNKNOWN}), "find_reply", win))
    assert attempt(world, fields, PNG, KEY) == "outcome_unknown"


@pytest.mark.parametrize(("moment", "then"), [("before_commit", "ok"), ("after_commit", "replayed")])
def test_a_server_that_dies_at_the_commit_tells_what_became_of_it_after_its_restart(
    tmp_path: Path, moment: str, then: str
) -> None:
    clock = MovableClock()

    async def play() -> list[str]:
        process = Process(tmp_path, clock)
        key, _ = await set_up(process.services, "demo")
        fields = mint(key, {}, clock=clock, ids=process.services.ids)
        setattr(process.life, moment, process.life.die)
        answers = []
        for _ in range(3):
            attempt = Attempt(process, PNG, KEY)
            answers.append(await attempt.begin(fields) or await attempt.finish())
            process.life.alive = False
            process.end()
            process = Process(tmp_path, clock)
        process.end()
        return answers

    assert asyncio.run(play()) == ["outcome_unknown", then, "replayed"]
