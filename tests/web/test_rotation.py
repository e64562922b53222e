"""What `uponce keys rotate` does to uploads under way and to notifications, as the guides say."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import cloudinary
from cloudinary.utils import verify_notification_signature

from tests.asgi import Answer
from tests.chunks import CHUNK, Client, noise, stored
from tests.world import PNG, START, World, assert_accepted, assert_refused
from uponce.app.manage_keys import rotate_key
from uponce.app.outbox import Work, run_due
from uponce.core.values import ApiKey
from uponce.web.cloudinary.notifications import NOTIFY, Notifications

DATA = noise(3 * CHUNK)


def rotate(world: World, overlap: int | None = None) -> ApiKey:
    """Give the browser's key a new secret. Return the key as a back end has it that knows only this secret."""
    key = asyncio.run(rotate_key(world.services, world.browser.api_key, overlap))
    return replace(key, secrets=key.secrets[:1])


def begun(world: World) -> Client:
    """Return a client of a large file that has sent its first slice."""
    world.swap(limits=replace(world.services.limits, min_chunk_bytes=CHUNK))
    client = Client(world, DATA)
    assert_accepted(send(client, 0))
    return client


def send(client: Client, number: int, fields: Mapping[str, str] | None = None) -> Answer:
    return asyncio.run(client.chunk(*client.spans[number], fields=fields))


def test_an_old_signature_sends_no_slice_after_the_overlap_but_a_new_one_does(world: World) -> None:
    client = begun(world)
    key = rotate(world)
    assert_accepted(send(client, 1))
    world.clock.time += key.window
    assert_refused(send(client, 2), 401, "invalid_signature")
    assert stored(world, send(client, 2, world.sign(key=key))) == DATA


def test_with_a_longer_overlap_an_old_signature_sends_all_slices(world: World) -> None:
    client = begun(world)
    rotate(world, overlap=world.services.limits.series_seconds)
    world.clock.time += world.browser.window + 1000
    assert_accepted(send(client, 1))
    assert stored(world, send(client, 2)) == DATA


def test_a_rotation_that_comes_second_ends_no_upload(world: World) -> None:
    client = begun(world)
    key = rotate(world)
    second = asyncio.run(world.database.rotate_key(key.api_key, "the-other-new-secret", 0, "a secret from before"))
    assert second is not None and second.secrets[:1] == key.secrets
    assert_accepted(send(client, 1))
    assert stored(world, send(client, 2)) == DATA  # with the slice from before


def test_the_new_secret_signs_all_notifications_at_once(world: World) -> None:
    """Also that of an upload that the old secret signed before."""
    got = []

    class Receiver:
        async def post(self, _: str, headers: Mapping[str, str], body: bytes) -> str:
            got.append((body.decode(), START, headers["X-Cld-Signature"], 10**9))
            return ""

    notifications = Notifications(Receiver(), "https://media.example", "https://app.example/uploaded")
    world.swap(after_commit=[notifications.effect_of])
    assert_accepted(world.upload(world.sign(), PNG))
    key = rotate(world)
    asyncio.run(run_due(world.services, NOTIFY, Work(notifications.send)))
    for secret, genuine in ((key.secrets[0], True), (world.browser.secrets[0], False)):
        cloudinary.config(api_secret=secret)
        assert verify_notification_signature(*got[0]) is genuine
