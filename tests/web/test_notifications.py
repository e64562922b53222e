"""Notifications: what a receiver gets after an upload, how often, and which addresses get nothing."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import cloudinary
import pytest
from cloudinary.utils import verify_notification_signature

from tests.receiver import Receiver, receiving
from tests.world import OTHER_PNG, PNG, START, World, assert_accepted, assert_refused
from uponce.adapters import notifier as notifier_module
from uponce.adapters.notifier import AT_ONCE, Notifier, is_public
from uponce.app.outbox import Work, run_due
from uponce.app.ports import Effect, Waiting
from uponce.web.cloudinary.notifications import Notifications

BASE = "https://media.example"
LOCAL = (ip_network("127.0.0.1"),)
DAY = 86400
GUIDE = Path(__file__).parents[2] / "docs/guide/notifications.md"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def leaving_notifications(world: World) -> None:
    leave_notifications(world)


def leave_notifications(world: World, default: str = "") -> None:
    world.swap(after_commit={name: work.details_of for name, work in works(Notifier(), default).items()})


def works(notifier: Notifier, default: str = "") -> dict[str, Work]:
    notifications = Notifications(notifier, BASE, default)
    return {"notify": Work(notifications.send, notifications.url_for, AT_ONCE)}


def deliver(world: World, after: float = 0, allowed: tuple[Any, ...] = LOCAL) -> int:
    """Let the outbox run what is due in so many seconds."""

    async def deliver() -> int:
        notifier = Notifier(allowed, seconds=60)
        try:
            return await run_due(world.services, "notify", works(notifier)["notify"])
        finally:
            await notifier.close()

    world.clock.time += after
    return asyncio.run(deliver())


def effects(world: World) -> list[Effect]:
    return list(asyncio.run(world.database.list_effects(100)))


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "in a group"])
def test_a_receiver_gets_the_answer_signed_as_sdks_verify_it(world: World, receiver: Receiver, whole: bool) -> None:
    world.whole_bodies = whole
    answer = assert_accepted(world.upload(world.sign({"notification_url": receiver.url, "tags": "a"}), PNG)).json
    assert deliver(world) == 1
    ((headers, body),) = receiver.got
    sent = json.loads(body)
    assert {name: sent.pop(name) for name in ("notification_type", "timestamp", "signature_key")} == {
        "notification_type": "upload",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "signature_key": world.browser.api_key,
    }
    assert sent.pop("notification_context")["triggered_by"] == {"source": "api", "id": world.browser.api_key}
    assert len(sent.pop("request_id")) == 32
    assert sent["secure_url"].startswith(f"{BASE}/demo/image/upload/")
    differing = {"url", "secure_url", "api_key"}
    assert {k: v for k, v in sent.items() if k not in differing} == {
        k: v for k, v in answer.items() if k not in differing
    }
    cloudinary.config(api_secret=world.browser.secrets[0])
    stamp = int(headers["X-Cld-Timestamp"])
    assert stamp == START
    assert verify_notification_signature(body.decode(), stamp, headers["X-Cld-Signature"], valid_for=10**9)
    assert not verify_notification_signature(body.decode() + " ", stamp, headers["X-Cld-Signature"], valid_for=10**9)
    assert effects(world) == [] and deliver(world, DAY) == 0


def test_a_receiver_that_fails_first_gets_it_again_and_in_order(world: World, receiver: Receiver) -> None:
    receiver.statuses = [500, 307]
    for file in (PNG, OTHER_PNG):
        fields = world.sign({"notification_url": receiver.url, "public_id": "cat"})
        assert_accepted(world.upload(fields, file))
    assert deliver(world) == 1
    assert {effect.error for effect in effects(world)} == {"", "the receiver answered 500"}
    assert deliver(world, 9) == 0
    assert deliver(world, 1) == 1
    assert effects(world)[0].error == "the receiver answered 307"  # and uponce did not follow
    assert len(receiver.got) == 2
    assert deliver(world, 20) == 2
    versions = [json.loads(body)["version"] for _, body in receiver.got]
    assert versions[0] == versions[1] == versions[2] < versions[3]
    assert effects(world) == []


def test_a_receiver_that_never_accepts_gets_it_for_a_day_and_then_the_effect_is_dead(
    world: World, receiver: Receiver
) -> None:
    receiver.statuses = [503] * 100
    assert_accepted(world.upload(world.sign({"notification_url": receiver.url}), PNG))
    while not effects(world)[0].dead:
        deliver(world, 600)
    assert len(receiver.got) == 32
    assert DAY < world.clock.time - START < 2 * DAY
    assert effects(world)[0].error == "the receiver answered 503"
    assert deliver(world, DAY) == 0
    receiver.statuses.clear()
    assert asyncio.run(world.database.retry_effects()) == 1
    assert deliver(world) == 1
    assert effects(world) == []


def test_what_the_guide_names_is_equal_on_each_repeat_and_differs_for_each_upload(
    world: World, receiver: Receiver
) -> None:
    """Also if the second upload keeps the asset of the first: then `asset_id` and `version_id` are equal."""
    receiver.statuses = [500]
    for file in (PNG, OTHER_PNG):
        fields = world.sign({"notification_url": receiver.url, "public_id": "cat", "overwrite": "0"})
        assert_accepted(world.upload(fields, file))
    deliver(world)
    deliver(world, 10)
    names = re.search(r"a notification may come twice. (.*?) the upload: store each", GUIDE.read_text(), re.DOTALL)
    assert names is not None
    named = re.findall(r"`(\w+)`", names[1])
    first, repeat, second = ([json.loads(body)[name] for name in named] for _, body in receiver.got)
    assert first == repeat != second


def test_those_behind_a_notification_that_died_have_waited_with_it(world: World, receiver: Receiver) -> None:
    """Had each of them a day of tries, one asset that is overwritten again and again would have ever more of them."""
    receiver.statuses = [401] * 100
    for number in range(4):
        world.clock.time += number == 3 and DAY
        fields = world.sign({"notification_url": receiver.url, "public_id": "cat"})
        assert_accepted(world.upload(fields, (PNG, OTHER_PNG)[number % 2]))
        deliver(world)
    assert [(effect.dead, effect.tries) for effect in effects(world)] == [(False, 2), *[(False, 0)] * 3]
    assert deliver(world, 60) == 4
    assert {effect.id: (effect.dead, effect.tries) for effect in effects(world)} == {
        1: (True, 3),
        2: (True, 1),
        3: (True, 1),
        4: (False, 1),
    }


def test_a_receiver_that_does_not_answer_gets_one_at_a_time_until_it_does(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others keep their places in the outbox for receivers that do."""
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0.3)

    async def one(notifier: Notifier, url: str) -> str:
        return "busy" if notifier.is_busy(url) else await notifier.post(url, {}, b"{}")

    async def post(notifier: Notifier, url: str, count: int = 5) -> list[str]:
        return await asyncio.gather(*(one(notifier, url) for _ in range(count)))

    async def play(silent: socket.socket) -> None:
        notifier = Notifier(LOCAL, seconds=0.5)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/hook"
        first, later = await post(notifier, url), await post(notifier, url)
        assert all("Timeout" in problem for problem in first)
        assert ["Timeout" in problem for problem in later] == [True, False, False, False, False]
        assert later[1] == "busy"
        await notifier.close()  # what it knows of receivers stays
        notifier._seconds = 60
        monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 60)
        assert await post(notifier, receiver.url) == [""] * 5
        silent.close()
        refused = (await post(notifier, url))[0]  # at once: such a receiver holds no place
        assert "cannot be reached" in refused
        assert await post(notifier, url) == [refused] * 5
        await notifier.close()

    asyncio.run(play(socket.create_server(("127.0.0.1", 0))))


