"""The story of a relay: single use in front of an account that stays where it is. A second uponce is the account."""

from collections.abc import Callable

from uponce.demo.server import Server
from uponce.demo.story import (
    RIVALS,
    USED,
    Outcome,
    Step,
    World,
    crash,
    film,
    is_refusal,
    other_photo,
    photo,
    post_refused,
    post_signed,
    race,
    sign_and_post,
)


def setting_of(upstream: Server) -> dict[str, str]:
    """Return the setting of a relay in front of this server. Its second key works any number of times."""
    key = upstream.keys[1]
    return {"UPONCE_RELAY": f"cloudinary://{key.api_key}:{key.secret}@{key.cloud}?upload_prefix={upstream.url}"}


def relay_story(upstream: Server) -> tuple[Step, ...]:
    """Return the steps. The world's server is the relay."""

    def in_the_account(public_id: str) -> Callable[[World], Outcome]:
        def act(world: World) -> Outcome:
            found = world.client.fetch_resource(upstream.url, upstream.keys[1], public_id)
            here = sum(url.startswith(world.server.url) for url in world.stored)
            return Outcome(found == 200 and not here, f"{found}, {here} in the relay")

        return act

    def race_and_ask_again(world: World) -> Outcome:
        """Rivals of an upload that is under way are asked to wait. Then each gets a definite refusal."""
        answers = race(world)
        waiting = sum(answer.status == 503 and answer.code == "outcome_unknown" for answer in answers)
        again = [world.client.post(world.signed["race"], world.photo) for _ in range(waiting)]
        winners = sum(answer.status == 200 for answer in (*answers, *again))
        refused = sum(is_refusal(answer, USED, "signature_in_use") for answer in (*answers, *again))
        found = world.client.fetch_resource(upstream.url, upstream.keys[1], "race")
        kept = (winners, refused, found) == (1, RIVALS - 1, 200)
        return Outcome(kept, f"{winners} stored, {refused} refused")

    def without_the_account(world: World) -> Outcome:
        fields = world.sign("patient")
        upstream.kill()
        answer = world.client.post(fields, world.photo)
        upstream.start()
        status = world.client.status(fields)
        kept = answer.status == 503 and answer.code == "upstream_unavailable" and status == "unused"
        return Outcome(kept, f"{answer.status}, signature {status}", answer.message)

    return (
        Step(_ONE, "JPEG: sign, post, fetch", "stored", sign_and_post("photo", photo)),
        Step(_ONE, "MP4: the same", "stored", sign_and_post("film", film)),
        Step(_ONE, "Ask the account for it", "it has it", in_the_account("photo")),
        Step(_NOT_TWICE, "First signature, new JPEG", "refused", post_refused("photo", USED, other_photo)),
        Step(_NOT_TWICE, "20 at once, one signature", "one stored", race_and_ask_again),
        Step(_CRASH, "SIGKILL of the relay", "up again", crash),
        Step(_CRASH, "The upload it interrupted", "stored", post_signed("crashed", film)),
        Step(_CRASH, "The same signature again", "refused", post_refused("crashed", USED, photo)),
        Step(_CRASH, "First signature, same JPEG", "refused", post_refused("photo", USED, photo)),
        Step(_AWAY, "SIGKILL of the account", "not spent", without_the_account),
        Step(_AWAY, "The same signature, later", "stored", post_signed("patient", photo)),
        Step(_AWAY, "And once more", "refused", post_refused("patient", USED, photo)),
    )


_ONE = "The backend signs, the browser posts to the relay, the account stores"
_NOT_TWICE = "... once"
_CRASH = "A crash of the relay loses and doubles nothing"
_AWAY = "An account that is away costs nothing"
