"""Receivers that accept slowly: they share some of the places, so no other receiver waits behind their backlog."""

import asyncio
from collections import Counter

import pytest

from tests.web.test_notifications import leave_notifications, works
from tests.world import PNG, START, World, assert_accepted
from uponce.adapters import notifier as notifier_module
from uponce.adapters.notifier import AT_ONCE, Notifier
from uponce.app import outbox
from uponce.app.outbox import run_due

SLOW, QUICK = "https://slow.example/hook", "https://quick.example/hook"
SHARE, MANY, PATIENCE = 16, 5000, 240


def leave(world: World, url: str, count: int = 1) -> None:
    """Leave so many notifications in the outbox, each of another asset. More than one need an empty outbox."""
    assert_accepted(world.upload(world.sign({"notification_url": url}), PNG))
    world.sql(
        f"WITH RECURSIVE copy(number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM copy WHERE number < {count}) "
        "INSERT INTO outbox (name, subject, details, due_at, tries, error, created_at, dead) "
        "SELECT name, subject || number, details, due_at, tries, error, created_at, dead FROM outbox, copy "
        f"WHERE number <= {count}"
    )


def test_the_backlog_of_a_slow_receiver_delays_no_other_receiver(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0.05)
    monkeypatch.setattr(outbox, "_LEASE_SECONDS", 2 * PATIENCE)
    leave_notifications(world)
    leave(world, SLOW, MANY)
    world.clock.time += 1
    leave(world, QUICK)
    posted, quick, notifier = Counter[str](), asyncio.Event(), Notifier()

    async def post(url: str, *_: object) -> str:
        posted[url] += 1
        if url == QUICK:
            quick.set()
        elif posted[SLOW] <= AT_ONCE:  # until then uponce cannot know that it is slow
            await asyncio.sleep(0.1)
        else:
            await quick.wait()
        return ""

    async def deliver() -> int:
        async with asyncio.timeout(PATIENCE):
            return await run_due(world.services, "notify", works(notifier)["notify"])

    monkeypatch.setattr(notifier, "_post", post)
    asyncio.run(deliver())
    assert posted == {SLOW: AT_ONCE + SHARE, QUICK: 1}
    waiting = asyncio.run(world.database.list_effects(2 * MANY))
    assert {(each.tries, each.error, each.dead) for each in waiting} == {(0, "", False)}  # no failure, no back-off
    turns = [each.due_at - START - 1 for each in waiting]
    assert 1 <= min(turns) <= max(turns) <= 1 + MANY * 0.05 / SHARE
    world.sql("DELETE FROM outbox WHERE id % 100")
    waiting = asyncio.run(world.database.list_effects(MANY))
    while asyncio.run(world.database.list_effects(1)):
        world.clock.time += 30
        asyncio.run(deliver())
    assert posted == {SLOW: AT_ONCE + SHARE + len(waiting), QUICK: 1}


def test_slow_receivers_share_the_places_that_one_of_them_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0)
    notifier, end, first, second = Notifier(), asyncio.Event(), "https://a.example", "https://b.example"

    async def hang(*_: object) -> str:
        await end.wait()
        return ""

    def waits(url: str) -> bool:
        return notifier.wait_for(url) > 0

    monkeypatch.setattr(notifier, "_post", hang)

    async def play() -> None:
        posting = [asyncio.create_task(notifier.post(first, {}, b"")) for _ in range(SHARE)]
        await asyncio.sleep(0)
        assert not waits(first)  # nothing is known of it
        end.set()
        await asyncio.gather(*posting, notifier.post(second, {}, b""))
        end.clear()
        posting.clear()
        for _ in range(SHARE):
            assert not waits(first)
            posting.append(asyncio.create_task(notifier.post(first, {}, b"")))
            await asyncio.sleep(0)
        assert waits(first) and waits(second) and not waits(QUICK)
        for number in range(SHARE // 2):  # a place of the first one that gets free is for the second one
            posting[number].cancel()
            await asyncio.sleep(0)
            assert waits(first) and not waits(second)
            posting[number] = asyncio.create_task(notifier.post(second, {}, b""))
            await asyncio.sleep(0)
        posting.pop().cancel()
        await asyncio.sleep(0)
        assert waits(second) and not waits(first)
        monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 60)
        end.set()
        await asyncio.gather(*posting)
        assert not waits(first) and not waits(second)

    asyncio.run(play())


def test_many_slow_receivers_leave_places_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an application with one host for each of its users."""
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0)
    monkeypatch.setattr(notifier_module, "monotonic", lambda: 100.0)
    notifier, hosts = Notifier(), [f"https://{number}.example" for number in range(AT_ONCE)]

    async def accept(*_: object) -> str:
        return ""

    async def play() -> list[bool]:
        monkeypatch.setattr(notifier, "_post", accept)
        await asyncio.gather(*(notifier.post(host, {}, b"") for host in hosts))
        monkeypatch.setattr(notifier, "_post", lambda *_: asyncio.Event().wait())
        waited, posting = [], []
        for host in hosts:
            waited.append(notifier.wait_for(host) > 0)
            if not waited[-1]:
                posting.append(asyncio.create_task(notifier.post(host, {}, b"")))
                await asyncio.sleep(0)
        monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 10)  # of the 24, each has a turn every 15 seconds
        assert [notifier.wait_for(hosts[-1]) for _ in range(4)] == [15, 30, 45, 60]
        for each in posting:
            each.cancel()
        await asyncio.gather(*posting, return_exceptions=True)
        return waited

    assert asyncio.run(play()) == [False] * SHARE + [True] * (AT_ONCE - SHARE)


def test_those_that_wait_for_a_slow_receiver_have_their_turns_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No later than it can take them, so it has a notification for each free place.

    A quick answer between slow ones begins no second line beside the first. No turn is more than five minutes away.
    """
    notifier, now = Notifier(), 100.0
    monkeypatch.setattr(notifier_module, "monotonic", lambda: now)

    async def slow(*_: object) -> str:
        nonlocal now
        now += 1
        return ""

    async def quick(*_: object) -> str:
        return ""

    async def play() -> list[int]:
        monkeypatch.setattr(notifier, "_post", slow)
        await notifier.post(SLOW, {}, b"")
        monkeypatch.setattr(notifier, "_post", lambda *_: asyncio.Event().wait())
        posting = [asyncio.create_task(notifier.post(SLOW, {}, b"")) for _ in range(SHARE)]
        await asyncio.sleep(0)
        turns = [notifier.wait_for(SLOW) for _ in range(3 * SHARE)]
        monkeypatch.setattr(notifier, "_post", quick)
        await notifier.post(SLOW, {}, b"")
        assert notifier.wait_for(SLOW) == 0
        monkeypatch.setattr(notifier, "_post", slow)
        await notifier.post(SLOW, {}, b"")
        turns += [notifier.wait_for(SLOW) + 1 for _ in range(SHARE)]  # a second has passed
        assert max(notifier.wait_for(SLOW) for _ in range(MANY)) == 300
        for each in posting:
            each.cancel()
        await asyncio.gather(*posting, return_exceptions=True)
        assert notifier.wait_for(SLOW) == 0
        return turns

    assert asyncio.run(play()) == [1] * SHARE + [2] * SHARE + [3] * SHARE + [4] * SHARE
