"""A deletion: one use of its signature, all or nothing, and never of bytes that a row may still name."""

import asyncio
from collections.abc import Iterator

import pytest

from proof.faults.bytes_first import bytes_first
from tests.app.failing import Failing, Tripwire
from tests.app.uploads import CALLER, attempt
from tests.world import OTHER_PNG, World, create_key
from uponce.app import signed_calls as module
from uponce.app.manage_signatures import show_signature
from uponce.app.signed_calls import SignedCall, destroy
from uponce.app.sweep import sweep
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull, StorageUnavailable, UponceError
from uponce.core.policy import Limits
from uponce.core.values import ApiKey, KeyScope, ResourceType
from uponce.web.cloudinary.signatures import describe_state

DOWN, UNKNOWN, GONE = DatabaseUnavailable("down"), OutcomeUnknown("unknown"), StorageUnavailable("gone")


@pytest.fixture
def once(world: World) -> ApiKey:
    """A key whose signatures work once, for whatever they are used."""
    return asyncio.run(create_key(world.services, "demo", scope=KeyScope.ALL))


@pytest.fixture(autouse=True)
def cat(world: World) -> Iterator[dict[str, str]]:
    """The fields of the upload that made it."""
    fields = world.sign({"public_id": "cat"})
    assert attempt(world, fields) == "ok"
    yield fields


async def outcome(world: World, fields: dict[str, str]) -> str:
    request = SignedCall("demo", ResourceType.IMAGE, fields, CALLER)
    try:
        return "ok" if await destroy(world.services, request) else "not found"
    except UponceError as error:
        return error.code


def delete(world: World, fields: dict[str, str] | None = None) -> str:
    return asyncio.run(outcome(world, fields or world.sign({"public_id": "cat"}, key=world.server)))


def left(world: World) -> tuple[int, int]:
    traces = world.traces()
    return traces.assets, len(traces.blobs)


def run_sweep(world: World) -> None:
    asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**9))


def test_a_signature_that_works_once_deletes_once(world: World, once: ApiKey, cat: dict[str, str]) -> None:
    """And is refused afterwards, in the audit too, also while there is nothing to delete."""
    fields = world.sign({"public_id": "cat"}, key=once)
    assert delete(world, fields) == "ok"
    assert delete(world, fields) == "signature_used"
    assert attempt(world, world.sign({"public_id": "cat"})) == "ok"
    assert delete(world, fields) == "signature_used"
    assert attempt(world, fields) == "signature_used"
    assert left(world) == (1, 1)
    assert world.sql("SELECT count(*) FROM audit WHERE code = 'signature_used'") == 3


def test_a_stale_signature_of_upload_scope_leaves_no_line_in_the_audit(world: World) -> None:
    """Its time is judged first: else an old signature could write to the audit for ever."""
    fields = world.sign({"public_id": "cat"})
    world.clock.time += world.browser.window + 1
    with world.untouched():
        assert [delete(world, fields) for _ in range(3)] == ["stale_request"] * 3


def test_refusals_for_scope_are_counted_beyond_a_number(world: World, cat: dict[str, str]) -> None:
    world.swap(limits=Limits(refusals_per_grant=3))
    before = world.traces().audit
    fields = world.sign({"public_id": "cat"})
    assert [delete(world, fields) for _ in range(10)] == ["scope_denied"] * 10
    assert [attempt(world, cat) for _ in range(10)] == ["signature_used"] * 10
    assert world.traces().audit == before + 8
    assert world.sql("SELECT sum(count) FROM audit WHERE code = 'scope_denied'") == 10
    answer = asyncio.run(show_signature(world.services, world.server, cat))
    assert describe_state(answer)["history"][-1]["count"] == 7
    assert "count" not in describe_state(answer)["history"][-2]


def test_a_deletion_that_finds_nothing_spends_nothing(world: World, once: ApiKey) -> None:
    fields = world.sign({"public_id": "dog"}, key=once)
    with world.untouched():
        assert delete(world, fields) == "not found"
    assert attempt(world, world.sign({"public_id": "dog"})) == "ok"
    assert delete(world, fields) == "ok"


