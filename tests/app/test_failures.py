"""Whatever breaks on the way: nothing is spent, nothing is left; and what may have happened is never undone."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.app.failing import Failing, FailingSpool, Held, Tripwire
from tests.app.uploads import attempt, form, live_attempts, outcome, send
from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.contract.test_mutants import SelectThenInsert
from tests.world import OTHER_PNG, PNG, World, assert_accepted, assert_refused
from uponce.adapters.secretbox import AesSecretBox
from uponce.app.sweep import sweep
from uponce.app.unbroken import finish_unbroken
from uponce.core.errors import (
    BlobCondemned,
    DatabaseUnavailable,
    InvalidMedia,
    OutcomeUnknown,
    ServerBusy,
    SignatureRevoked,
    SignatureUsed,
    StorageFull,
    StorageUnavailable,
)

DOWN, UNKNOWN = DatabaseUnavailable("down"), OutcomeUnknown("unknown")
FULL, GONE = StorageFull("full"), StorageUnavailable("gone")


@dataclass(frozen=True)
class Breakage:
    """Which calls of which port raise what, instead of happening; `after` they happened where that says so."""

    code: str
    database: dict[str, Any] = field(default_factory=dict)
    spool: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, Any] = field(default_factory=dict)
    inspector: dict[str, Any] = field(default_factory=dict)
    spool_after: dict[str, Any] = field(default_factory=dict)

    def break_(self, world: World) -> None:
        blobs = Failing(world.blobs, before=self.blobs)
        world.swap(
            database=Failing(world.database, before=self.database),
            blobs=FailingSpool(blobs, before=self.spool, after=self.spool_after),
            inspector=Failing(world.services.inspector, before=self.inspector),
        )


BREAKAGES = {
    "no key can be looked up": Breakage("database_unavailable", database={"find_key": DOWN}),
    "no grant can be looked up": Breakage("database_unavailable", database={"find_grant": DOWN}),
    "nothing can be spooled": Breakage("storage_unavailable", blobs={"receive": GONE}),
    "disk full at the first write": Breakage("storage_full", spool={"write": FULL}),
    "disk full after a write": Breakage("storage_full", spool_after={"write": FULL}),
    "disk full at the end": Breakage("storage_full", spool={"seal": FULL}),
    "decoder crashed": Breakage("invalid_media", inspector={"inspect": InvalidMedia("crashed")}),
    "no decoder free": Breakage("server_busy", inspector={"inspect": ServerBusy("busy")}),
    "fsync failed": Breakage("storage_unavailable", spool={"publish": GONE}),
    "published, then the folder failed": Breakage("storage_unavailable", spool_after={"publish": GONE}),
    "no commit": Breakage("database_unavailable", database={"commit": DOWN}),
    "database full": Breakage("storage_full", database={"commit": FULL}),
    "condemned": Breakage("attempt_expired", database={"commit": BlobCondemned("swept")}),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_failure_before_the_commit_is_free(world: World, name: str) -> None:
    fields, healthy = world.sign(), world.services
    BREAKAGES[name].break_(world)
    with world.untouched():
        assert attempt(world, fields) == BREAKAGES[name].code
        assert attempt(world, fields, OTHER_PNG) == BREAKAGES[name].code
    assert live_attempts(world) == 0
    world.use(healthy)
    assert attempt(world, fields) == "ok"


@pytest.mark.parametrize("refused", ["uponce-large", "uponce-sync"])
def test_a_system_that_allows_no_more_threads_spends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    real, fields, file = threading.Thread.start, world.sign(), bytes(2 * 1024 * 1024)

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        real(thread)

    with monkeypatch.context() as patched, world.untouched():
        patched.setattr(threading.Thread, "start", start)
        assert_refused(world.upload(fields, file, kind="raw"), 503, "storage_unavailable")
    assert_accepted(world.upload(fields, file, kind="raw"))


def test_a_bug_in_an_adapter_spends_nothing_either(world: World) -> None:
    fields, healthy = world.sign(), world.services
    world.swap(inspector=Failing(world.services.inspector, before={"inspect": ZeroDivisionError()}))
    with world.untouched(), pytest.raises(ZeroDivisionError):
        attempt(world, fields)
    assert live_attempts(world) == 0
    world.use(healthy)
    assert attempt(world, fields) == "ok"


@pytest.mark.parametrize("loss", [SignatureUsed("used"), SignatureRevoked("revoked")], ids=["used", "revoked"])
def test_the_loser_of_the_commit_leaves_no_bytes_and_is_audited(world: World, loss: SignatureUsed) -> None:
    fields = world.sign()
    world.swap(database=Failing(world.database, before={"commit": loss}))
    before = world.traces()
    assert attempt(world, fields) == loss.code
    after = world.traces()
    assert (after.spooled, after.blobs, after.grants) == (before.spooled, before.blobs, before.grants)
    assert after.audit == before.audit + 1


def check_of_a_race_one_wins(world: World) -> None:
    """Both are past every check before the first one commits. The bytes of the loser are gone."""
    fields, database = world.sign(), world.services.database

    async def play() -> list[str]:
        held = Held(database, "commit")
        world.swap(database=held)
        racers = [asyncio.create_task(outcome(world, form(fields, PNG + bytes([n])))) for n in range(2)]
        while held.waiting < 2 and not any(racer.done() for racer in racers):
            await asyncio.sleep(0)
        assert held.waiting == 2
        held.release.set()
        return await asyncio.gather(*racers)

    assert sorted(asyncio.run(play())) == ["ok", "signature_used"]
    traces = world.traces()
    assert (traces.assets, traces.grants, len(traces.blobs), traces.spooled) == (1, 1, 1, frozenset())
    assert live_attempts(world) == 0


def test_of_a_real_race_one_wins_and_the_others_bytes_are_gone(world: World) -> None:
    check_of_a_race_one_wins(world)


def test_the_check_goes_red_when_a_commit_looks_and_then_inserts(world: World) -> None:
    careless = SelectThenInsert(world.path, clock=world.clock, secrets=AesSecretBox(bytes(32)))
    careless.open()
    world.swap(database=careless)
    with pytest.raises(AssertionError, match=r"\['ok', 'ok'\] == "):
        check_of_a_race_one_wins(world)
    careless.close()


class TestOutcomeUnknown:
    """The reply to COMMIT is lost."""

    def test_it_happened_and_reading_back_finds_it(self, world: World) -> None:
        fields, healthy = world.sign(), world.services
        world.swap(database=Failing(world.database, after={"commit": UNKNOWN}))
        uploaded = asyncio.run(send(world, form(fields)))
        asset = asyncio.run(world.database.find_asset(uploaded.committed.asset.name))
        assert uploaded.committed.asset == asset
        assert asset is not None
        assert world.traces().blobs == {asset.blob_key}
        world.use(healthy)
        assert attempt(world, fields) == "signature_used"

    def test_a_standby_that_is_away_is_asked_once(self, world: World) -> None:
        """Each question waits for UPONCE_DATABASE_SECONDS."""
        never = AssertionError("a second question")
        away = {"confirm_reply": UNKNOWN, "confirm_commit": never}
        world.swap(database=Failing(Failing(world.database, before=away), after={"commit": UNKNOWN}))
        assert attempt(world, world.sign(), key="a key") == "outcome_unknown"

    @pytest.mark.parametrize("read_back", [None, DOWN, UNKNOWN], ids=["reads nothing", "is down", "is unknown too"])
    @pytest.mark.parametrize("happened", [True, False])
    def test_while_nobody_knows_nothing_is_deleted(
        self, world: World, *, happened: bool, read_back: BaseException | None
    ) -> None:
        """Also when reading back fails: a later look will tell."""
        fields, healthy = world.sign(), world.services
        commit = {"commit": UNKNOWN}
        database: Any = Failing(world.database, **{"after" if happened else "before": commit})
        if read_back is not None:
            database = Failing(database, before={"confirm_commit": read_back})
        world.swap(database=database)
        expected = "ok" if happened and read_back is None else "outcome_unknown"
        assert attempt(world, fields) == expected
        traces = world.traces()
        assert (len(traces.blobs), traces.spooled, traces.assets) == (1, frozenset(), int(happened))
        assert live_attempts(world) == 0

        world.use(healthy)
        asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**9))
        assert len(world.traces().blobs) == int(happened)
        assert attempt(world, fields) == ("signature_used" if happened else "ok")


class TestUnneededBlobs:
    def test_the_replaced_bytes_are_deleted(self, world: World) -> None:
        assert attempt(world, world.sign({"public_id": "a"})) == "ok"
        old = world.traces().blobs
        assert attempt(world, world.sign({"public_id": "a"}), OTHER_PNG) == "ok"
        assert len(world.traces().blobs) == 1
        assert not old & world.traces().blobs

    @pytest.mark.parametrize("failure", [GONE, FULL], ids=["gone", "full"])
    def test_a_deletion_that_fails_does_not_fail_the_upload_and_is_left_to_the_sweeper(
        self, world: World, failure: BaseException
    ) -> None:
        healthy = world.services
        world.swap(blobs=Failing(world.blobs, before={"delete": failure}))
        assert attempt(world, world.sign({"public_id": "a"})) == "ok"
        assert attempt(world, world.sign({"public_id": "a"}), OTHER_PNG) == "ok"
        assert len(world.traces().blobs) == 2
        world.use(healthy)
        swept = asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**9))
        assert (swept.blobs, swept.bytes) == (1, len(PNG))
        assert len(world.traces().blobs) == 1

    @pytest.mark.parametrize("whole_bodies", [True, False])
    def test_no_client_waits_for_a_deletion_on_another_machine(self, world: World, whole_bodies: bool) -> None:
        world.whole_bodies = whole_bodies
        assert_accepted(world.upload(world.sign({"public_id": "a"})))
        old = world.traces().blobs
        body = [parts_of(world.sign({"public_id": "a"})), part("file", OTHER_PNG, "cat.png"), END]

        async def play() -> Answer:
            remote = Remote(world.blobs, "delete")
            world.swap(blobs=remote)
            upload = call(world.app, "POST", world.route(), headers=FORM, chunks=body, whole=whole_bodies)
            answer = await asyncio.wait_for(upload, 60)
            await asyncio.sleep(0)
            assert remote.waiting == 1
            assert len(world.traces().blobs) == 2
            remote.release.set()
            await finish_unbroken(60)  # as a server that stops
            return answer

        assert_accepted(asyncio.run(play()))
        assert not old & world.traces().blobs


class Remote(Held):
    is_remote = True


STEPS = 10


@pytest.mark.parametrize("file_first", [False, True], ids=["fields first", "file first"])
@pytest.mark.parametrize("number", range(1, STEPS + 1))
def test_cancelled_at_any_await_it_is_all_or_nothing(world: World, number: int, file_first: bool) -> None:
    """Either it happened whole, or nothing of it did and the signature is as good as new."""
    fields, healthy, wire = world.sign(), world.services, Tripwire(number)
    world.swap(
        database=wire.guard(world.database),
        blobs=wire.guard(world.blobs),
        inspector=wire.guard(world.services.inspector),
    )

    async def play() -> str:
        wire.victim = asyncio.create_task(outcome(world, form(fields, file_first=file_first)))
        await asyncio.wait([wire.victim])
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        return "cancelled" if wire.victim.cancelled() else str(wire.victim.result())

    result = asyncio.run(play())
    traces = world.traces()
    assert result == ("cancelled" if wire.tripped else "ok")
    assert traces.assets == traces.grants == len(traces.blobs)
    assert traces.spooled == frozenset(), f"left after a cancellation in {wire.tripped}"
    assert live_attempts(world) == 0
    world.use(healthy)
    assert attempt(world, fields) == ("signature_used" if traces.grants else "ok")


@pytest.mark.parametrize("file_first", [False, True], ids=["fields first", "file first"])
def test_the_steps_above_reach_beyond_the_last_await(world: World, file_first: bool) -> None:
    wire = Tripwire(STEPS)
    world.swap(
        database=wire.guard(world.database),
        blobs=wire.guard(world.blobs),
        inspector=wire.guard(world.services.inspector),
    )
    assert asyncio.run(outcome(world, form(world.sign(), file_first=file_first))) == "ok"
