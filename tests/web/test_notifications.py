"""Notifications: what a receiver gets after an upload, how often, and which addresses get nothing."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import cloudinary
import pytest
from cloudinary.utils import verify_notification_signature

from tests.receiver import Receiver, receiving
from tests.world import OTHER_PNG, PNG, START, World, assert_accepted, assert_refused
from uponce.adapters.notifier import Notifier, is_public
from uponce.app.outbox import Work, run_due
from uponce.app.ports import Effect
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
    world.swap(after_commit=[Notifications(Notifier(), BASE, default).effect_of])


def deliver(world: World, after: float = 0, allowed: tuple[Any, ...] = LOCAL, failing: Sequence[str] = ()) -> int:
    """Let the outbox run what is due in so many seconds. Some receivers are known to fail."""

    async def deliver() -> int:
        notifier = Notifier(allowed, seconds=60)
        notifications = Notifications(notifier, BASE)
        notifications._failures.update(dict.fromkeys(failing, 24))
        notifications._posting.update(failing)  # another one is on its way
        try:
            return await run_due(world.services, "notify", Work(notifications.send))
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


LATE = "it waited a day for its turn, and the receiver accepts none"


def test_what_waits_longer_than_a_day_for_a_receiver_that_fails_ends(world: World, receiver: Receiver) -> None:
    """Else more and more would wait for a receiver that is gone. A server that was off for days posts what it has."""
    host = receiver.url.split("/")[2]
    for name in "ab":
        assert_accepted(world.upload(world.sign({"notification_url": receiver.url, "public_id": name}), PNG))
    assert deliver(world, DAY, failing=["other.example", host]) == 2  # not longer than a day
    assert len(receiver.got) == 2
    for name in "cde":
        assert_accepted(world.upload(world.sign({"notification_url": receiver.url, "public_id": name}), PNG))
    assert deliver(world, DAY + 1, failing=[host]) == 3
    assert [(effect.dead, effect.error) for effect in effects(world)] == [(True, LATE)] * 3
    assert asyncio.run(world.database.retry_effects()) == 3
    assert deliver(world, DAY, failing=[host]) == 3
    assert len(receiver.got) == 5
    assert_accepted(world.upload(world.sign({"notification_url": receiver.url, "public_id": "f"}), PNG))
    assert deliver(world, 3 * DAY) == 1
    assert len(receiver.got) == 6
    assert effects(world) == []


def test_those_that_wait_behind_others_of_their_asset_end_too(world: World, receiver: Receiver) -> None:
    """Each is due only when the one before it has ended, so none has waited for its turn."""
    host = receiver.url.split("/")[2]
    for number in range(4):
        fields = world.sign({"notification_url": receiver.url, "public_id": "cat"})
        assert_accepted(world.upload(fields, (PNG, OTHER_PNG)[number % 2]))
        world.clock.time += 100
    assert deliver(world, DAY - 100, failing=[host]) == 4  # the last one is not older than a day
    assert [(effect.dead, effect.error) for effect in effects(world)] == [(True, LATE)] * 3
    assert len(receiver.got) == 1


class Hook:
    """A receiver that refuses, until `accepts`. While it `hangs`, the next notification waits for `may_end`."""

    def __init__(self) -> None:
        self.accepts = self.hangs = False
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def post(self, *_: object) -> str:
        if self.hangs:
            self.hangs = False
            self.begun.set()
            await self.may_end.wait()
        return "" if self.accepts else "refused"


def test_a_receiver_fails_until_it_accepts_and_one_at_a_time_finds_out(world: World) -> None:
    """One refusal among others ends nothing: many hooks may share a host."""
    assert_accepted(world.upload(world.sign({"notification_url": "https://hook.example"}), PNG))
    (effect,) = effects(world)
    late = replace(effect, now=START + 3 * DAY, waited=DAY + 1, tries=1)

    async def play() -> None:
        hook = Hook()
        notifications = Notifications(hook, BASE)

        async def send(effect: Effect) -> str:
            later = await notifications.send(world.services, effect)
            return "" if later is None else later.error

        async def beside_another() -> tuple[asyncio.Task[str], str]:
            hook.hangs = True
            hook.begun.clear()
            hook.may_end.clear()
            other = asyncio.create_task(send(late))
            await hook.begun.wait()
            return other, await send(late)

        for _ in range(23):
            assert await send(late) == "refused"
        other, error = await beside_another()
        assert error == "refused"  # the 24th in a row
        assert await send(late) == LATE
        assert await send(replace(late, waited=DAY, created_at=late.now - DAY)) == "refused"
        assert await send(replace(late, waited=0, error="refused")) == "refused"  # tried before, and not late now
        assert await send(replace(late, receiver="other.example")) == "refused"
        hook.may_end.set()
        assert await other == "refused"
        assert await send(late) == "refused"  # no other one is on its way
        hook.accepts = True
        assert await send(late) == ""
        other, error = await beside_another()
        assert error == ""
        hook.may_end.set()
        await other
        assert not notifications._posting

    asyncio.run(play())


def test_a_retried_notification_is_posted_once_more(world: World, receiver: Receiver) -> None:
    """After an outage, `retry` posts each notification once more, when its receiver has time."""
    receiver.statuses = [503] * 100
    assert_accepted(world.upload(world.sign({"notification_url": receiver.url}), PNG))
    while not (effect := effects(world)[0]).dead:
        deliver(world, DAY)
    for number in range(1, 3):
        assert asyncio.run(world.database.retry_effects()) == 1
        assert effects(world)[0].tries == 0
        assert deliver(world) == 1
        assert effects(world)[0].dead
        assert len(receiver.got) == effect.tries + number


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://user:secret@Slow.example/hook", "slow.example"),
        ("https://slow.example", "slow.example"),
        ("https://slow.example?upload=17", "slow.example"),
        ("https://SLOW.example:8443?a@b#/c", "slow.example:8443"),
        (f"https://{'a' * 1000}.example", "a" * 255),
        ("https://@/", "-"),
    ],
)
def test_notifications_of_one_host_are_those_of_one_receiver(world: World, url: str, host: str) -> None:
    leave_notifications(world, url)
    assert_accepted(world.upload(world.sign(), PNG))
    assert [effect.receiver for effect in effects(world)] == [host]


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