def test_an_upload_spends_it_for_deletions_too(world: World, once: ApiKey) -> None:
    fields = world.sign({"public_id": "cat"}, key=once)
    assert attempt(world, fields, OTHER_PNG) == "ok"
    assert delete(world, fields) == "signature_used"
    assert left(world) == (1, 1)


def check_nothing_is_deleted_when(world: World, name: str, failure: UponceError) -> None:
    healthy, fields = world.services, world.sign({"public_id": "cat"}, key=world.server)
    world.swap(database=Failing(world.database, before={name: failure}))
    with world.untouched():
        assert delete(world, fields) == failure.code
    world.use(healthy)
    run_sweep(world)
    assert left(world) == (1, 1)
    assert delete(world, fields) == "ok"


@pytest.mark.parametrize("name", ["find_key", "delete"])
@pytest.mark.parametrize("failure", [DOWN, StorageFull("full"), UNKNOWN], ids=["down", "full", "unknown"])
def test_what_fails_before_the_commit_deletes_nothing(world: World, name: str, failure: UponceError) -> None:
    check_nothing_is_deleted_when(world, name, failure)


@pytest.mark.parametrize("failure", [DOWN, UNKNOWN], ids=["down", "unknown"])
def test_the_check_goes_red_when_bytes_go_before_the_row(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: UponceError
) -> None:
    monkeypatch.setattr(module, "_delete", bytes_first)
    with pytest.raises(AssertionError, match=r" became .*blobs=frozenset\(\), assets=1"):
        check_nothing_is_deleted_when(world, "delete", failure)


def test_while_nobody_knows_no_byte_is_deleted(world: World, once: ApiKey) -> None:
    """It did happen: the sweeper finds the bytes, and a repeat returns `signature_used`."""
    healthy, fields = world.services, world.sign({"public_id": "cat"}, key=once)
    world.swap(database=Failing(world.database, after={"delete": UNKNOWN}))
    assert delete(world, fields) == "outcome_unknown"
    assert left(world) == (0, 1)
    world.use(healthy)
    run_sweep(world)
    assert left(world) == (0, 0)
    assert delete(world, fields) == "signature_used"


def test_bytes_that_cannot_be_deleted_are_left_to_the_sweeper(world: World, caplog: pytest.LogCaptureFixture) -> None:
    healthy = world.services
    world.swap(blobs=Failing(world.blobs, before={"delete": GONE}))
    assert delete(world) == "ok"
    assert left(world) == (0, 1)
    (blob,) = world.traces().blobs
    assert f"the bytes of a deleted asset stay until a sweep, blob {blob}: {GONE.for_operator}" in caplog.messages
    world.use(healthy)
    run_sweep(world)
    assert left(world) == (0, 0)


def test_the_answer_that_was_stored_is_told_after_the_deletion(world: World) -> None:
    fields = world.sign({"public_id": "dog"})
    assert attempt(world, fields, key="a key") == "ok"
    assert delete(world, world.sign({"public_id": "dog"}, key=world.server)) == "ok"
    assert attempt(world, fields, key="a key") == "replayed"
    assert left(world) == (1, 1)


STEPS = 4


@pytest.mark.parametrize("number", range(1, STEPS + 1))
def test_cancelled_at_any_await_it_is_all_or_nothing(world: World, number: int, cat: dict[str, str]) -> None:
    """The asset with its bytes, or neither; what made it stays spent."""
    healthy, wire = world.services, Tripwire(number)
    fields = world.sign({"public_id": "cat"}, key=world.server)
    world.swap(database=wire.guard(world.database), blobs=wire.guard(world.blobs))

    async def play() -> None:
        wire.victim = asyncio.create_task(outcome(world, fields))
        await asyncio.wait([wire.victim])
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(play())
    world.use(healthy)
    assert left(world) in ((1, 1), (0, 0)), f"cancelled in {wire.tripped}"
    assert attempt(world, cat) == "signature_used"
    assert bool(wire.tripped) == (number < STEPS)


def test_a_key_that_lost_its_scope_meanwhile(world: World) -> None:
    """The scope is that of the key now, not of the signature's time."""
    fields = world.sign({"public_id": "cat"}, key=world.server)
    world.sql("UPDATE api_keys SET scope = 'upload'")
    assert delete(world, fields) == "scope_denied"
    assert left(world) == (1, 1)
