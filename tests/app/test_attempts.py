"""How many uploads may run at a time, how long and how slowly: bounds that never keep the honest holder out."""

import asyncio
from contextlib import AbstractAsyncContextManager, ExitStack
from hashlib import sha256
from unittest.mock import Mock

import pytest

from tests.app.failing import Held
from tests.app.uploads import THIEF, Crowd, attempt, drip, elsewhere, form, live_attempts, outcome, send, stream
from tests.world import PNG, START, World
from uponce.app.attempts import Attempt, Attempts, network_of
from uponce.core.errors import SignatureInUse
from uponce.core.policy import Limits
from uponce.core.values import Grant

ROOM = Limits().attempts_per_grant


def test_an_attempt_too_many_displaces_the_slowest_and_costs_nothing(world: World) -> None:
    fields = world.sign()

    async def play() -> None:
        crowd = Crowd(world)
        for number, size in enumerate((50_000, 2_000, 30_000, 90_000)):
            await crowd.begin(drip(fields, size), elsewhere(number))
        with world.untouched():
            newest = await crowd.begin(drip(fields), elsewhere(9))
            assert await crowd.tasks[1] == "signature_in_use"
        assert [task.done() for task in crowd.tasks] == [False, True, False, False, False]
        assert live_attempts(world) == ROOM
        newest.cancel()
        await crowd.finish()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(play())
    assert live_attempts(world) == 0


@pytest.mark.parametrize(("uses", "told"), [(1, "is 4. The"), (3, "and with 3 uses it allows 6. The")])
def test_the_displaced_attempt_is_told_the_limit_and_what_to_do(world: World, uses: int, told: str) -> None:
    fields = world.sign({"max_uses": uses}, key=world.browser)
    room = ROOM + uses - 1

    async def play() -> SignatureInUse:
        reached = asyncio.Event()
        slow = asyncio.create_task(send(world, stream(drip(fields), hold=asyncio.Event(), reached=reached)))
        await reached.wait()
        crowd = Crowd(world)
        for number in range(room):
            await crowd.begin(drip(fields, 5_000), elsewhere(number))
        with pytest.raises(SignatureInUse) as refused:
            await slow
        await crowd.finish()
        return refused.value

    error = asyncio.run(play())
    assert error.retry_after
    assert f"the slowest of {room}: 10 bytes in" in error.message
    assert "UPONCE_ATTEMPTS_PER_GRANT is 4" in error.message and told in error.message
    assert "send the file again" in error.message


def test_the_holder_of_a_bound_signature_always_gets_in(world: World) -> None:
    """A thief with a copy cannot use it. Slow uploads of the thief from everywhere do not keep the holder out."""
    fields = world.sign({"sha256": sha256(PNG).hexdigest()})

    async def play() -> str:
        crowd = Crowd(world)
        for number in range(3 * ROOM):
            await crowd.begin(drip(fields), elsewhere(number))
        answer = await outcome(world, form(fields))
        await crowd.finish()
        return answer

    assert asyncio.run(play()) == "ok"


def test_a_stranger_who_begins_again_and_again_displaces_none_but_its_own(world: World) -> None:
    """Even when each of the stranger's uploads is faster than the holder's."""
    fields = world.sign({"sha256": sha256(PNG).hexdigest()})

    async def play() -> tuple[str, list[str]]:
        crowd = Crowd(world)
        holder = await crowd.begin(form(fields))
        thieves = [await crowd.begin(drip(fields, 100_000), THIEF) for _ in range(4 * ROOM)]
        assert live_attempts(world) == ROOM
        await crowd.finish()
        return await holder, await asyncio.gather(*thieves)

    holder, thieves = asyncio.run(play())
    assert holder == "ok"
    assert thieves.count("signature_in_use") == 4 * ROOM - (ROOM - 1)