def test_a_burst_to_a_slow_receiver_is_posted_one_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a burst finds the receiver free, then waits for its key. Only the first one may go."""
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0)
    url, posted = "https://silent.example/hook", 0
    for number in range(5):
        assert_accepted(world.upload(world.sign({"notification_url": url, "public_id": f"cat{number}"}), PNG))

    async def hang(*_: object) -> str:
        nonlocal posted
        posted += 1
        while posted == 1 and [e.error for e in await world.database.list_effects(100)].count("") > 1:
            await asyncio.sleep(0.01)
        return "it hung"

    async def play() -> None:
        notifier = Notifier()
        monkeypatch.setattr(notifier, "_post", lambda *_: answered("it hung"))
        await notifier.post(url, {}, b"{}")
        monkeypatch.setattr(notifier, "_post", hang)
        assert await run_due(world.services, "notify", works(notifier)["notify"]) == 5

    asyncio.run(play())
    assert posted == 1
    assert ["answers too slowly" in effect.error for effect in effects(world)].count(True) == 4


def test_an_older_notification_to_a_slow_receiver_does_not_let_two_others_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0.1)
    hosts = ("user:secret@slow.example/hook", "slow.example", "slow.example?upload=17", "SLOW.example?a@b#/c")
    url, *others = (f"http://{host}" for host in hosts)

    async def play() -> None:
        notifier, ends = Notifier(), [asyncio.Event() for _ in range(3)]
        waiting = iter(ends)

        async def hang(*_: object) -> str:
            await next(waiting).wait()
            return "it hung"

        monkeypatch.setattr(notifier, "_post", hang)
        first, second = (asyncio.create_task(notifier.post(url, {}, b"")) for _ in range(2))
        await asyncio.sleep(0.2)
        ends[0].set()
        await first
        assert not notifier.is_busy(url)
        third = asyncio.create_task(notifier.post(url, {}, b""))
        await asyncio.sleep(0)
        ends[1].set()
        await second
        assert all(notifier.is_busy(each) for each in (url, *others))
        ends[2].set()
        await third
        assert not notifier.is_busy(url)

    asyncio.run(play())


def test_receivers_of_the_past_leave_room_for_those_that_are_slow_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may get one notification and no other: each deployment of a preview has its own."""
    monkeypatch.setattr(notifier_module, "_SLOW_SECONDS", 0)
    monkeypatch.setattr(notifier_module, "_MOST_SLOW", 3)

    async def play() -> None:
        notifier = Notifier()
        monkeypatch.setattr(notifier, "_post", lambda *_: answered("it hung"))
        for name in ("often", "a", "b", "often", "c", "now"):
            await notifier.post(f"https://{name}.example", {}, b"")
        held = asyncio.Event()

        async def hang(*_: object) -> str:
            await held.wait()
            return ""

        monkeypatch.setattr(notifier, "_post", hang)
        urls = [f"https://{name}.example" for name in ("a", "b", "often", "c", "now")]
        posting = [asyncio.create_task(notifier.post(url, {}, b"")) for url in urls]
        await asyncio.sleep(0)
        assert [notifier.is_busy(url) for url in urls] == [False, False, True, True, True]
        held.set()
        await asyncio.gather(*posting)

    asyncio.run(play())


