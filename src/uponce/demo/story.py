"""The steps of the demo, as data: what happens, what is promised, and the function that checks it."""

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter

from uponce.adapters.files import exists
from uponce.adapters.media import samples
from uponce.core.account import Account, account_url
from uponce.demo import sdk
from uponce.demo.client import Client, Fields, Media, Reply
from uponce.demo.server import Server

USED = "signature_used"
RIVALS = 20
WINDOW = 3600
SECONDS_LEFT = 3
_TRIES = 5


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step, and whether the promise holds. `quote` is the server's own sentence."""

    kept: bool
    seen: str
    quote: str = ""


@dataclass(slots=True)
class World:
    """The server, client and media of the steps, and what earlier steps leave for later ones."""

    server: Server
    client: Client
    server_key: Account
    photo: Media
    other_photo: Media
    animation: Media
    film: Media
    signed: dict[str, Fields] = field(default_factory=dict)
    stored: dict[str, Media] = field(default_factory=dict)

    @classmethod
    def prepare(cls, server: Server, client: Client, server_key: Account) -> "World":
        return cls(
            server,
            client,
            server_key,
            photo=Media("photo.jpg", samples.jpeg(1, 1920, 1280)),
            other_photo=Media("other.jpg", samples.jpeg(2, 1920, 1280)),
            animation=Media("animation.gif", samples.gif(3)),
            film=Media("film.mp4", samples.mp4(4)),
        )

    def sign(self, public_id: str, timestamp: int | None = None) -> Fields:
        self.signed[public_id] = fields = self.client.sign(public_id, timestamp)
        return fields


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the table, below the heading `chapter`."""

    chapter: str
    title: str
    promise: str
    act: Callable[[World], StepResult]


def sign_and_post(public_id: str, pick: Callable[[World], Media]) -> Callable[[World], StepResult]:
    return lambda world: _accepted(world, world.client.post(world.sign(public_id), pick(world)), pick(world))


def post_signed(public_id: str, pick: Callable[[World], Media]) -> Callable[[World], StepResult]:
    return lambda world: _accepted(world, world.client.post(world.signed[public_id], pick(world)), pick(world))


def post_refused(public_id: str, code: str, pick: Callable[[World], Media]) -> Callable[[World], StepResult]:
    return lambda world: _refused(world.client.post(world.signed[public_id], pick(world)), code)


def race(world: World) -> list[Reply]:
    """Return the answers to many posts of one signature at once."""
    fields, start = world.sign("race"), threading.Barrier(RIVALS)

    def post(_: int) -> Reply:
        start.wait(timeout=30)
        return world.client.post(fields, world.photo)

    with ThreadPoolExecutor(RIVALS) as rivals:
        return list(rivals.map(post, range(RIVALS)))


def race_once(world: World) -> StepResult:
    answers = race(world)
    winners = sum(answer.status == 200 for answer in answers)
    refused = sum(is_refusal(answer, USED, "signature_in_use") for answer in answers)
    others = RIVALS - winners - refused
    seen = f"{winners} stored, {refused} refused" + (f", {others} other" if others else "")
    return StepResult(winners == 1 and refused == RIVALS - 1, seen)


def tear(world: World) -> StepResult:
    fields = world.sign("torn")
    world.client.begin(fields, world.film).close()
    return _unused(world.client.status(fields))


def post_at_the_last_moment(world: World) -> StepResult:
    """Post a signature just before it expires. Sign again if the machine stalled for longer than was left."""
    for _ in range(_TRIES):
        born = int(time.time()) + SECONDS_LEFT - WINDOW
        world.sign("too-late", born)
        answer = world.client.post(world.sign("last-moment", born), world.photo)
        if answer.status == 200 or time.time() < born + WINDOW:
            break
    return _accepted(world, answer, world.photo)


def post_too_late(world: World) -> StepResult:
    fields = world.signed["too-late"]
    time.sleep(max(0.0, int(fields["timestamp"]) + WINDOW + 0.1 - time.time()))
    answer = world.client.post(fields, world.photo)
    outcome = _refused(answer, "stale_request")
    return StepResult(outcome.kept and answer.message.startswith("Stale request"), outcome.seen, outcome.quote)


def revoke(world: World) -> StepResult:
    answer = world.client.revoke(world.sign("revoked"))
    status = str(answer.body.get("status", answer.code))
    return StepResult(answer.status == 200 and status == "revoked", f"{answer.status} {status}")


def crash(world: World) -> StepResult:
    fields = world.sign("crashed")
    with world.client.begin(fields, world.film):
        # The answer also shows that the server has received the upload before it dies.
        before = world.client.status(fields)
        world.server.kill()
    world.client.hang_up()
    began = time.monotonic()
    world.server.start()
    after = world.client.status(fields)
    kept = before == after == "unused"
    return StepResult(kept, f"after {time.monotonic() - began:.1f} s" if kept else f"signature {before}, {after}")


def fetch_all(world: World) -> StepResult:
    same = sum(world.client.fetch(url) == media.data for url, media in world.stored.items())
    return StepResult(same == len(world.stored) > 0, f"{same} of {len(world.stored)} the same")


def upload_twice(world: World) -> StepResult:
    versions = [
        sdk.upload(world.photo.data, world.server_key, world.server.url, public_id="poster")["version"]
        for _ in range(2)
    ]
    return StepResult(versions[0] < versions[1], "stored, stored again")


def _accepted(world: World, answer: Reply, media: Media) -> StepResult:
    """Return the outcome of an upload: stored if the answer is 200 and its URL serves the bytes that were sent."""
    if answer.status != 200:
        return StepResult(False, f"{answer.status} {answer.code}", answer.message)
    url = str(answer.body["secure_url"])
    same = world.client.fetch(url) == media.data
    world.stored[url] = media
    size = f"{len(media.data) / 1000:,.0f} kB"
    return StepResult(same, f"200, {size}, same bytes" if same else f"200, {size}, OTHER BYTES")


def _refused(answer: Reply, *codes: str) -> StepResult:
    seen = f"{answer.status} {answer.code}" if answer.code else f"{answer.status}, it was stored"
    return StepResult(is_refusal(answer, *codes), seen, answer.message)


def is_refusal(answer: Reply, *codes: str) -> bool:
    return answer.status == 400 and answer.code in codes


def _unused(status: str) -> StepResult:
    return StepResult(status == "unused", f"signature {status or 'unknown'}")


photo, other_photo, animation, film = map(attrgetter, ("photo", "other_photo", "animation", "film"))

_ONCE = "A signature works ..."
_NOT_TWICE = "... once"
_FREE = "What fails costs nothing"
_ENDS = "A signature expires, and its owner can revoke it"
_CRASH = "A crash changes nothing"
_SERVER = "The key for your own server's SDK has no such limit"
_LEAVE = "The server stops"
# Of a relay.
_ONE = "The backend signs, the browser posts to the relay, the account stores"
_RELAY_CRASH = "A crash of the relay loses and doubles nothing"
_AWAY = "An account that is away costs nothing"

STORY = (
    Step(_ONCE, "JPEG: sign, post, fetch", "stored", sign_and_post("photo", photo)),
    Step(_ONCE, "Animated GIF: the same", "stored", sign_and_post("animation", animation)),
    Step(_ONCE, "MP4: the same", "stored", sign_and_post("film", film)),
    Step(_NOT_TWICE, "First signature, new JPEG", "refused", post_refused("photo", USED, other_photo)),
    Step(_NOT_TWICE, "First signature, same JPEG", "refused", post_refused("photo", USED, photo)),
    Step(_NOT_TWICE, "20 at once, one signature", "one stored", race_once),
    Step(_FREE, "Line cut halfway", "not spent", tear),
    Step(_FREE, "Same signature, whole MP4", "stored", post_signed("torn", film)),
    Step(_ENDS, "Signature 59:57 old", "stored", post_at_the_last_moment),
    Step(_ENDS, "Signature 60:00 old", "refused", post_too_late),
    Step(_ENDS, "Revoke one", "revoked", revoke),
    Step(_ENDS, "Post with it", "refused", post_refused("revoked", "signature_revoked", photo)),
    Step(_CRASH, "SIGKILL during an upload", "up again", crash),
    Step(_CRASH, "First signature, same JPEG", "refused", post_refused("photo", USED, photo)),
    Step(_CRASH, "All that was stored so far", "same bytes", fetch_all),
    Step(_CRASH, "The upload it interrupted", "stored", post_signed("crashed", film)),
    Step(_SERVER, "uploader.upload, twice", "both stored", upload_twice),
)


def leave(keep: bool) -> Step:
    """Return the last step: the server stops when asked to, and its folder is deleted, or kept if `keep`."""

    def act(world: World) -> StepResult:
        world.client.hang_up()
        stopped = world.server.stop()
        if not keep:
            shutil.rmtree(world.server.folder)
        is_there = exists(world.server.folder)
        seen = f"{'stopped' if stopped else 'KILLED'}, folder {'kept' if is_there else 'gone'}"
        return StepResult(stopped and is_there is keep, seen)

    promise = "folder kept" if keep else "nothing left"
    return Step(_LEAVE, "Stop the server", promise, act)


def setting_of(upstream: Server) -> dict[str, str]:
    """Return the setting of a relay in front of this server. Its second key works any number of times."""
    key = upstream.keys[1]
    return {"UPONCE_RELAY": account_url(key.api_key, key.secret, key.cloud, upload_prefix=upstream.url)}


def relay_story(upstream: Server) -> tuple[Step, ...]:
    """Return the steps of a relay. The world's server is the relay: it makes signatures work once before an account.

    The upstream, a second uponce, plays the account.
    """

    def in_the_account(public_id: str) -> Callable[[World], StepResult]:
        def act(world: World) -> StepResult:
            found = world.client.fetch_resource(upstream.url, upstream.keys[1], public_id)
            here = sum(url.startswith(world.server.url) for url in world.stored)
            return StepResult(found == 200 and not here, f"{found}, {here} in the relay")

        return act

    def race_and_ask_again(world: World) -> StepResult:
        """Race, then repeat the uploads that were asked to wait. Return whether each gets a definite refusal."""
        answers = race(world)
        waiting = sum(answer.status == 503 and answer.code == "outcome_unknown" for answer in answers)
        again = [world.client.post(world.signed["race"], world.photo) for _ in range(waiting)]
        winners = sum(answer.status == 200 for answer in (*answers, *again))
        refused = sum(is_refusal(answer, USED, "signature_in_use") for answer in (*answers, *again))
        found = world.client.fetch_resource(upstream.url, upstream.keys[1], "race")
        kept = (winners, refused, found) == (1, RIVALS - 1, 200)
        return StepResult(kept, f"{winners} stored, {refused} refused")

    def without_the_account(world: World) -> StepResult:
        fields = world.sign("patient")
        upstream.kill()
        answer = world.client.post(fields, world.photo)
        upstream.start()
        status = world.client.status(fields)
        kept = answer.status == 503 and answer.code == "upstream_unavailable" and status == "unused"
        return StepResult(kept, f"{answer.status}, signature {status}", answer.message)

    return (
        Step(_ONE, "JPEG: sign, post, fetch", "stored", sign_and_post("photo", photo)),
        Step(_ONE, "MP4: the same", "stored", sign_and_post("film", film)),
        Step(_ONE, "Ask the account for it", "it has it", in_the_account("photo")),
        Step(_NOT_TWICE, "First signature, new JPEG", "refused", post_refused("photo", USED, other_photo)),
        Step(_NOT_TWICE, "20 at once, one signature", "one stored", race_and_ask_again),
        Step(_RELAY_CRASH, "SIGKILL of the relay", "up again", crash),
        Step(_RELAY_CRASH, "The upload it interrupted", "stored", post_signed("crashed", film)),
        Step(_RELAY_CRASH, "The same signature again", "refused", post_refused("crashed", USED, photo)),
        Step(_RELAY_CRASH, "First signature, same JPEG", "refused", post_refused("photo", USED, photo)),
        Step(_AWAY, "SIGKILL of the account", "not spent", without_the_account),
        Step(_AWAY, "The same signature, later", "stored", post_signed("patient", photo)),
        Step(_AWAY, "And once more", "refused", post_refused("patient", USED, photo)),
    )