def test_new_attempts_from_everywhere_displace_one_another_before_a_faster_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Being new is no protection: else a stranger could always begin again, and be safer than the holder."""
    monkeypatch.setattr("uponce.app.attempts._YOUNG_SECONDS", 3600)  # on a machine that stands still, all are slow
    fields = world.sign({"sha256": sha256(PNG + bytes(50_000)).hexdigest()})

    async def play() -> str:
        crowd = Crowd(world)
        holder = await crowd.begin([*form(fields)[:-2], PNG + bytes(49_999), b"\0"])
        for number in range(4 * ROOM):
            await crowd.begin(drip(fields, 5_000), elsewhere(number))
        await crowd.finish()
        return await holder

    assert asyncio.run(play()) == "ok"


def test_a_new_attempt_is_no_safer_than_an_old_one_of_a_better_rate() -> None:
    """Else a stranger could always begin again, and displace the holder after its first seconds."""

    async def play() -> None:
        attempts, grant, now = Attempts(), signed_grant(), asyncio.get_running_loop().time()
        holder = Attempt("holder", now - 60, received=6_000_000)
        with ExitStack() as running:
            for number, attempt in enumerate([holder, *(Attempt(str(n), now, 20_000) for n in range(4 * ROOM))]):
                running.enter_context(attempt.receiving(Mock(expired=lambda: False)))
                if number >= ROOM:
                    assert len(attempts._running[grant.key]) == ROOM
                running.enter_context(attempts.of_grant(attempt, grant, Limits()))
            assert holder.refusal is None

    asyncio.run(play())


def signed_grant() -> Grant:
    return Grant(bytes(32), "demo", "key", START, 1, START)


def test_attempts_that_are_being_stored_are_not_displaced(world: World) -> None:
    fields = world.sign()

    async def play() -> tuple[str, list[str]]:
        held = Held(world.services.inspector, "inspect")
        world.swap(inspector=held)
        stored = [asyncio.create_task(outcome(world, form(fields), caller=elsewhere(n))) for n in range(ROOM)]
        while held.waiting < ROOM:
            await asyncio.sleep(0.01)
        with pytest.raises(
            SignatureInUse, match=rf"{ROOM} uploads with it have arrived.* sign a different nonce for each"
        ):
            await send(world, form(fields))
        held.release.set()
        return "refused", await asyncio.gather(*stored)

    _, answers = asyncio.run(play())
    assert sorted(answers) == ["ok"] + ["signature_used"] * (ROOM - 1)


def test_a_file_first_upload_takes_a_place_once_its_signature_is_known(world: World) -> None:
    fields = world.sign()

    async def play() -> tuple[str, list[str]]:
        crowd = Crowd(world)
        for number in range(ROOM):
            await crowd.begin(drip(fields), elsewhere(number))
        answer = await outcome(world, form(fields, file_first=True))
        return answer, await crowd.finish()

    answer, others = asyncio.run(play())
    assert answer == "ok"
    assert others.count("signature_in_use") == 1
    assert live_attempts(world) == 0


def test_an_address_is_held_to_its_network() -> None:
    assert network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("64:ff9b::192.0.2.1") == network_of("192.0.2.1")  # by a translator in front of all of IPv4
    assert network_of("64:ff9b:1::1") == network_of("64:ff9b:1::2")
    assert network_of("") == network_of("unix:") == ""


def test_stalled_attempts_never_lock_out_another_signature(world: World) -> None:
    stalled, other = world.sign(), world.sign()

    async def play() -> tuple[str, list[str]]:
        crowd = Crowd(world)
        for _ in range(2):
            await crowd.begin(form(stalled))
        return await outcome(world, form(other)), await crowd.finish()

    answer, _ = asyncio.run(play())
    assert answer == "ok"


def test_a_place_is_free_again_when_an_attempt_ends_badly(world: World) -> None:
    fields = world.sign({"max_bytes": len(PNG)})
    for _ in range(5):
        assert attempt(world, fields, PNG + b"x") == "file_too_large"
    assert live_attempts(world) == 0
    assert attempt(world, fields) == "ok"


@pytest.mark.parametrize(("key", "params", "fit"), [("server", {}, 12), ("browser", {"max_uses": 3}, 5)])
def test_signatures_of_more_uses_may_run_more_often(
    world: World, key: str, params: dict[str, object], fit: int
) -> None:
    """An unlimited one has no bound; one of three uses has room for all of them from one address, and one elsewhere."""
    fields = world.sign(params, key=getattr(world, key))

    async def play() -> list[str]:
        crowd = Crowd(world)
        for _ in range(fit):
            await crowd.begin(form(fields))
        return await crowd.finish()

    answers = asyncio.run(play())
    assert answers.count("ok") == (fit if key == "server" else 3)
    assert set(answers) <= {"ok", "signature_used"}


def test_of_a_flood_of_refusals_a_few_are_written_down_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each signature, so that a flood with one of them does not keep the refusals of others waiting."""
    spent = [world.sign() for _ in range(6)]
    assert [attempt(world, fields) for fields in spent] == ["ok"] * 6

    async def flood() -> tuple[list[int], list[str]]:
        held, asked = Held(world.database, "record_refusal"), list[Grant]()
        world.swap(database=held)
        refusing = world.services.attempts.refusing

        def counted(grant: Grant) -> AbstractAsyncContextManager[None]:
            asked.append(grant)
            return refusing(grant)

        async def until_asked(number: int) -> int:
            """Return how many are written down when so many wait for that or are written down."""
            async with asyncio.timeout(60):
                while len(asked) < number:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            return held.waiting

        monkeypatch.setattr(world.services.attempts, "refusing", counted)
        flooders = [asyncio.create_task(outcome(world, form(spent[0]))) for _ in range(20)]
        waiting = [await until_asked(20)]
        flooders += [asyncio.create_task(outcome(world, form(fields))) for fields in spent[1:]]
        waiting.append(await until_asked(25))
        held.release.set()
        return waiting, await asyncio.gather(*flooders)

    waiting, answers = asyncio.run(flood())
    assert waiting == [1, 4]
    assert answers == ["signature_used"] * 25
    assert not world.services.attempts._turns