async def answered(problem: str) -> str:
    return problem


def test_notifications_that_are_never_posted_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those to a receiver that drops packets stay for ever: one is posted each ten seconds, and more come."""
    for number, name in enumerate(("cat", "cat", "cat", "dog")):
        fields = world.sign({"notification_url": "https://silent.example", "public_id": name})
        assert_accepted(world.upload(fields, (PNG, OTHER_PNG)[number % 2]))
    monkeypatch.setattr(Notifier, "is_busy", lambda *_: True)
    monkeypatch.setattr(world.database, "find_key", None)  # a busy receiver is found before any other work
    while world.clock.time < START + DAY:
        deliver(world, 1800)
    assert [effect.dead for effect in effects(world)] == [False] * 4
    deliver(world, 3600)
    assert [effect.dead for effect in effects(world)] == [True] * 4
    assert asyncio.run(world.database.count_waiting()) == Waiting(0, 0, 4)


def test_a_retried_notification_waits_a_day_for_its_turn(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage, `retry` posts each notification once more, when its receiver has time."""
    receiver.statuses = [503] * 100
    assert_accepted(world.upload(world.sign({"notification_url": receiver.url}), PNG))
    while not (effect := effects(world)[0]).dead:
        deliver(world, DAY)
    assert asyncio.run(world.database.retry_effects()) == 1
    assert effects(world)[0].tries == 0
    assert deliver(world) == 1
    assert effects(world)[0].dead
    assert len(receiver.got) == effect.tries + 1
    for _ in range(2):  # a busy receiver takes no turn away: the operator may retry again
        assert asyncio.run(world.database.retry_effects()) == 1
        posted, begin = len(receiver.got), world.clock.time
        with monkeypatch.context() as busy:
            busy.setattr(Notifier, "is_busy", lambda *_: True)
            while not (effect := effects(world)[0]).dead:
                deliver(world, 300)
        assert len(receiver.got) == posted
        assert DAY < world.clock.time - begin < DAY + 7200
        assert effect.error == "after a retry: the receiver answers too slowly; another notification is tried first"
    assert asyncio.run(world.database.retry_effects()) == 1
    with monkeypatch.context() as busy:
        busy.setattr(Notifier, "is_busy", lambda *_: True)
        for _ in range(22):
            deliver(world, 3600)
    receiver.statuses.clear()
    deliver(world, 3600)
    assert effects(world) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_private_address_gets_nothing_unless_a_setting_allows_it(world: World, receiver: Receiver, host: str) -> None:
    url = receiver.url.replace("127.0.0.1", host)
    assert_accepted(world.upload(world.sign({"notification_url": url}), PNG))
    deliver(world, allowed=())
    assert receiver.got == []
    error = effects(world)[0].error
    assert re.search("cannot be reached: .* is a private address|is not a canonical IPv4 address", error)
    assert "ClientConnector" not in error
    assert effects(world)[0].due_at > START


def test_an_allowed_network_has_its_addresses_inside_ipv6_too(world: World, receiver: Receiver) -> None:
    url = receiver.url.replace("127.0.0.1", "[::ffff:127.0.0.1]")
    assert_accepted(world.upload(world.sign({"notification_url": url}), PNG))
    deliver(world)
    assert len(receiver.got) == 1


def test_the_setting_is_for_uploads_that_sign_no_other_url(world: World, receiver: Receiver) -> None:
    leave_notifications(world, f"{receiver.url}/setting")
    assert_accepted(world.upload(world.sign(), PNG))
    assert_accepted(world.upload(world.sign({"notification_url": f"{receiver.url}/own"}), PNG))
    urls = [json.loads(effect.details)["details"] for effect in effects(world)]
    assert sorted(urls) == [f"{receiver.url}/own", f"{receiver.url}/setting"]


def test_a_refused_upload_notifies_no_receiver(world: World, receiver: Receiver) -> None:
    fields = world.sign({"notification_url": receiver.url})
    assert_accepted(world.upload(fields, PNG))
    assert_refused(world.upload(fields, OTHER_PNG), 400, "signature_used")
    assert len(effects(world)) == 1


@pytest.mark.parametrize(
    "text",
    "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.1.2.3 169.254.169.254 172.31.0.1 192.0.0.8 192.168.1.1 198.18.0.1 "
    "224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 "
    "fe80::1 fc00::1 fd00:ec2::254 ff02::1 2001::1 2001:db8::1 2002:7f00:1:: 2606:4700::5efe:7f00:1".split(),
)
def test_private_addresses(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text", "1.1.1.1 172.32.0.1 100.128.0.1 ::ffff:1.1.1.1 64:ff9b::101:101 2606:4700::1111".split()
)
def test_public_addresses(text: str) -> None:
    assert is_public(ip_address(text))
